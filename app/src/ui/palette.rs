//! The command palette: jump to a page, or begin something with the address that is typed.

use leptos::prelude::*;
use policy::account::Me;
use policy::authz::Permission;
use policy::net;

use crate::browser::{address, element};
use crate::frame::navigation;
use crate::go::{Go, OPEN};
use crate::look::{Peek, PeekStored};
use crate::ui::dialog::Dialog;

/// Whether the palette is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette(pub(crate) RwSignal<bool>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Command {
    label: String,
    href: String,
}

/// The palette; opens with Ctrl-K or ⌘K.
#[component]
pub(crate) fn CommandPalette(me: StoredValue<Me>) -> impl IntoView {
    let Palette(open) = expect_context();
    let go = Go::of_page();
    let (text, chosen) = (RwSignal::new(String::new()), RwSignal::new(0usize));
    let found = Memo::new(move |_| me.peek_stored(|me| commands(&text.get(), me)));
    Effect::new(move || {
        let keys = window_event_listener(leptos::ev::keydown, move |event| {
            if (event.ctrl_key() || event.meta_key()) && event.key().eq_ignore_ascii_case("k") {
                event.prevent_default();
                open.update(|open| *open = !*open);
            }
        });
        on_cleanup(move || keys.remove());
    });
    Effect::new(move || {
        if open.get() {
            text.set(String::new());
            chosen.set(0);
        }
    });
    let run = move |command: Option<Command>| {
        if let Some(command) = command {
            open.set(false);
            go.to(command.href);
        }
    };
    let key = move |event: web_sys::KeyboardEvent| {
        let count = found.peek(Vec::len).max(1);
        match event.key().as_str() {
            "ArrowDown" => chosen.update(|chosen| *chosen = (*chosen + 1) % count),
            "ArrowUp" => chosen.update(|chosen| *chosen = (*chosen + count - 1) % count),
            "Enter" => run(found.peek(|found| found.get(chosen.get_untracked()).cloned())),
            _ => return,
        }
        event.prevent_default();
        if let Some(option) = element(&option_id(chosen.get_untracked())) {
            option.scroll_into_view_with_bool(false);
        }
    };
    let options = move || {
        let option = |(index, command): (usize, Command)| {
            let label = command.label.clone();
            view! {
                <li
                    id=option_id(index)
                    role="option"
                    aria-selected=move || (chosen.get() == index).to_string()
                    on:click=move |_| run(Some(command.clone()))
                    on:pointermove=move |_| chosen.set(index)
                >
                    {label}
                </li>
            }
        };
        found.get().into_iter().enumerate().map(option).collect_view()
    };
    view! {
        <Dialog id="palette" open title="Search or jump">
            <input
                class="input palette-input"
                type="text"
                role="combobox"
                aria-label="Search or jump"
                aria-expanded="true"
                aria-controls="palette-list"
                aria-activedescendant=move || option_id(chosen.get())
                placeholder="A page, an address, a word…"
                autocomplete="off"
                spellcheck="false"
                autofocus
                on:input=move |event| {
                    text.set(event_target_value(&event));
                    chosen.set(0);
                }
                on:keydown=key
            />
            <ul id="palette-list" class="palette-list" role="listbox" aria-label="Results">{options}</ul>
        </Dialog>
    }
}

fn option_id(index: usize) -> String {
    format!("palette-{index}")
}

/// What can be done with what is typed.
fn commands(text: &str, me: &Me) -> Vec<Command> {
    let text = text.trim();
    let mut commands = Vec::new();
    let mut add = |label: String, href: String| commands.push(Command { label, href });
    if let Ok(net) = net::parse_net(text) {
        let net = net::display(&net);
        if me.may(Permission::WriteBlockedIps) {
            add(format!("Block {net}…"), address("/blocked-ips", &[("block", &net)]));
        }
        if me.may(Permission::WriteAllowedIps) {
            add(format!("Allow {net}…"), address("/allowed-ips", &[("allow", &net)]));
        }
        add(format!("Find {net} in Blocked IPs"), address("/blocked-ips", &[("search", &net)]));
        add(format!("Find {net} in Allowed IPs"), address("/allowed-ips", &[("search", &net)]));
        return commands;
    }
    let words = text.to_lowercase();
    let mut add_if_meant = |label: &str, href: String| {
        if label.to_lowercase().contains(&words) {
            add(label.to_owned(), href);
        }
    };
    for place in navigation::places(me) {
        add_if_meant(place.label, place.href.to_owned());
    }
    if me.may(Permission::WriteBlockedIps) {
        add_if_meant("Block an address…", address("/blocked-ips", &[("block", OPEN)]));
    }
    if me.may(Permission::WriteAllowedIps) {
        add_if_meant("Allow an address…", address("/allowed-ips", &[("allow", OPEN)]));
    }
    if me.may(Permission::WritePbxes) {
        add_if_meant("Add a PBX…", address("/pbxes", &[("add", OPEN)]));
    }
    if !text.is_empty() {
        add(format!("Search “{text}” in Blocked IPs"), address("/blocked-ips", &[("search", text)]));
        if me.may(Permission::ReadAudit) {
            add(format!("Search “{text}” in the audit log"), address("/audit", &[("search", text)]));
        }
    }
    commands
}

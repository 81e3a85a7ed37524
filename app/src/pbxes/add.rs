//! Adding a PBX: a name, then the command that connects it, shown once, until its agent answers.

use leptos::prelude::*;
use policy::fields::FieldError;
use policy::ids::PbxId;
use policy::pbxes::{EnrolmentCommand, PbxState};
use policy::people;

use crate::calls::FormState;
use crate::clock::Until;
use crate::look::Look;
use crate::pbxes::api;
use crate::pbxes::page::Listing;
use crate::ui::copy_text::CopyText;
use crate::ui::dialog::{Dialog, open_while_some};
use crate::ui::field::{FormMessage, Submit, TextField};
use crate::ui::icon::{Glyph, Icon};

/// The dialog of "Add a PBX".
#[component]
pub(crate) fn AddDialog(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    view! {
        <Dialog id="add-pbx" open title="Add a PBX">
            <AddForm open listing />
        </Dialog>
    }
}

#[component]
fn AddForm(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let name = RwSignal::new(String::new());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        match people::parse_name(&name.get_untracked()) {
            Err(message) => form.refuse(vec![FieldError::new("name", message)]),
            Ok(name) => form.send(
                "Add anyway",
                move |_| api::add(name.clone()),
                move |command| {
                    open.set(false);
                    listing.command.set(Some(command));
                    listing.reload();
                },
            ),
        }
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <TextField id="pbx-name" name="name" label="Name" value=name form autofocus=true hint="As your people call it, such as “hq”." />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Add" />
            </div>
        </form>
    }
}

/// The command of a PBX that was added, or that gets a new agent.
#[component]
pub(crate) fn CommandDialog(listing: Listing) -> impl IntoView {
    let open = open_while_some(listing.command);
    let title = move || {
        listing
            .command
            .look(|command| command.as_ref().map(|command| format!("Connect {}", command.pbx_name)).unwrap_or_default())
    };
    view! {
        <Dialog id="connect-pbx" open title=Signal::derive(title) wide=true>
            {listing.command.get_untracked().map(|command| view! { <Command command open listing /> })}
        </Dialog>
    }
}

#[component]
fn Command(command: EnrolmentCommand, open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let EnrolmentCommand { pbx_id, command, expires_at, .. } = command;
    let online = Memo::new(move |_| listing.state(pbx_id) == Some(PbxState::Online));
    view! {
        <ol class="steps">
            <li>
                "Put " <code>"ringfence-agent"</code> " into " <code>"/usr/bin"</code> " of the PBX and " <code>"ringfence-agent.service"</code> " into "
                <code>"/etc/systemd/system"</code> ". A build of Ringfence has them in " <code>"target/release"</code> " and " <code>"packaging/agent"</code> "."
            </li>
            <li>
                "Run this there as root. It makes its own key; this command is shown only now."
                <CopyText text=command label="Copy the command" />
            </li>
            <li>"Start it: " <code>"systemctl enable --now ringfence-agent"</code></li>
        </ol>
        <p class="waiting" role="status" data-online=move || online.get().to_string()>
            {move || {
                if online.get() {
                    view! { <Icon glyph=Glyph::Proven /> "Online. The agent is connected and enforcing." }.into_any()
                } else {
                    view! {
                        <span class="dot" aria-hidden="true"></span>
                        <span>"Waiting for the agent… "</span>
                    }
                        .into_any()
                }
            }}
        </p>
        <p class="hint" hidden=move || online.get()>"The command works for another " <Until at=Some(expires_at) passed="0 s: it has expired, make a new one" /> "."</p>
        <div class="dialog-actions">
            <button type="button" class="button primary" on:click=move |_| open.set(false)>"Done"</button>
        </div>
    }
}

/// The dialog of "Rename".
#[component]
pub(crate) fn RenameDialog(listing: Listing) -> impl IntoView {
    let open = open_while_some(listing.renaming);
    view! {
        <Dialog id="rename-pbx" open title="Rename the PBX">
            {listing.renaming.get_untracked().map(|(id, name)| view! { <RenameForm id name open listing /> })}
        </Dialog>
    }
}

#[component]
fn RenameForm(id: PbxId, name: String, open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let name = RwSignal::new(name);
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        match people::parse_name(&name.get_untracked()) {
            Err(message) => form.refuse(vec![FieldError::new("name", message)]),
            Ok(name) => form.send(
                "Rename anyway",
                move |_| api::rename(id, name.clone()),
                move |()| {
                    open.set(false);
                    listing.reload();
                },
            ),
        }
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <TextField id="pbx-new-name" name="name" label="Name" value=name form autofocus=true />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Rename" />
            </div>
        </form>
    }
}

//! The side panel that a row opens: the list stays where it is, the address bar names what is shown, Escape closes.

use leptos::html;
use leptos::prelude::*;

use crate::browser;
use crate::ui::icon::{Glyph, Icon};

/// A panel at the side.
#[component]
pub(crate) fn SidePanel(
    /// What it shows.
    #[prop(into)]
    title: String,
    /// Closes it.
    #[prop(into)]
    close: Callback<()>,
    children: Children,
) -> impl IntoView {
    let heading = NodeRef::<html::H2>::new();
    Effect::new(move || {
        if let Some(heading) = heading.get() {
            let _ = heading.focus();
        }
    });
    let close = move || {
        browser::focus_now("tr.open [data-open]");
        close.run(());
    };
    Effect::new(move || {
        let keys = window_event_listener(leptos::ev::keydown, move |event| {
            let dialog = document().query_selector("dialog[open]").ok().flatten().is_some();
            if event.key() == "Escape" && !dialog && !browser::is_typing(&event) {
                close();
            }
        });
        on_cleanup(move || keys.remove());
    });
    view! {
        <aside class="side-panel" aria-labelledby="side-panel-title">
            <header class="side-panel-header">
                <h2 id="side-panel-title" tabindex="-1" node_ref=heading>{title}</h2>
                <button type="button" class="icon-button" aria-label="Close panel" on:click=move |_| close()>
                    <Icon glyph=Glyph::Close />
                </button>
            </header>
            <div class="side-panel-body">{children()}</div>
        </aside>
    }
}

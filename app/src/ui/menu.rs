//! Menus below a button; close on Escape, on a choice, on a press elsewhere and when the focus leaves.

use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

/// A button that opens a short list of links and buttons.
#[component]
pub(crate) fn Menu(
    /// An id for the page.
    id: &'static str,
    /// What the button is called.
    #[prop(into)]
    label: String,
    /// What the button shows.
    #[prop(into)]
    button: ViewFn,
    children: ChildrenFn,
) -> impl IntoView {
    let open = RwSignal::new(false);
    let (whole, opener) = (NodeRef::<html::Div>::new(), NodeRef::<html::Button>::new());
    let inside = move |target: Option<web_sys::EventTarget>| {
        let node = target.and_then(|target| target.dyn_into::<web_sys::Node>().ok());
        whole.try_get_untracked().flatten().is_some_and(|whole| whole.contains(node.as_ref()))
    };
    let escape = move |event: web_sys::KeyboardEvent| {
        if event.key() == "Escape" && open.get_untracked() {
            open.set(false);
            if let Some(opener) = opener.get_untracked() {
                let _ = opener.focus();
            }
        }
    };
    Effect::new(move || {
        let outside = window_event_listener(leptos::ev::pointerdown, move |event| {
            if open.get_untracked() && !inside(event.target()) {
                open.set(false);
            }
        });
        on_cleanup(move || outside.remove());
    });
    view! {
        <div
            class="menu"
            node_ref=whole
            on:keydown=escape
            on:focusout=move |event| {
                if event.related_target().is_some() && !inside(event.related_target()) {
                    open.set(false);
                }
            }
        >
            <button
                type="button"
                class="menu-button"
                node_ref=opener
                aria-label=label
                aria-expanded=move || open.get().to_string()
                aria-controls=id
                on:click=move |_| open.update(|open| *open = !*open)
            >
                {button.run()}
            </button>
            <div id=id class="menu-list" hidden=move || !open.get() on:click=move |_| open.set(false)>
                {children()}
            </div>
        </div>
    }
}

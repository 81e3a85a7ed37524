//! Modal dialogs on the native element: it keeps the focus inside, gives it back afterwards and closes with Escape.

use leptos::html;
use leptos::prelude::*;

use crate::browser::focus_soon;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::when::When;

/// A dialog; its content is built anew each time it opens.
#[component]
pub(crate) fn Dialog(
    /// An id for the page; the title's is made from it.
    id: &'static str,
    /// Whether it is open. Closing it by Escape or by its button sets this to false.
    open: RwSignal<bool>,
    /// What it is about.
    #[prop(into)]
    title: Signal<String>,
    /// Whether it interrupts with a question.
    #[prop(optional)]
    alert: bool,
    /// Whether it is wide.
    #[prop(optional)]
    wide: bool,
    children: ChildrenFn,
) -> impl IntoView {
    let element = NodeRef::<html::Dialog>::new();
    Effect::new(move || {
        let open = open.get();
        let Some(element) = element.get() else { return };
        if open && !element.open() {
            // Only an element outside of the document is refused.
            let _ = element.show_modal();
            // The content is drawn after this; a question begins at its harmless answer.
            focus_soon(format!("#{id} [autofocus], #{id} .dialog-actions button"));
        } else if !open && element.open() {
            element.close();
        }
    });
    view! {
        <dialog
            id=id
            class="dialog"
            class:wide=wide
            node_ref=element
            role=alert.then_some("alertdialog")
            aria-labelledby=format!("{id}-title")
            on:close=move |_| open.set(false)
        >
            <When is=move || open.get()>
                <header class="dialog-header">
                    <h2 id=format!("{id}-title")>{title}</h2>
                    <button type="button" class="icon-button" aria-label="Close" on:click=move |_| open.set(false)>
                        <Icon glyph=Glyph::Close />
                    </button>
                </header>
                {children()}
            </When>
        </dialog>
    }
}

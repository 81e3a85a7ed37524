//! Modal dialogs on the native element: it keeps the focus inside, gives it back afterwards and closes with Escape.

use leptos::html;
use leptos::prelude::*;
use web_sys::HtmlDialogElement;

use crate::browser::focus_soon;
use crate::look::{Look, Peek};
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
        let wanted = open.get();
        let Some(element) = element.get() else { return };
        if wanted && !element.open() {
            show(element, id, open, 60);
        } else if !wanted && element.open() {
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

/// Shows a dialog as soon as it is in the document: a page that one goes to is built before it is put there.
fn show(element: HtmlDialogElement, id: &'static str, open: RwSignal<bool>, frames: u32) {
    if !element.is_connected() {
        if frames > 0 && open.try_get_untracked() == Some(true) {
            request_animation_frame(move || show(element, id, open, frames - 1));
        }
        return;
    }
    // Refused only when it is open already.
    let _ = element.show_modal();
    // The content is drawn after this; a question begins at its harmless answer.
    focus_soon(format!("#{id} [autofocus], #{id} .dialog-actions button"));
}

/// Whether a dialog is open that shows something: it opens when there is something, which is forgotten when it closes.
pub(crate) fn open_while_some<T: Send + Sync + 'static>(shown: RwSignal<Option<T>>) -> RwSignal<bool> {
    let open = RwSignal::new(false);
    Effect::new(move || {
        let wanted = shown.look(Option::is_some);
        if open.get_untracked() != wanted {
            open.set(wanted);
        }
    });
    Effect::watch(
        move || open.get(),
        move |open, before, _| {
            if !open && before == Some(&true) && shown.peek(Option::is_some) {
                shown.set(None);
            }
        },
        false,
    );
    open
}

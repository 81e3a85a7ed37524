//! Short messages that go away by themselves, some with an Undo.

use std::time::Duration;

use leptos::prelude::*;

use crate::error::ApiError;
use crate::ui::icon::{Glyph, Icon};

const SHOWN: Duration = Duration::from_secs(8);
/// More than these at once hide the page.
const AT_ONCE: usize = 4;

#[derive(Clone)]
struct Toast {
    id: u32,
    text: String,
    failed: bool,
    undo: Option<Callback<()>>,
}

/// Where messages are put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Toasts {
    list: RwSignal<Vec<Toast>>,
    last_id: StoredValue<u32>,
}

impl Toasts {
    /// Puts it in the context.
    pub(crate) fn provide() {
        provide_context(Self { list: RwSignal::new(Vec::new()), last_id: StoredValue::new(0) });
    }

    /// Tells that something was done.
    pub(crate) fn say(self, text: impl Into<String>) {
        self.put(text.into(), false, None);
    }

    /// Tells that something was done and offers to undo it.
    pub(crate) fn say_with_undo(self, text: impl Into<String>, undo: impl Fn() + Send + Sync + 'static) {
        self.put(text.into(), false, Some(Callback::new(move |()| undo())));
    }

    /// Tells what went wrong.
    pub(crate) fn fail(self, error: &ApiError) {
        self.warn(error.to_string());
    }

    /// Tells that something went wrong.
    pub(crate) fn warn(self, text: impl Into<String>) {
        self.put(text.into(), true, None);
    }

    fn put(self, text: String, failed: bool, undo: Option<Callback<()>>) {
        let id = self.last_id.get_value().wrapping_add(1);
        self.last_id.set_value(id);
        self.list.update(|list| {
            list.push(Toast { id, text, failed, undo });
            let surplus = list.len().saturating_sub(AT_ONCE);
            list.drain(..surplus);
        });
        set_timeout(move || self.drop(id), SHOWN);
    }

    fn drop(self, id: u32) {
        self.list.update(|list| list.retain(|toast| toast.id != id));
    }
}

/// The messages; once per page.
#[component]
pub(crate) fn ToastRegion() -> impl IntoView {
    let toasts = expect_context::<Toasts>();
    view! {
        <div class="toasts" role="region" aria-label="Messages">
            <div role="status" aria-live="polite" aria-relevant="additions">
                <For each=move || toasts.list.get() key=|toast| toast.id let:toast>
                    <ToastView toast />
                </For>
            </div>
        </div>
    }
}

#[component]
fn ToastView(toast: Toast) -> impl IntoView {
    let toasts = expect_context::<Toasts>();
    let Toast { id, text, failed, undo } = toast;
    let undo = undo.map(|undo| {
        let run = move |_| {
            toasts.drop(id);
            undo.run(());
        };
        view! { <button type="button" class="toast-undo" on:click=run>"Undo"</button> }
    });
    view! {
        <div class="toast" class:failed=failed>
            <Icon glyph=if failed { Glyph::Alert } else { Glyph::Check } />
            <p>{text}</p>
            {undo}
            <button type="button" class="icon-button" aria-label="Dismiss" on:click=move |_| toasts.drop(id)>
                <Icon glyph=Glyph::Close />
            </button>
        </div>
    }
}

//! The question before something that hurts others or can't be undone. One dialog for the whole page.

use leptos::prelude::*;

use crate::look::Peek;
use crate::ui::dialog::{Dialog, open_while_some};

/// What is asked.
#[derive(Clone)]
pub(crate) struct Question {
    title: String,
    consequence: String,
    yes: &'static str,
    action: Callback<()>,
}

impl Question {
    /// A question whose `consequence` names what happens and to how many; `yes` is what the button says.
    pub(crate) fn new(
        title: impl Into<String>,
        consequence: impl Into<String>,
        yes: &'static str,
        action: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { title: title.into(), consequence: consequence.into(), yes, action: Callback::new(move |()| action()) }
    }
}

/// Where questions are put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confirm(RwSignal<Option<Question>>);

impl Confirm {
    /// Puts it in the context.
    pub(crate) fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    /// Asks.
    pub(crate) fn ask(self, question: Question) {
        self.0.set(Some(question));
    }
}

/// The dialog; once per page.
#[component]
pub(crate) fn ConfirmDialog() -> impl IntoView {
    let Confirm(asked) = expect_context();
    let open = open_while_some(asked);
    let part =
        move |part: fn(&Question) -> String| asked.peek(|question| question.as_ref().map(part).unwrap_or_default());
    let answer = move |_| {
        if let Some(question) = asked.try_update(Option::take).flatten() {
            question.action.run(());
        }
    };
    view! {
        <Dialog id="confirm" open title=move || part(|question| question.title.clone()) alert=true>
            <p class="dialog-text">{part(|question| question.consequence.clone())}</p>
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| asked.set(None)>"Cancel"</button>
                <button type="button" class="button danger" on:click=answer>{part(|question| question.yes.to_owned())}</button>
            </div>
        </Dialog>
    }
}

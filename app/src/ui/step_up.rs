//! The second factor asked for once more, before what changes who has access or takes protection away. What was under way goes on after it.

use leptos::prelude::*;

use crate::account::api;
use crate::calls::FormState;
use crate::ui::dialog::{Dialog, open_while_some};
use crate::ui::field::{FormMessage, Submit, TextField};

/// Where it is asked for: what goes on after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepUp(RwSignal<Option<Callback<()>>>);

impl StepUp {
    /// Puts it in the context.
    pub(crate) fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    /// Asks, and goes on.
    pub(crate) fn ask(self, then: impl Fn() + Send + Sync + 'static) {
        self.0.set(Some(Callback::new(move |()| then())));
    }
}

/// The dialog; once on each page that may ask. Not in the frame, whose code every page begins with.
#[component]
pub(crate) fn StepUpDialog() -> impl IntoView {
    let StepUp(then) = expect_context();
    let open = open_while_some(then);
    view! {
        <Dialog id="step-up" open title="Confirm that it's you">
            <StepUpForm then />
        </Dialog>
    }
}

#[component]
fn StepUpForm(then: RwSignal<Option<Callback<()>>>) -> impl IntoView {
    let form = FormState::new();
    let code = RwSignal::new(String::new());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let go_on = move |()| {
            if let Some(then) = then.try_update(Option::take).flatten() {
                then.run(());
            }
        };
        form.send("", move |_| api::step_up(code.get_untracked()), go_on);
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="dialog-text">
                "This changes who has access, or what protects you. Enter the code of your authenticator app, or a recovery code; you won't be asked again for ten minutes."
            </p>
            <FormMessage form />
            <TextField id="step-up-code" name="code" label="Code" value=code form autocomplete="one-time-code" mono=true autofocus=true />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| then.set(None)>"Cancel"</button>
                <Submit form label="Confirm" />
            </div>
        </form>
    }
}

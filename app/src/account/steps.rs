//! The card that all steps share, and which step follows which.

use leptos::prelude::*;
use leptos_meta::Title;
use policy::account::Stage;

use crate::frame::top_bar::Logo;

/// The page of the step that a session is at.
pub(crate) fn page_of(stage: Stage) -> &'static str {
    match stage {
        Stage::SignedOut => "/login",
        Stage::NeedsCode => "/login/code",
        Stage::NeedsTotpSetup => "/setup",
        Stage::SignedIn => "/",
    }
}

/// One step on a card.
#[component]
pub(crate) fn Card(
    /// The task.
    title: &'static str,
    /// Where in a sequence it is, such as `Step 2 of 3`.
    #[prop(optional)]
    step: Option<&'static str>,
    children: Children,
) -> impl IntoView {
    view! {
        <Title text=title />
        <main class="alone">
            <div class="card">
                <p class="card-brand">
                    <Logo />
                    "Ringfence"
                </p>
                {step.map(|step| view! { <p class="card-step">{step}</p> })}
                <h1>{title}</h1>
                {children()}
            </div>
        </main>
    }
}

//! The page of an invitation: who has its link comes as somebody new, or with the account that she has.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::fields::FieldError;
use policy::people::{self, Offer};

use crate::account::api;
use crate::account::steps::{Card, page_of};
use crate::browser;
use crate::calls::{Calls, FormState};
use crate::error::ApiError;
use crate::load::load;
use crate::look::Look;
use crate::ui::field::{FormMessage, Submit};
use crate::ui::password_field::PasswordField;
use crate::ui::states::Failed;

/// `/invitation?token=…`
#[component]
pub(crate) fn InvitationPage() -> impl IntoView {
    let query = use_query_map();
    let token = Memo::new(move |_| query.look(|query| query.get("token")).unwrap_or_default());
    let offer = load(move || token.get(), api::show_invitation);
    view! {
        <Suspense>
            {move || Suspend::new(async move {
                match offer.await {
                    Ok(offer) => view! { <Shown offer token=token.get_untracked() /> }.into_any(),
                    Err(error @ ApiError::Refused { .. }) => {
                        view! {
                            <Card title="This invitation doesn't work">
                                <p class="card-text">{error.to_string()}</p>
                                <p class="card-links"><a href="/login">"Log in"</a></p>
                            </Card>
                        }
                            .into_any()
                    }
                    Err(error) => {
                        view! {
                            <Card title="You are invited">
                                <Failed what="The invitation" error retry=|()| browser::reload() />
                            </Card>
                        }
                            .into_any()
                    }
                }
            })}
        </Suspense>
    }
}

#[component]
fn Shown(offer: Offer, token: String) -> impl IntoView {
    let Offer { organisation, email, role, invited_by, has_account, signed_in_as } = offer;
    let yours = signed_in_as.as_ref() == Some(&email);
    let here = browser::address("/invitation", &[("token", &token)]);
    let log_in = browser::address("/login", &[("next", &here)]);
    let action = match (has_account, signed_in_as) {
        (true, Some(_)) if yours => view! { <Join token /> }.into_any(),
        (_, Some(other)) => view! { <SomebodyElse other email=email.clone() here /> }.into_any(),
        (true, None) => view! {
            <p class="card-text">"You have an account. Log in with it to accept."</p>
            <a class="button primary wide" href=log_in rel="external">"Log in"</a>
        }
        .into_any(),
        (false, None) => view! { <NewAccount token words=vec![email.clone(), organisation.clone()] /> }.into_any(),
    };
    view! {
        <Card title="You are invited">
            <p class="card-text">
                {invited_by} " invites " <strong>{email}</strong> " to " <strong>{organisation}</strong> " as " {role.title()} "."
            </p>
            {action}
        </Card>
    }
}

#[component]
fn Join(token: String) -> impl IntoView {
    let form = FormState::new();
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let token = token.clone();
        form.send("", move |_| api::join_tenant(token.clone()), |()| browser::load("/"));
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <Submit form label="Accept" wide=true />
        </form>
    }
}

/// Another person's session is open in this browser.
#[component]
fn SomebodyElse(other: String, email: String, here: String) -> impl IntoView {
    let calls = Calls::of_page();
    let leave = move |_| {
        let here = here.clone();
        calls.change(api::log_out(), move |()| browser::load(&here));
    };
    view! {
        <p class="card-text">"You are logged in as " <strong>{other}</strong> ". The invitation is for " <strong>{email}</strong> "."</p>
        <button type="button" class="button primary wide" on:click=leave>"Log out and go on"</button>
    }
}

#[component]
fn NewAccount(token: String, words: Vec<String>) -> impl IntoView {
    let form = FormState::new();
    let password = RwSignal::new(String::new());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let chosen = password.get_untracked();
        if let Err(message) = people::check_password_length(&chosen) {
            form.refuse(vec![FieldError::new("password", message)]);
            return;
        }
        let token = token.clone();
        form.send(
            "",
            move |_| api::accept_invitation(token.clone(), chosen.clone()),
            |stage| browser::load(page_of(stage)),
        );
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="card-text">"Choose a password. The next step connects your authenticator app."</p>
            <FormMessage form />
            <PasswordField id="password" label="Password" value=password form new_without=Signal::stored(words) autofocus=true />
            <Submit form label="Accept" wide=true />
        </form>
    }
}

//! Password reset by mail.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::fields::FieldError;
use policy::people;

use crate::account::api;
use crate::account::login::check_email;
use crate::account::sign_up::DevelopmentMailbox;
use crate::account::steps::Card;
use crate::calls::FormState;
use crate::look::Peek;
use crate::ui::field::{FormMessage, Submit, TextField};
use crate::ui::password_field::PasswordField;

/// `/forgot`
#[component]
pub(crate) fn ForgotPage() -> impl IntoView {
    let form = FormState::new();
    let email = RwSignal::new(String::new());
    let sent = RwSignal::new(false);
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        match people::parse_email(&email.get_untracked()) {
            Ok(address) => {
                form.send("", move |_| api::request_password_reset(address.clone()), move |()| sent.set(true));
            }
            Err(message) => form.refuse(vec![FieldError::new("email", message)]),
        }
    };
    let content = move || {
        if sent.get() {
            view! {
                <p class="card-text" role="status">
                    "If " <strong>{email.get_untracked()}</strong>
                    " belongs to an account, a mail with a link is on its way. The link works for an hour."
                </p>
                <DevelopmentMailbox />
            }
            .into_any()
        } else {
            view! {
                <form method="post" on:submit=submit novalidate>
                    <p class="card-text">"You get a mail with a link to set a new one."</p>
                    <FormMessage form />
                    <TextField
                        id="email"
                        name="email"
                        label="E-mail address"
                        value=email
                        form
                        kind="email"
                        autocomplete="username"
                        autofocus=true
                        check=check_email
                    />
                    <Submit form label="Send the link" wide=true />
                </form>
            }
            .into_any()
        }
    };
    view! {
        <Card title="Forgot your password?">
            {content}
            <p class="card-links"><a href="/login">"Back to login"</a></p>
        </Card>
    }
}

/// `/reset?token=…`
#[component]
pub(crate) fn ResetPage() -> impl IntoView {
    let form = FormState::new();
    let password = RwSignal::new(String::new());
    let done = RwSignal::new(false);
    let query = use_query_map();
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let chosen = password.get_untracked();
        if let Err(message) = people::check_password_length(&chosen) {
            form.refuse(vec![FieldError::new("password", message)]);
            return;
        }
        let token = query.peek(|query| query.get("token")).unwrap_or_default();
        form.send("", move |_| api::reset_password(token.clone(), chosen.clone()), move |()| done.set(true));
    };
    let content = move || {
        if done.get() {
            view! {
                <p class="card-text" role="status">"Your password is changed, and all sessions of your account have ended."</p>
                <a class="button primary wide" href="/login" rel="external">"Log in"</a>
            }
            .into_any()
        } else {
            view! {
                <form method="post" on:submit=submit novalidate>
                    <FormMessage form />
                    <PasswordField
                        id="password"
                        label="New password"
                        value=password
                        form
                        new_without=Signal::stored(Vec::new())
                        autofocus=true
                    />
                    <Submit form label="Set the password" wide=true />
                </form>
                <p class="card-links"><a href="/forgot">"Send another link"</a></p>
            }
            .into_any()
        }
    };
    view! { <Card title="Set a new password">{content}</Card> }
}

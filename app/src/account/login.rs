//! Login: e-mail address and password, then a code of the authenticator app or a recovery code.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::account::Stage;
use policy::people;

use crate::account::api;
use crate::account::steps::{Card, page_of};
use crate::browser;
use crate::calls::FormState;
use crate::look::Peek;
use crate::ui::field::{FormMessage, Submit, TextField};
use crate::ui::password_field::PasswordField;

/// Goes to the step after a login, keeping where the person wanted to go.
fn go_on(stage: Stage, next: Option<String>) {
    let next = browser::next_or_overview(next.as_deref());
    match stage {
        Stage::SignedIn => browser::load(&next),
        Stage::SignedOut | Stage::NeedsCode | Stage::NeedsTotpSetup => {
            browser::load(&browser::address(page_of(stage), &[("next", if next == "/" { "" } else { &next })]));
        }
    }
}

/// What is wrong with an e-mail address.
pub(crate) fn check_email(text: &str) -> Option<String> {
    people::parse_email(text).err()
}

/// `/login`
#[component]
pub(crate) fn LoginPage() -> impl IntoView {
    let form = FormState::new();
    let (email, password) = (RwSignal::new(String::new()), RwSignal::new(String::new()));
    let query = use_query_map();
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let (next, pass) = query.peek(|query| (query.get("next"), query.get("pass")));
        let call = move |_| api::log_in(email.get_untracked(), password.get_untracked(), pass.clone());
        form.send("", call, move |stage| go_on(stage, next.clone()));
    };
    view! {
        <Card title="Log in">
            <form method="post" on:submit=submit novalidate>
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
                <PasswordField id="password" label="Password" value=password form />
                <Submit form label="Log in" wide=true />
            </form>
            <p class="card-links">
                <a href="/forgot">"Forgot your password?"</a>
                <a href="/sign-up">"Create an organisation"</a>
            </p>
        </Card>
    }
}

/// `/login/code`
#[component]
pub(crate) fn CodePage() -> impl IntoView {
    let recovery = RwSignal::new(false);
    view! {
        <Card title="Enter your code">
            <Show when=move || recovery.get() fallback=|| view! { <CodeForm recovery=false /> }>
                <CodeForm recovery=true />
            </Show>
            <p class="card-links">
                <button type="button" class="link" on:click=move |_| recovery.update(|recovery| *recovery = !*recovery)>
                    {move || if recovery.get() { "Use the authenticator app" } else { "Use a recovery code" }}
                </button>
                <a href="/login">"Log in as someone else"</a>
            </p>
        </Card>
    }
}

#[component]
fn CodeForm(recovery: bool) -> impl IntoView {
    let form = FormState::new();
    let code = RwSignal::new(String::new());
    let query = use_query_map();
    let send = move || {
        let next = query.peek(|query| query.get("next"));
        let done = move |stage| go_on(stage, next.clone());
        if recovery {
            form.send("", move |_| api::log_in_recovery_code(code.get_untracked()), done);
        } else {
            form.send("", move |_| api::log_in_code(code.get_untracked()), done);
        }
    };
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        send();
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="card-text">
                {if recovery {
                    "Enter one of the recovery codes that you kept. Each works once."
                } else {
                    "Open your authenticator app and enter the six digits that it shows for Ringfence."
                }}
            </p>
            <FormMessage form />
            <TextField
                id="code"
                name="code"
                label=if recovery { "Recovery code" } else { "Code" }
                value=code
                form
                autocomplete=if recovery { "off" } else { "one-time-code" }
                inputmode=if recovery { "text" } else { "numeric" }
                mono=true
                autofocus=true
            />
            <Submit form label="Go on" wide=true />
        </form>
    }
}

//! Setting up the authenticator app, and the recovery codes that are shown once.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use policy::account::TotpSetup;

use crate::account::api;
use crate::account::steps::Card;
use crate::browser;
use crate::calls::FormState;
use crate::error::ApiError;
use crate::look::Peek;
use crate::ui::copy_text::{CopyText, copy};
use crate::ui::field::{FormMessage, Submit, TextField};
use crate::ui::icon::{Glyph, Icon};
use crate::ui::states::{Failed, SkeletonRows};
use crate::ui::toast::Toasts;

/// `/setup`
#[component]
pub(crate) fn SetupPage() -> impl IntoView {
    let codes = RwSignal::new(None::<Vec<String>>);
    let step = move || match codes.get() {
        None => view! { <Authenticator codes /> }.into_any(),
        Some(codes) => view! { <RecoveryCodes codes /> }.into_any(),
    };
    view! { {step} }
}

#[component]
fn Authenticator(codes: RwSignal<Option<Vec<String>>>) -> impl IntoView {
    let setup = RwSignal::new(None::<Result<TotpSetup, ApiError>>);
    // Beginning makes a new key, so it is never done while rendering.
    let begin = move || {
        spawn_local(async move {
            let _ = setup.try_set(Some(api::begin_totp().await));
        });
    };
    Effect::new(begin);
    let content = move || match setup.get() {
        None => view! { <SkeletonRows rows=6 /> }.into_any(),
        Some(Ok(setup)) => view! { <Scan setup codes /> }.into_any(),
        Some(Err(error)) => view! { <Failed what="Your key" error retry=move |()| begin() /> }.into_any(),
    };
    view! { <Card title="Connect your authenticator app" step="Last step">{content}</Card> }
}

#[component]
fn Scan(setup: TotpSetup, codes: RwSignal<Option<Vec<String>>>) -> impl IntoView {
    let form = FormState::new();
    let code = RwSignal::new(String::new());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        form.send("", move |_| api::confirm_totp(code.get_untracked()), move |fresh| codes.set(Some(fresh)));
    };
    view! {
        <p class="card-text">"Scan this with an authenticator app such as Aegis, 1Password or Google Authenticator."</p>
        <img
            class="qr"
            src=format!("data:image/png;base64,{}", setup.qr_png_base64)
            width="180"
            height="180"
            alt="QR code with the key for your authenticator app"
        />
        <details class="key">
            <summary>"Type the key instead"</summary>
            <CopyText text=setup.key label="Copy the key" />
        </details>
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <TextField
                id="code"
                name="code"
                label="Code that the app shows"
                value=code
                form
                autocomplete="one-time-code"
                inputmode="numeric"
                mono=true
            />
            <Submit form label="Go on" wide=true />
        </form>
    }
}

#[component]
fn RecoveryCodes(codes: Vec<String>) -> impl IntoView {
    let toasts = expect_context::<Toasts>();
    let kept = RwSignal::new(false);
    let text = StoredValue::new(codes.join("\n") + "\n");
    let query = use_query_map();
    let go_on = move |_| {
        let next = query.peek(|query| query.get("next"));
        browser::load(&browser::next_or_overview(next.as_deref()));
    };
    let codes = codes.into_iter().map(|code| view! { <li><code>{code}</code></li> }).collect_view();
    view! {
        <Card title="Keep your recovery codes" step="Last step">
            <p class="card-text">
                "Each of these logs you in once when you don't have your authenticator app. They are shown only now."
            </p>
            <ul class="recovery-codes" aria-label="Recovery codes">{codes}</ul>
            <div class="button-row">
                <button type="button" class="button" on:click=move |_| copy(toasts, text.get_value())>
                    <Icon glyph=Glyph::Copy />
                    "Copy"
                </button>
                <button
                    type="button"
                    class="button"
                    on:click=move |_| browser::save_as("ringfence-recovery-codes.txt", &text.get_value())
                >
                    <Icon glyph=Glyph::Download />
                    "Download"
                </button>
                <button type="button" class="button" on:click=move |_| drop(window().print())>
                    <Icon glyph=Glyph::Printer />
                    "Print"
                </button>
            </div>
            <label class="check">
                <input
                    type="checkbox"
                    class="checkbox"
                    prop:checked=move || kept.get()
                    on:change=move |event| kept.set(event_target_checked(&event))
                />
                "I have kept them"
            </label>
            <button type="button" class="button primary wide" disabled=move || !kept.get() on:click=go_on>
                "Open Ringfence"
            </button>
        </Card>
    }
}

//! The password field: shown on demand, with a hint about caps lock and, for new ones, how strong it is.

use std::time::Duration;

use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::account::PasswordStrength;
use policy::people::{PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS, check_password_length};
use wasm_bindgen::JsCast;

use crate::account::api;
use crate::calls::FormState;
use crate::look::Look;
use crate::ui::field::{Labelled, described_by, keep_in_step};
use crate::ui::icon::{Glyph, Icon};
use crate::ui::when::When;

/// A password field; `password` in the errors of its form.
#[component]
pub(crate) fn PasswordField(
    /// An id for the page.
    id: &'static str,
    /// Its label.
    label: &'static str,
    /// What it holds.
    value: RwSignal<String>,
    /// The form it belongs to.
    form: FormState,
    /// For a new password: words that it should not contain. Shows how strong it is.
    #[prop(optional)]
    new_without: Option<Signal<Vec<String>>>,
    /// Whether it gets the focus.
    #[prop(optional)]
    autofocus: bool,
) -> impl IntoView {
    let element = NodeRef::<html::Input>::new();
    keep_in_step(element, value);
    let (shown, caps_lock) = (RwSignal::new(false), RwSignal::new(false));
    let error = Signal::derive(move || form.field("password"));
    let is_new = new_without.is_some();
    let hint =
        is_new.then(|| format!("At least {PASSWORD_MIN_CHARS} characters. A few unrelated words make a good one."));
    // Where a browser fills the field in by itself, what it sends as a key is none.
    let watch_caps = move |event: web_sys::KeyboardEvent| {
        if let Some(key) = event.dyn_ref::<web_sys::KeyboardEvent>() {
            caps_lock.set(key.get_modifier_state("CapsLock"));
        }
    };
    view! {
        <Labelled id label hint error>
            <div class="password">
                <input
                    id=id
                    name="password"
                    class="input"
                    type=move || if shown.get() { "text" } else { "password" }
                    data-field="password"
                    node_ref=element
                    autocomplete=if is_new { "new-password" } else { "current-password" }
                    autofocus=autofocus
                    autocapitalize="none"
                    spellcheck="false"
                    aria-describedby=described_by(id, is_new)
                    aria-invalid=move || error.look(Option::is_some).then_some("true")
                    on:keyup=watch_caps
                    on:input=move |event| {
                        value.set(event_target_value(&event));
                        form.set_field("password", None);
                    }
                />
                <button
                    type="button"
                    class="icon-button"
                    aria-label="Show password"
                    aria-pressed=move || shown.get().to_string()
                    on:click=move |_| shown.update(|shown| *shown = !*shown)
                >
                    {move || view! { <Icon glyph=if shown.get() { Glyph::EyeOff } else { Glyph::Eye } /> }}
                </button>
            </div>
            <When is=move || caps_lock.get()>
                <p class="caps-lock">"Caps lock is on."</p>
            </When>
            {new_without.map(|without| view! { <Strength value without /> })}
        </Labelled>
    }
}

#[component]
fn Strength(value: RwSignal<String>, without: Signal<Vec<String>>) -> impl IntoView {
    let strength = RwSignal::new(None::<PasswordStrength>);
    let newest = StoredValue::new(0u32);
    Effect::new(move || {
        let password = value.get();
        let ticket = newest.get_value().wrapping_add(1);
        newest.set_value(ticket);
        if check_password_length(&password).is_err() {
            strength.set(None);
            return;
        }
        let ask = move || {
            if newest.try_get_value() != Some(ticket) {
                return;
            }
            let call = api::password_strength(password, without.get_untracked());
            spawn_local(async move {
                let answer = call.await.ok();
                if newest.try_get_value() == Some(ticket) {
                    strength.set(answer);
                }
            });
        };
        set_timeout(ask, Duration::from_millis(300));
    });
    let score = move || strength.look(|strength| strength.as_ref().map_or(0, |strength| strength.score));
    let words = move || match strength.get() {
        // Wrong in its length, or not known yet.
        None => value.look(|password| length_words(password)).to_owned(),
        Some(PasswordStrength { score: 3, .. }) => "Good".to_owned(),
        Some(PasswordStrength { score: 4.., .. }) => "Strong".to_owned(),
        Some(PasswordStrength { hint, .. }) if hint.is_empty() => "Too easy to guess".to_owned(),
        Some(PasswordStrength { hint, .. }) => format!("Too easy to guess. {hint}"),
    };
    view! {
        <div class="strength" data-score=move || score().to_string()>
            <div class="strength-bars" aria-hidden="true"><span></span><span></span><span></span><span></span></div>
            <p role="status">{words}</p>
        </div>
    }
}

/// What the length of a password says about it, if anything.
fn length_words(password: &str) -> &'static str {
    match password.chars().count() {
        1..PASSWORD_MIN_CHARS => "Too short",
        0 | PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS => "",
        _ => "Too long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_short_is_called_so() {
        assert_eq!(length_words(""), "");
        assert_eq!(length_words(&"x".repeat(PASSWORD_MIN_CHARS - 1)), "Too short");
        assert_eq!(length_words(&"x".repeat(PASSWORD_MIN_CHARS)), "");
        assert_eq!(length_words(&"x".repeat(PASSWORD_MAX_CHARS)), "");
        assert_eq!(length_words(&"x".repeat(PASSWORD_MAX_CHARS + 1)), "Too long");
    }
}

//! Sign-up: the organisation and its first person, then the link in the mail.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use policy::account::SignUpForm;
use policy::fields::FieldError;
use policy::people;

use crate::account::api;
use crate::account::login::check_email;
use crate::account::steps::{Card, page_of};
use crate::browser;
use crate::calls::FormState;
use crate::look::{Peek, PeekStored};
use crate::ui::field::{FormMessage, Submit, TextField};
use crate::ui::password_field::PasswordField;
use crate::ui::when::When;

/// `/sign-up`
#[component]
pub(crate) fn SignUpPage() -> impl IntoView {
    let sent_to = RwSignal::new(None::<String>);
    let form = move || match sent_to.get() {
        None => view! { <Organisation sent_to /> }.into_any(),
        Some(email) => view! { <MailSent email /> }.into_any(),
    };
    view! { {form} }
}

#[component]
fn Organisation(sent_to: RwSignal<Option<String>>) -> impl IntoView {
    let form = FormState::new();
    let new = || RwSignal::new(String::new());
    let (organisation, slug, email, password) = (new(), new(), new(), new());
    // The short name follows the organisation's until it is changed by hand.
    let suggested = StoredValue::new(String::new());
    Effect::new(move || {
        let suggestion = suggest_slug(&organisation.get());
        if slug.peek(|slug| suggested.peek_stored(|before| slug == before)) {
            slug.set(suggestion.clone());
        }
        suggested.set_value(suggestion);
    });
    let without = Signal::derive(move || vec![email.get(), organisation.get(), slug.get()]);
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let filled = SignUpForm {
            organisation: organisation.get_untracked(),
            slug: slug.get_untracked(),
            email: email.get_untracked(),
            password: password.get_untracked(),
        };
        let wrong = wrong_fields(&filled);
        if wrong.is_empty() {
            let address = filled.email.clone();
            form.send("", move |_| api::sign_up(filled.clone()), move |()| sent_to.set(Some(address.clone())));
        } else {
            form.refuse(wrong);
        }
    };
    view! {
        <Card title="Create your organisation" step="Step 1 of 3">
            <form method="post" on:submit=submit novalidate>
                <FormMessage form />
                <TextField
                    id="organisation"
                    name="organisation"
                    label="Organisation"
                    value=organisation
                    form
                    autocomplete="organization"
                    autofocus=true
                    check=|text| people::parse_name(text).err()
                />
                <TextField
                    id="slug"
                    name="slug"
                    label="Short name"
                    value=slug
                    form
                    mono=true
                    hint="Lower-case letters, digits and hyphens, such as acme-telecom."
                    check=|text| people::parse_slug(text).err()
                />
                <TextField
                    id="email"
                    name="email"
                    label="E-mail address"
                    value=email
                    form
                    kind="email"
                    autocomplete="username"
                    check=check_email
                />
                <PasswordField id="password" label="Password" value=password form new_without=without />
                <Submit form label="Create organisation" wide=true />
            </form>
            <p class="card-links"><a href="/login">"Log in instead"</a></p>
        </Card>
    }
}

fn wrong_fields(form: &SignUpForm) -> Vec<FieldError> {
    let checks = [
        ("organisation", people::parse_name(&form.organisation).err()),
        ("slug", people::parse_slug(&form.slug).err()),
        ("email", people::parse_email(&form.email).err()),
        ("password", people::check_password_length(&form.password).err()),
    ];
    checks.into_iter().filter_map(|(field, wrong)| Some(FieldError::new(field, wrong?))).collect()
}

/// A short name from an organisation's name: `Acme Télécom GmbH` gives `acme-t-l-com-gmbh`, to be changed by hand.
fn suggest_slug(organisation: &str) -> String {
    let mut slug = String::new();
    for c in organisation.chars().filter(|c| *c != '.' && *c != '\'') {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(40);
    slug.trim_end_matches('-').to_owned()
}

#[component]
fn MailSent(email: String) -> impl IntoView {
    view! {
        <Card title="Check your mail" step="Step 2 of 3">
            <p class="card-text">
                "A mail with a link is on its way to " <strong>{email}</strong> ". Open the link to go on; it works for a day."
            </p>
            <p class="card-text">"Nothing there after a few minutes? Look among unwanted mail, or sign up again."</p>
            <DevelopmentMailbox />
        </Card>
    }
}

/// Without a mail server, mails are kept where a developer can read them.
#[component]
pub(crate) fn DevelopmentMailbox() -> impl IntoView {
    let kept = RwSignal::new(false);
    Effect::new(move || {
        spawn_local(async move {
            if let Ok(me) = api::me().await {
                let _ = kept.try_set(me.development_mailbox);
            }
        });
    });
    view! {
        <When is=move || kept.get()>
            <p class="card-note">
                "No mail server is configured here. "
                <a href="/dev/mailbox" rel="external">"Open the development mailbox"</a>
            </p>
        </When>
    }
}

/// `/verify?token=…`; a form, since programs that check mails follow links but fill in nothing, and who did not sign up
/// herself does not know the password.
#[component]
pub(crate) fn VerifyPage() -> impl IntoView {
    let form = FormState::new();
    let password = RwSignal::new(String::new());
    let query = use_query_map();
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let token = query.peek(|query| query.get("token")).unwrap_or_default();
        let call = move |_| api::verify_email(token.clone(), password.get_untracked());
        form.send("", call, |stage| browser::load(page_of(stage)));
    };
    view! {
        <Card title="Confirm your e-mail address" step="Step 2 of 3">
            <form method="post" on:submit=submit novalidate>
                <p class="card-text">"This makes your organisation. The last step connects your authenticator app."</p>
                <FormMessage form />
                <PasswordField id="password" label="The password that you chose" value=password form autofocus=true />
                <Submit form label="Confirm e-mail address" wide=true />
            </form>
            <p class="card-links"><a href="/sign-up">"Sign up again"</a></p>
        </Card>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_short_names_are_usable() {
        for (name, slug) in
            [("Acme GmbH", "acme-gmbh"), ("A. B. Telecom & Co.", "a-b-telecom-co"), ("O'Neill", "oneill")]
        {
            assert_eq!(suggest_slug(name), slug);
            assert!(people::parse_slug(slug).is_ok());
        }
        assert_eq!(suggest_slug("  "), "");
        assert!(suggest_slug(&"very long name ".repeat(10)).len() <= 40);
    }
}

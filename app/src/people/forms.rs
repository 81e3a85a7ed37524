//! Inviting somebody, and giving somebody another role.

use leptos::prelude::*;
use policy::authz::Role;
use policy::people::{self, INVITATION_DAYS, Person};

use crate::account::login::check_email;
use crate::calls::FormState;
use crate::people::api;
use crate::people::page::Listing;
use crate::ui::confirm::Question;
use crate::ui::dialog::{Dialog, open_while_some};
use crate::ui::field::{FormMessage, SelectField, Submit, TextField};

/// The roles that the caller may give.
fn roles(listing: Listing) -> Vec<(&'static str, String)> {
    let mine = Role::ALL.into_iter().filter(|role| listing.may_manage(*role));
    mine.map(|role| (role.as_str(), format!("{}: {}", role.title(), role.summary()))).collect()
}

/// The dialog of "Invite".
#[component]
pub(crate) fn InviteDialog(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    view! {
        <Dialog id="invite" open title="Invite somebody">
            <InviteForm open listing />
        </Dialog>
    }
}

#[component]
fn InviteForm(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let (email, role) = (RwSignal::new(String::new()), RwSignal::new("security_operator".to_owned()));
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        match people::parse_invitation(&email.get_untracked(), &role.get_untracked()) {
            Err(wrong) => form.refuse(wrong),
            Ok((email, role)) => {
                let address = email.clone();
                form.send(
                    "",
                    move |_| api::invite(email.clone(), role.as_str().to_owned()),
                    move |()| {
                        open.set(false);
                        listing.calls.toasts.say(format!("A mail with a link is on its way to {address}."));
                        listing.reload();
                    },
                );
            }
        }
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="dialog-text">{format!("They get a mail with a link that works for {INVITATION_DAYS} days. Whoever is new chooses a password and sets up a second factor before anything opens.")}</p>
            <FormMessage form />
            <TextField id="invite-email" name="email" label="E-mail address" value=email form kind="email" autofocus=true check=check_email />
            <SelectField id="invite-role" name="role" label="Role" value=role form options=roles(listing) />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Invite" />
            </div>
        </form>
    }
}

/// The dialog of "Change the role".
#[component]
pub(crate) fn RoleDialog(listing: Listing) -> impl IntoView {
    let open = open_while_some(listing.changing);
    view! {
        <Dialog id="change-role" open title="Change the role">
            {listing.changing.get_untracked().map(|person| view! { <RoleForm person open listing /> })}
        </Dialog>
    }
}

#[component]
fn RoleForm(person: Person, open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let Person { id, email, role: before, suspended, second_factor, .. } = person;
    let form = FormState::new();
    let role = RwSignal::new(before.as_str().to_owned());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let chosen = role.get_untracked();
        if chosen == before.as_str() {
            open.set(false);
            return;
        }
        form.send(
            "",
            move |_| api::change_role(id, chosen.clone()),
            move |()| {
                open.set(false);
                listing.reload();
            },
        );
    };
    let may_hand_over = listing.may_manage(Role::SuperAdministrator)
        && before != Role::SuperAdministrator
        && !suspended
        && second_factor;
    let to = email.clone();
    let hand_over = move |_| {
        let text = format!(
            "{to} becomes Super administrator and you Administrator: you can't take it back yourself. Both of you log in again."
        );
        let act =
            move || listing.calls.change_access(move || api::transfer_ownership(id), |()| crate::browser::load_login());
        open.set(false);
        listing.calls.ask(Question::new("Hand the organisation over?", text, "Hand over", act));
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="dialog-text"><strong>{email}</strong> " is logged out, and logs in again with the new role."</p>
            <FormMessage form />
            <SelectField id="new-role" name="role" label="Role" value=role form options=roles(listing) />
            {may_hand_over.then(|| view! {
                <p><button type="button" class="link" on:click=hand_over>"Hand the organisation over to them instead"</button></p>
            })}
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Change the role" />
            </div>
        </form>
    }
}

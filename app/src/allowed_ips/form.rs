//! Allowing something, and changing an entry.

use leptos::prelude::*;
use policy::allowed_ips::{self, AllowedIp, AllowedIpForm};
use policy::ids::AllowedIpId;

use crate::allowed_ips::api;
use crate::allowed_ips::page::Listing;
use crate::calls::FormState;
use crate::clock::{browser_now, from_local_field, to_local_field};
use crate::look::Look;
use crate::ui::dialog::{Dialog, open_while_some};
use crate::ui::field::{FormMessage, Submit, TextField};

/// What the form begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Editing {
    id: Option<AllowedIpId>,
    target: String,
    note: String,
    ends: String,
}

impl Editing {
    /// A new entry for a target.
    pub(crate) fn new(target: &str) -> Self {
        Self { id: None, target: target.to_owned(), note: String::new(), ends: String::new() }
    }

    /// An entry that is there. In the browser only, since its end is shown in local time.
    pub(crate) fn of(entry: &AllowedIp) -> Self {
        Self {
            id: Some(entry.id),
            target: entry.target.to_string(),
            note: entry.note.clone(),
            ends: entry.expires_at.map(to_local_field).unwrap_or_default(),
        }
    }
}

/// The dialog of "Allow an address" and of "Edit".
#[component]
pub(crate) fn AllowDialog(
    /// What is edited; the dialog is open while there is something.
    editing: RwSignal<Option<Editing>>,
    listing: Listing,
) -> impl IntoView {
    let open = open_while_some(editing);
    let is_new = move || editing.look(|editing| editing.as_ref().is_none_or(|editing| editing.id.is_none()));
    view! {
        <Dialog id="allow" open title=Signal::derive(move || if is_new() { "Allow an address" } else { "Edit the entry" }.to_owned())>
            {editing.get_untracked().map(|begin| view! { <AllowForm begin open listing /> })}
        </Dialog>
    }
}

#[component]
fn AllowForm(begin: Editing, open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let id = begin.id;
    let (target, note, ends) = (RwSignal::new(begin.target), RwSignal::new(begin.note), RwSignal::new(begin.ends));
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let filled = AllowedIpForm {
            target: target.get_untracked(),
            note: note.get_untracked(),
            expires_at: from_local_field(&ends.get_untracked()),
        };
        let draft = match allowed_ips::parse_draft(&filled.target, &filled.note, &filled.expires_at, browser_now()) {
            Ok(draft) => draft,
            Err(wrong) => return form.refuse(wrong),
        };
        let done = move |added| {
            open.set(false);
            let what = if id.is_some() { "changed" } else { "allowed" };
            listing.added(&added, &format!("{} is {what}.", draft.target));
        };
        match id {
            Some(id) => form.send("Save anyway", move |insist| api::edit(id, filled.clone(), insist), done),
            None => form.send("Allow it all", move |insist| api::add(filled.clone(), insist), done),
        }
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <TextField
                id="allow-target"
                name="target"
                label="Address, network or domain name"
                value=target
                form
                mono=true
                autofocus=true
                placeholder="198.51.100.0/24 or office.example.com"
                check=check_target
            />
            <TextField id="allow-note" name="note" label="Note" value=note form hint="What this is, such as “Berlin office”." />
            <TextField
                id="allow-ends"
                name="expires_at"
                label="Ends"
                value=ends
                form
                kind="datetime-local"
                hint="In your time zone. Leave it empty for no end."
            />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label=if id.is_some() { "Save" } else { "Allow" } />
            </div>
        </form>
    }
}

fn check_target(text: &str) -> Option<String> {
    let wrong = allowed_ips::parse_draft(text, "", "", time::OffsetDateTime::UNIX_EPOCH).err()?;
    wrong.into_iter().next().map(|field| field.message)
}

//! Blocking by hand.

use leptos::prelude::*;
use policy::blocked_ips::{self, BlockedIpForm};

use crate::blocked_ips::api;
use crate::blocked_ips::page::Listing;
use crate::calls::{Calls, FormState};
use crate::ui::dialog::Dialog;
use crate::ui::field::{FormMessage, SelectField, Submit, TextField};

const DURATIONS: &[(&str, &str)] = &[
    ("3600", "1 hour"),
    ("21600", "6 hours"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
    ("permanent", "Until someone unblocks it"),
];

/// The dialog of "Block an address".
#[component]
pub(crate) fn BlockDialog(
    open: RwSignal<bool>,
    /// What the address field begins with.
    prefill: RwSignal<String>,
    listing: Listing,
) -> impl IntoView {
    view! {
        <Dialog id="block" open title="Block an address">
            <BlockForm open net=prefill.get_untracked() prefill listing />
        </Dialog>
    }
}

#[component]
fn BlockForm(open: RwSignal<bool>, net: String, prefill: RwSignal<String>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let calls = Calls::of_page();
    let (net, reason) = (RwSignal::new(net), RwSignal::new(String::new()));
    let duration = RwSignal::new("86400".to_owned());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let filled = BlockedIpForm {
            net: net.get_untracked(),
            duration: duration.get_untracked(),
            reason: reason.get_untracked(),
        };
        match blocked_ips::parse_draft(&filled.net, &filled.duration, &filled.reason) {
            Err(wrong) => form.refuse(wrong),
            Ok(draft) => {
                let name = policy::net::display(&draft.net);
                form.send(
                    "Block anyway",
                    move |insist| api::block(filled.clone(), insist),
                    move |blocked| {
                        prefill.set(String::new());
                        open.set(false);
                        let how =
                            if blocked.replaced { "was blocked already; its ban is changed." } else { "is blocked." };
                        calls.toasts.say(format!("{name} {how}"));
                        listing.news.set_value(true);
                        listing.reload();
                    },
                );
            }
        }
    };
    let options = DURATIONS.iter().map(|(seconds, label)| (*seconds, (*label).to_owned())).collect::<Vec<_>>();
    view! {
        <form method="post" on:submit=submit novalidate>
            <FormMessage form />
            <TextField
                id="block-net"
                name="net"
                label="Address or network"
                value=net
                form
                mono=true
                autofocus=true
                placeholder="203.0.113.9 or 203.0.113.0/24"
                check=|text| policy::net::parse_net(text).err()
            />
            <SelectField id="block-duration" name="duration" label="For how long" value=duration form options />
            <TextField id="block-reason" name="reason" label="Reason" value=reason form hint="Shown in the list and kept in the audit log." />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Block" />
            </div>
        </form>
    }
}

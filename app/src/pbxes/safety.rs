//! What PBXes take back by themselves, and how many phones a change may cost before they do.

use leptos::prelude::*;
use policy::fields::FieldError;
use policy::safety::{PhoneLossLimit, TRIAL, parse_phone_loss_limit};

use crate::calls::FormState;
use crate::look::Look;
use crate::pbxes::api;
use crate::pbxes::page::Listing;
use crate::ui::dialog::Dialog;
use crate::ui::field::{FormMessage, Submit, TextField};

/// The setting, in words, below the list.
#[component]
pub(crate) fn Safety(listing: Listing, may_write: bool) -> impl IntoView {
    let open = RwSignal::new(false);
    let limit = move || listing.limit.data.get();
    let hidden =
        move || limit().is_none() || listing.loader.data.look(|pbxes| pbxes.as_ref().is_none_or(Vec::is_empty));
    view! {
        <section class="box safety" aria-labelledby="safety-title" hidden=hidden>
            <h2 id="safety-title">"When a change goes wrong"</h2>
            <p>
                {format!("A PBX takes a change back by itself, within {} s, when it is no longer heard here", TRIAL.whole_seconds())}
                {move || limit().map(says)}
            </p>
            {may_write.then(|| view! {
                <button type="button" class="button small" on:click=move |_| open.set(true)>"Change the limit"</button>
            })}
        </section>
        <Dialog id="phone-loss" open title="How many phones may a change cost?">
            {listing.limit.data.get_untracked().map(|limit| view! { <LimitForm limit open listing /> })}
        </Dialog>
    }
}

/// The end of the sentence.
fn says(limit: PhoneLossLimit) -> String {
    match limit.percent() {
        0 => " or loses any of its registered phones. What would cut one off isn't loaded at all.".to_owned(),
        100 => ". However many of its phones it loses, the change stays.".to_owned(),
        percent => format!(
            " or loses more than {percent} % of its registered phones. What would cut off more isn't loaded at all."
        ),
    }
}

#[component]
fn LimitForm(limit: PhoneLossLimit, open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let percent = RwSignal::new(limit.percent().to_string());
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let typed = percent.get_untracked();
        match parse_phone_loss_limit(&typed) {
            Err(message) => form.refuse(vec![FieldError::new("percent", message)]),
            Ok(_) => form.send(
                "Set it anyway",
                move |_| api::set_phone_loss_limit(typed.clone()),
                move |limit| {
                    open.set(false);
                    listing.limit.data.set(Some(limit));
                },
            ),
        }
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="dialog-text">
                "A PBX that loses more of its registered phones than this goes back to what it enforced before. With a low number it also takes back changes that you meant; with 100 phones may stay cut off until someone notices."
            </p>
            <FormMessage form />
            <TextField
                id="phone-loss-percent"
                name="percent"
                label="At most, in percent of the registered phones"
                value=percent
                form
                inputmode="numeric"
                autofocus=true
                hint="A whole number from 0 to 100; 20 unless you change it."
                check=|text| parse_phone_loss_limit(text).err().map(str::to_owned)
            />
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label="Set the limit" />
            </div>
        </form>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_reads_plainly() {
        let says = |percent: u32| says(PhoneLossLimit::try_from(percent).unwrap());
        assert!(says(20).starts_with(" or loses more than 20 % of its registered phones."));
        assert!(says(0).starts_with(" or loses any of its registered phones."));
        assert!(says(100).contains("the change stays"));
    }
}

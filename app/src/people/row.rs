//! The rows of the list, and what can be done with one person.

use leptos::prelude::*;
use policy::people::{Person, UNUSED};
use time::OffsetDateTime;

use crate::clock::{Clock, Since};
use crate::look::{Look, Peek};
use crate::people::api;
use crate::people::page::Listing;
use crate::ui::confirm::Question;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::table::{Sort, SortHead};
use crate::ui::when::When;

const EMAIL: u8 = 0;
const ROLE: u8 = 1;
const USED: u8 = 2;
const DAY: i64 = 24 * 60 * 60;

/// The table.
#[component]
pub(crate) fn Rows(listing: Listing, may_write: bool) -> impl IntoView {
    let sort = RwSignal::new(None::<Sort>);
    let ids = Memo::new(move |_| {
        listing.loader.data.look(|data| {
            let mut people: Vec<&Person> = data.iter().flat_map(|data| &data.people).collect();
            people.retain(|person| listing.finds(&person.email, person.role));
            if let Some(sort) = sort.get() {
                people.sort_by(|a, b| {
                    sort.apply(match sort.column {
                        EMAIL => a.email.cmp(&b.email),
                        ROLE => a.role.title().cmp(b.role.title()),
                        _ => a.last_used_at.cmp(&b.last_used_at),
                    })
                });
            }
            people.into_iter().map(|person| person.id).collect::<Vec<_>>()
        })
    });
    // What changes once a day is not looked at every second.
    let clock = expect_context::<Clock>();
    let today = Memo::new(move |_| clock.now().map(|now| now / DAY));
    let person = move |id| {
        Memo::new(move |_| {
            listing.loader.data.look(|data| data.as_ref()?.people.iter().find(|person| person.id == id).cloned())
        })
    };
    view! {
        <div class="table-frame" hidden=move || ids.look(Vec::is_empty)>
            <table class="table people">
                <caption class="visually-hidden">"People"</caption>
                <thead>
                    <tr>
                        <SortHead label="E-mail address" column=EMAIL sort class="col-email" />
                        <SortHead label="Role" column=ROLE sort class="col-role" />
                        <SortHead label="Last login" column=USED sort class="col-used" />
                        <th class="col-since" scope="col">"Access since"</th>
                        <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                    </tr>
                </thead>
                <tbody>
                    <For each=move || ids.get() key=|id| id.0 let:id>
                        <Row person=person(id) listing may_write today />
                    </For>
                </tbody>
            </table>
        </div>
    }
}

#[component]
fn Row(
    person: Memo<Option<Person>>,
    listing: Listing,
    may_write: bool,
    /// Days since 1970, once the page runs.
    today: Memo<Option<i64>>,
) -> impl IntoView {
    let email = move || person.look(|person| person.as_ref().map(|person| person.email.clone()).unwrap_or_default());
    let read = move |part: fn(&Person) -> bool| {
        Signal::derive(move || person.look(|person| person.as_ref().is_some_and(part)))
    };
    let (suspended, has_factor) = (read(|person| person.suspended), read(|person| person.second_factor));
    let role = move || person.look(|person| person.as_ref().map_or("", |person| person.role.title()));
    let used = Memo::new(move |_| person.look(|person| person.as_ref().and_then(|person| person.last_used_at)));
    let since = Memo::new(move |_| person.look(|person| person.as_ref().map(|person| person.since)));
    let invited_by = move || {
        let by = person.look(|person| person.as_ref().map(|person| person.invited_by.clone()).unwrap_or_default());
        if by.is_empty() { "made the organisation".to_owned() } else { format!("invited by {by}") }
    };
    let unused = Memo::new(move |_| {
        let now = today.get().and_then(|day| OffsetDateTime::from_unix_timestamp(day * DAY).ok());
        now.is_some_and(|now| person.look(|person| person.as_ref().is_some_and(|person| person.is_unused(now))))
    });
    let yours = person.peek(|person| person.as_ref().is_some_and(|person| listing.is_you(&person.email)));
    let manageable = Memo::new(move |_| {
        may_write
            && !yours
            && person.look(|person| person.as_ref().is_some_and(|person| listing.may_manage(person.role)))
    });
    view! {
        <tr data-row tabindex="-1">
            <th class="col-email" scope="row">
                <span>{email}</span>
                {yours.then(|| view! { <span class="tag">"you"</span> })}
                <When is=move || suspended.get()><span class="tag bad">"suspended"</span></When>
                <When is=move || !has_factor.get()><span class="tag" title="Nothing opens before it is set up">"no second factor yet"</span></When>
            </th>
            <td class="col-role">{role}</td>
            <td class="col-used">
                {move || match used.get() {
                    Some(at) => view! { <Since at suffix=" ago" /> }.into_any(),
                    None => "never".into_any(),
                }}
                <When is=move || unused.get()><small class="unused">{format!("not used for {} days", UNUSED.whole_days())}</small></When>
            </td>
            <td class="col-since">
                {move || since.get().map(|at| view! { <Since at suffix=" ago" /> })}
                <small>{invited_by}</small>
            </td>
            <td class="col-actions">
                <When is=move || manageable.get()>
                    <Actions person listing suspended />
                </When>
            </td>
        </tr>
    }
}

#[component]
fn Actions(person: Memo<Option<Person>>, listing: Listing, suspended: Signal<bool>) -> impl IntoView {
    let one = move || person.peek(Option::clone);
    let email = move || person.look(|person| person.as_ref().map(|person| person.email.clone()).unwrap_or_default());
    let suspend = move |_| {
        let Some(Person { id, email, .. }) = one() else { return };
        let text = format!(
            "{email} is logged out at once and can't log in here until you reinstate them. Nothing of what they did changes."
        );
        let act = move || listing.calls.change_access(move || api::suspend(id), move |()| listing.reload());
        listing.calls.ask(Question::new(format!("Suspend {email}?"), text, "Suspend", act));
    };
    let reinstate = move |_| {
        if let Some(Person { id, .. }) = one() {
            listing.calls.change_access(move || api::reinstate(id), move |()| listing.reload());
        }
    };
    let remove = move |_| {
        let Some(Person { id, email, .. }) = one() else { return };
        let text = format!(
            "{email} is logged out at once and has no access any more. To let them in again, invite them anew."
        );
        let act = move || listing.calls.change_access(move || api::remove(id), move |()| listing.reload());
        listing.calls.ask(Question::new(format!("Remove {email}?"), text, "Remove", act));
    };
    view! {
        <div class="row-actions">
            <When is=move || suspended.get()>
                <button type="button" class="button small" aria-label=move || format!("Reinstate {}", email()) on:click=reinstate>"Reinstate"</button>
            </When>
            <button type="button" class="icon-button" title="Change the role" aria-label=move || format!("Change the role of {}", email()) on:click=move |_| listing.changing.set(one())>
                <Icon glyph=Glyph::Pencil />
            </button>
            <When is=move || !suspended.get()>
                <button type="button" class="icon-button" title="Suspend" aria-label=move || format!("Suspend {}", email()) on:click=suspend>
                    <Icon glyph=Glyph::Ban />
                </button>
            </When>
            <button type="button" class="icon-button" title="Remove" aria-label=move || format!("Remove {}", email()) on:click=remove>
                <Icon glyph=Glyph::Trash />
            </button>
        </div>
    }
}

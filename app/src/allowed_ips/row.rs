//! The rows of the list, and deleting them.

use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::allowed_ips::{AllowedIp, AllowedIpForm};
use policy::ids::AllowedIpId;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::allowed_ips::api;
use crate::allowed_ips::form::Editing;
use crate::allowed_ips::page::Listing;
use crate::calls::Calls;
use crate::clock::{Since, Until};
use crate::error::ApiError;
use crate::look::{Look, Peek, PeekStored};
use crate::ui::confirm::Question;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::counted;
use crate::ui::selection::{SelectPage, SelectRow};
use crate::ui::table::{Sort, SortHead};
use crate::ui::when::When;

const TARGET: u8 = 0;
const ENDS: u8 = 1;
const ADDED: u8 = 2;

/// Up to this many are deleted at once without a question, since they can all be added again by Undo.
const WITHOUT_QUESTION: usize = 5;

/// The table.
#[component]
pub(crate) fn Rows(listing: Listing, editing: RwSignal<Option<Editing>>, may_write: bool) -> impl IntoView {
    let Listing { loader, selection, pages, .. } = listing;
    let sort = RwSignal::new(None::<Sort>);
    let all_there = Signal::derive(move || {
        pages.at_first() && loader.data.look(|page| page.as_ref().is_none_or(|page| page.next.is_none()))
    });
    let rows = Memo::new(move |_| {
        let mut rows = loader.data.look(|page| page.as_ref().map(|page| page.rows.clone()).unwrap_or_default());
        if let Some(sort) = sort.get().filter(|_| all_there.get()) {
            rows.sort_by(|a, b| {
                sort.apply(match sort.column {
                    TARGET => a.target.cmp(&b.target),
                    ENDS => (a.expires_at.is_none(), a.expires_at).cmp(&(b.expires_at.is_none(), b.expires_at)),
                    _ => b.created_at.cmp(&a.created_at),
                })
            });
        }
        rows
    });
    let ids =
        Signal::derive(move || rows.look(|rows| rows.iter().map(|entry| Uuid::from(entry.id)).collect::<Vec<_>>()));
    view! {
        <table class="table allowed-ips">
            <caption class="visually-hidden">"Allowed addresses"</caption>
            <thead>
                <tr>
                    <th class="col-select" scope="col"><SelectPage selection page=ids /></th>
                    <SortHead label="Address" column=TARGET sort all_there class="col-address" />
                    <th class="col-why" scope="col">"Note"</th>
                    <SortHead label="Ends in" column=ENDS sort all_there class="col-time" />
                    <SortHead label="Added" column=ADDED sort all_there class="col-time" />
                    <th class="col-by" scope="col">"By"</th>
                    <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                </tr>
            </thead>
            <tbody>
                <For
                    each=move || rows.get()
                    key=|entry| (entry.id.0, entry.target.to_string(), entry.expires_at, entry.note.clone())
                    let:entry
                >
                    <Row entry listing editing may_write />
                </For>
            </tbody>
        </table>
    }
}

#[component]
fn Row(entry: AllowedIp, listing: Listing, editing: RwSignal<Option<Editing>>, may_write: bool) -> impl IntoView {
    let Listing { selection, news, .. } = listing;
    let calls = Calls::of_page();
    let id = entry.id;
    let name = entry.target.to_string();
    let fresh = news.get_value();
    let (edit_label, delete_label) = (format!("Edit {name}"), format!("Delete {name}"));
    let AllowedIp { note, expires_at, created_at, created_by, .. } = entry.clone();
    let entry = StoredValue::new(entry);
    view! {
        <tr data-row tabindex="-1" class:fresh=fresh aria-selected=move || selection.has(id.0).to_string()>
            <td class="col-select"><SelectRow selection id=id.0 name=name.clone() /></td>
            <td class="col-address mono">{name}</td>
            <td class="col-why">{note}</td>
            <td class="col-time"><Until at=expires_at /></td>
            <td class="col-time"><Since at=created_at /></td>
            <td class="col-by">{created_by}</td>
            <td class="col-actions">
                {may_write.then(|| view! {
                    <button
                        type="button"
                        class="icon-button"
                        data-open
                        aria-label=edit_label.clone()
                        on:click=move |_| editing.set(Some(entry.peek_stored(Editing::of)))
                    >
                        <Icon glyph=Glyph::Pencil />
                    </button>
                    <button
                        type="button"
                        class="icon-button"
                        aria-label=delete_label.clone()
                        on:click=move |_| delete(listing, calls, vec![entry.get_value()])
                    >
                        <Icon glyph=Glyph::Trash />
                    </button>
                })}
            </td>
        </tr>
    }
}

/// What can be done with the selected rows.
#[component]
pub(crate) fn SelectionBar(listing: Listing, may_write: bool) -> impl IntoView {
    let Listing { loader, selection, .. } = listing;
    let calls = Calls::of_page();
    let selected = move || -> Vec<AllowedIp> {
        let ids = selection.ids();
        loader.data.peek(|page| {
            page.as_ref()
                .map(|page| page.rows.iter().filter(|entry| ids.contains(&entry.id.0)).cloned().collect())
                .unwrap_or_default()
        })
    };
    view! {
        <div class="selection-bar" role="group" aria-label="Selected rows">
            <When is=move || selection.count() != 0>
                <span class="selection-count">{move || format!("{} selected", selection.count())}</span>
                {may_write.then(|| view! {
                    <button type="button" class="button" on:click=move |_| delete(listing, calls, selected())>"Delete"</button>
                })}
            </When>
        </div>
    }
}

fn delete(listing: Listing, calls: Calls, entries: Vec<AllowedIp>) {
    if entries.len() <= WITHOUT_QUESTION {
        delete_now(listing, calls, entries, false);
        return;
    }
    let title = format!("Delete {} entries?", entries.len());
    let text = "What they allowed can be blocked again, by hand or when it looks like an attack.";
    calls.ask(Question::new(title, text, "Delete", move || delete_now(listing, calls, entries.clone(), false)));
}

fn delete_now(listing: Listing, calls: Calls, entries: Vec<AllowedIp>, insist: bool) {
    let ids: Vec<AllowedIpId> = entries.iter().map(|entry| entry.id).collect();
    let call = async move {
        match api::delete(ids, insist).await {
            Err(ApiError::NeedsInsisting { message }) => Ok(Err(message)),
            answer => answer.map(Ok),
        }
    };
    calls.change(call, move |answer| {
        let count = match answer {
            Ok(count) => count,
            Err(message) => {
                let again = move || delete_now(listing, calls, entries.clone(), true);
                calls.ask(Question::new("Are you sure?", message, "Delete anyway", again));
                return;
            }
        };
        if !listing.loader.is_gone() {
            listing.selection.clear();
            listing.reload();
        }
        let text = match entries.as_slice() {
            [entry] => format!("{} is no longer allowed.", entry.target),
            _ => format!("{} deleted.", counted(count, "entry", "entries")),
        };
        calls.toasts.say_with_undo(text, move || add_again(listing, calls, &entries));
    });
}

fn add_again(listing: Listing, calls: Calls, entries: &[AllowedIp]) {
    let forms: Vec<AllowedIpForm> = entries
        .iter()
        .map(|entry| AllowedIpForm {
            target: entry.target.to_string(),
            note: entry.note.clone(),
            expires_at: entry.expires_at.and_then(|end| end.format(&Rfc3339).ok()).unwrap_or_default(),
        })
        .collect();
    spawn_local(async move {
        for form in forms {
            if let Err(error) = api::add(form, true).await {
                calls.toasts.fail(&error);
                break;
            }
        }
        listing.reload();
    });
}

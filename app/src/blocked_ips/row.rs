//! The rows of the list.

use leptos::prelude::*;
use policy::blocked_ips::{BanSource, BlockedIp};
use policy::net;
use uuid::Uuid;

use crate::blocked_ips::page::{Listing, Place};
use crate::blocked_ips::unblock::Unblocking;
use crate::clock::{Since, Until};
use crate::look::Look;
use crate::ui::selection::{SelectPage, SelectRow};
use crate::ui::table::{Sort, SortHead};

const ADDRESS: u8 = 0;
const SINCE: u8 = 1;
const ENDS: u8 = 2;

/// The table.
#[component]
pub(crate) fn Rows(listing: Listing, unblocking: Unblocking, may_block: bool) -> impl IntoView {
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
                    ADDRESS => a.net.cmp(&b.net),
                    SINCE => b.created_at.cmp(&a.created_at),
                    // Without an end is last.
                    _ => (a.expires_at.is_none(), a.expires_at).cmp(&(b.expires_at.is_none(), b.expires_at)),
                })
            });
        }
        rows
    });
    let ids = Signal::derive(move || rows.look(|rows| rows.iter().map(|ban| Uuid::from(ban.id)).collect::<Vec<_>>()));
    view! {
        <table class="table blocked-ips">
            <caption class="visually-hidden">"Blocked addresses"</caption>
            <thead>
                <tr>
                    <th class="col-select" scope="col"><SelectPage selection page=ids /></th>
                    <SortHead label="Address" column=ADDRESS sort all_there class="col-address" />
                    <th class="col-why" scope="col">"Why"</th>
                    <th class="col-pbx" scope="col">"PBX"</th>
                    <SortHead label="Since" column=SINCE sort all_there class="col-time" />
                    <SortHead label="Ends in" column=ENDS sort all_there class="col-time" />
                    <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                </tr>
            </thead>
            <tbody>
                <For each=move || rows.get() key=|ban| (ban.id.0, ban.expires_at, ban.reason.clone()) let:ban>
                    <Row ban listing unblocking may_block />
                </For>
            </tbody>
        </table>
    }
}

#[component]
fn Row(ban: BlockedIp, listing: Listing, unblocking: Unblocking, may_block: bool) -> impl IntoView {
    let Listing { selection, place, news, .. } = listing;
    let id = ban.id;
    let name = net::display(&ban.net);
    let href = move || place.filter.look(|filter| Place::address("/blocked-ips", filter, &id.to_string()));
    let open = move || place.ban.look(|ban| *ban == id.to_string());
    let fresh = news.get_value();
    let (since, ends) = (ban.created_at, ban.expires_at);
    let pbx = ban.pbx_name.clone().unwrap_or_else(|| "all".to_owned());
    let why = why(&ban);
    let label = format!("Unblock {name}");
    let ban = StoredValue::new(ban);
    view! {
        <tr data-row tabindex="-1" class:fresh=fresh class:open=open aria-selected=move || selection.has(id.0).to_string()>
            <td class="col-select"><SelectRow selection id=id.0 name=name.clone() /></td>
            <td class="col-address"><a class="mono" data-open href=href>{name}</a></td>
            <td class="col-why">{why}</td>
            <td class="col-pbx">{pbx}</td>
            <td class="col-time"><Since at=since /></td>
            <td class="col-time"><Until at=ends /></td>
            <td class="col-actions">
                {may_block.then(|| view! {
                    <button
                        type="button"
                        class="button small"
                        aria-label=label.clone()
                        on:click=move |_| unblocking.unblock(vec![ban.get_value()])
                    >
                        "Unblock"
                    </button>
                })}
            </td>
        </tr>
    }
}

/// Why something is blocked, with who did it by hand.
pub(crate) fn why(ban: &BlockedIp) -> String {
    match (ban.source, &ban.blocked_by) {
        (BanSource::Manual, Some(by)) if ban.reason.is_empty() => format!("by {by}"),
        (BanSource::Manual, Some(by)) => format!("{} (by {by})", ban.reason),
        _ if ban.reason.is_empty() => "no reason given".to_owned(),
        _ => ban.reason.clone(),
    }
}

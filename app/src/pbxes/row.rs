//! The rows of the list, and what can be done with one PBX.

use leptos::prelude::*;
use policy::pbxes::{Pbx, PbxState, clock_apart};
use policy::safety::{self, Change, Drift, Withheld};

use crate::clock::Since;
use crate::look::{Look, Peek};
use crate::pbxes::api;
use crate::pbxes::page::Listing;
use crate::ui::confirm::Question;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::grouped;
use crate::ui::table::{Sort, SortHead};
use crate::ui::when::When;

const NAME: u8 = 0;
const STATE: u8 = 1;

/// The table.
#[component]
pub(crate) fn Rows(listing: Listing, may_write: bool) -> impl IntoView {
    let sort = RwSignal::new(None::<Sort>);
    let ids = Memo::new(move |_| {
        let mut pbxes = listing.loader.data.get().unwrap_or_default();
        if let Some(sort) = sort.get() {
            pbxes.sort_by(|a, b| {
                sort.apply(match sort.column {
                    NAME => a.name.to_lowercase().cmp(&b.name.to_lowercase()),
                    _ => word(a.state).cmp(word(b.state)),
                })
            });
        }
        pbxes.into_iter().map(|pbx| pbx.id).collect::<Vec<_>>()
    });
    let pbx = move |id| {
        Memo::new(move |_| listing.loader.data.look(|pbxes| pbxes.as_ref()?.iter().find(|pbx| pbx.id == id).cloned()))
    };
    view! {
        <table class="table pbxes">
            <caption class="visually-hidden">"PBXes"</caption>
            <thead>
                <tr>
                    <SortHead label="Name" column=NAME sort class="col-name" />
                    <SortHead label="State" column=STATE sort class="col-state" />
                    <th class="col-enforces" scope="col">"Enforces"</th>
                    <th class="col-number" scope="col">"Blocked"</th>
                    <th class="col-number" scope="col">"Phones"</th>
                    <th class="col-runs" scope="col">"Runs"</th>
                    <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                </tr>
            </thead>
            <tbody>
                <For each=move || ids.get() key=|id| id.0 let:id>
                    <Row pbx=pbx(id) listing may_write />
                </For>
            </tbody>
        </table>
    }
}

#[component]
fn Row(pbx: Memo<Option<Pbx>>, listing: Listing, may_write: bool) -> impl IntoView {
    let read = move |part: fn(&Pbx) -> String| move || pbx.look(|pbx| pbx.as_ref().map(part).unwrap_or_default());
    let state = move || pbx.look(|pbx| pbx.as_ref().map_or(PbxState::Offline, |pbx| pbx.state));
    let last_seen = Memo::new(move |_| {
        pbx.look(|pbx| pbx.as_ref().filter(|pbx| pbx.state == PbxState::Offline).and_then(|pbx| pbx.last_seen_at))
    });
    let refusal =
        Memo::new(move |_| pbx.look(|pbx| pbx.as_ref().map(|pbx| pbx.last_refusal.clone()).unwrap_or_default()));
    let withheld = Memo::new(move |_| pbx.look(|pbx| pbx.as_ref().map(|pbx| pbx.withheld.clone()).unwrap_or_default()));
    let proven = Memo::new(move |_| {
        pbx.look(|pbx| {
            let pbx = pbx.as_ref().filter(|pbx| pbx.state == PbxState::Online && pbx.firewall != "memory")?;
            pbx.proven_at.map(|at| (at, pbx.proven_ranges))
        })
    });
    let drift = Memo::new(move |_| pbx.look(|pbx| pbx.as_ref().and_then(|pbx| pbx.drift.clone())));
    // Told from the PBX's side: the server's clock is the right one.
    let clock = Memo::new(move |_| {
        pbx.look(|pbx| pbx.as_ref().and_then(|pbx| pbx.clock_ahead_ms))
            .and_then(|ahead| clock_apart(ahead.saturating_neg()))
    });
    let enforced = Memo::new(move |_| pbx.look(|pbx| pbx.as_ref().is_some_and(is_current)));
    view! {
        <tr data-row tabindex="-1">
            <th class="col-name" scope="row">
                {read(|pbx| pbx.name.clone())}
                <small>{read(|pbx| pbx.hostname.clone())}</small>
            </th>
            <td class="col-state">
                <span class="state" data-state=move || tone(state())>
                    <span class="dot" aria-hidden="true"></span>
                    {move || word(state())}
                </span>
                {move || last_seen.get().map(|at| view! { <small>"heard " <Since at suffix=" ago" /></small> })}
            </td>
            <td class="col-enforces">
                <span class="enforces" data-current=move || enforced.get().to_string()>{read(enforces)}</span>
                <small class="mono">{read(|pbx| pbx.applied_digest.chars().take(8).collect())}</small>
                {move || proven.get().map(|(at, ranges)| view! {
                    <small class="proven" title="Read back from the kernel of the PBX">
                        <Icon glyph=Glyph::Proven />
                        {format!("{ranges} never blocked, proven ")}
                        <Since at suffix=" ago" />
                    </small>
                })}
                {move || drift.get().map(|drift| view! { <Found drift /> })}
                {move || (!refusal.look(String::is_empty)).then(|| view! { <p class="refusal"><Icon glyph=Glyph::Alert /> "Refused: " {refusal}</p> })}
                {move || withheld.get().into_iter().map(|withheld| view! { <NotEnforced withheld /> }).collect_view()}
            </td>
            <td class="col-number mono">{read(|pbx| grouped(pbx.bans))}</td>
            <td class="col-number mono">{read(|pbx| grouped(i64::from(pbx.registered)))}</td>
            <td class="col-runs">
                {read(runs)}
                <small>{read(|pbx| if pbx.agent_version.is_empty() { String::new() } else { format!("agent {}", pbx.agent_version) })}</small>
                {move || clock.get().map(|words| view! {
                    <small title="Set the clock of the PBX; bans end by the server's"><Icon glyph=Glyph::Alert />" "{words}</small>
                })}
            </td>
            <td class="col-actions">
                {may_write.then(|| view! {
                    <RowMenu pbx listing />
                })}
            </td>
        </tr>
    }
}

/// A change that the PBX took back or never loaded, why, and what it would have changed.
#[component]
fn NotEnforced(withheld: Withheld) -> impl IntoView {
    let Withheld { change, at, rolled_back, reason, lines } = withheld;
    let did = if rolled_back { "Taken back" } else { "Not loaded" };
    let next = match change {
        Change::Policy(_) => "Change the allowed IPs to try again.",
        Change::Ban(_) => "Unblock it, or allow the phones and block it again.",
    };
    let lines = (!lines.is_empty()).then(|| {
        let lines = lines.into_iter().map(|line| view! { <li>{line}</li> }).collect_view();
        view! {
            <details>
                <summary>"What it would change"</summary>
                <ul>{lines}</ul>
            </details>
        }
    });
    view! {
        <div class="refusal withheld">
            <Icon glyph=Glyph::Alert />
            <div>
                <p>{did} ": " {safety::name(&change)} ", " <Since at suffix=" ago" /> ". " {reason}</p>
                <p class="withheld-next">{next}</p>
                {lines}
            </div>
        </div>
    }
}

/// What the agent found in the firewall that wasn't as it should be.
#[component]
fn Found(drift: Drift) -> impl IntoView {
    let Drift { at, found, repaired } = drift;
    let (class, did) =
        if repaired { ("withheld", "Repaired") } else { ("refusal withheld", "In the way, and not ours to change") };
    view! {
        <div class=class>
            <Icon glyph=Glyph::Warning />
            <p>{did} ", " <Since at suffix=" ago" /> ": " {found.join("; ")}</p>
        </div>
    }
}

/// A button each rather than a menu: there are few PBXes, and the table clips what floats.
#[component]
fn RowMenu(pbx: Memo<Option<Pbx>>, listing: Listing) -> impl IntoView {
    let id = move || pbx.peek(|pbx| pbx.as_ref().map(|pbx| (pbx.id, pbx.name.clone())));
    let name = move || pbx.look(|pbx| pbx.as_ref().map(|pbx| pbx.name.clone()).unwrap_or_default());
    let state = move || pbx.look(|pbx| pbx.as_ref().map(|pbx| pbx.state));
    let rename = move |_| listing.renaming.set(id());
    let renew = move |_| {
        if let Some((id, _)) = id() {
            listing
                .calls
                .change_access(move || api::renew_enrolment(id), move |command| listing.command.set(Some(command)));
        }
    };
    let revoke = move |_| {
        let Some((id, name)) = id() else { return };
        let text = format!(
            "{name} is cut from Ringfence at once. It keeps what it enforces, and gets no changes until you connect it again."
        );
        let act = move || listing.calls.change_access(move || api::revoke(id), move |()| listing.reload());
        listing.calls.ask(Question::new(format!("Revoke {name}?"), text, "Revoke", act));
    };
    let remove = move |_| {
        let Some((id, name)) = id() else { return };
        let text = format!(
            "{name} is cut from Ringfence, and what is known of it is deleted. Its firewall keeps its last rules until the agent is uninstalled. This can't be undone."
        );
        let act = move || listing.calls.change_access(move || api::remove(id), move |()| listing.reload());
        listing.calls.ask(Question::new(format!("Remove {name}?"), text, "Remove", act));
    };
    let connectable =
        move || matches!(state(), Some(PbxState::WaitingForAgent | PbxState::Offline | PbxState::Revoked));
    let revocable = move || matches!(state(), Some(PbxState::Online | PbxState::Offline));
    view! {
        <div class="row-actions">
            <When is=connectable>
                <button type="button" class="button small" aria-label=move || format!("Connect {}", name()) on:click=renew>"Connect"</button>
            </When>
            <button type="button" class="icon-button" title="Rename" aria-label=move || format!("Rename {}", name()) on:click=rename>
                <Icon glyph=Glyph::Pencil />
            </button>
            <When is=revocable>
                <button type="button" class="icon-button" title="Revoke" aria-label=move || format!("Revoke {}", name()) on:click=revoke>
                    <Icon glyph=Glyph::Unplug />
                </button>
            </When>
            <button type="button" class="icon-button" title="Remove" aria-label=move || format!("Remove {}", name()) on:click=remove>
                <Icon glyph=Glyph::Trash />
            </button>
        </div>
    }
}

/// A state in words.
pub(crate) fn word(state: PbxState) -> &'static str {
    match state {
        PbxState::WaitingForAgent => "Waiting for its agent",
        PbxState::Online => "Online",
        PbxState::Offline => "Offline",
        PbxState::Revoked => "Revoked",
    }
}

/// The signal that a state is.
pub(crate) fn tone(state: PbxState) -> &'static str {
    match state {
        PbxState::WaitingForAgent => "busy",
        PbxState::Online => "good",
        PbxState::Offline => "bad",
        PbxState::Revoked => "idle",
    }
}

/// Whether it enforces the newest policy and bans, for real.
pub(crate) fn is_current(pbx: &Pbx) -> bool {
    pbx.firewall != "memory"
        && pbx.state != PbxState::Revoked
        && pbx.withheld.is_empty()
        && pbx.applied_revision >= pbx.wanted_revision
        && pbx.applied_ban_seq >= pbx.wanted_ban_seq
}

/// What it enforces, in words.
pub(crate) fn enforces(pbx: &Pbx) -> String {
    match pbx.state {
        PbxState::WaitingForAgent => "nothing yet".to_owned(),
        PbxState::Revoked => format!("stays at revision {}", pbx.applied_revision),
        PbxState::Online | PbxState::Offline => {
            let behind = pbx.applied_revision < pbx.wanted_revision || pbx.applied_ban_seq < pbx.wanted_ban_seq;
            let what = if behind {
                format!("revision {} of {}", pbx.applied_revision, pbx.wanted_revision)
            } else {
                format!("revision {}, current", pbx.applied_revision)
            };
            if pbx.firewall == "memory" { format!("{what}; no firewall, nothing is dropped") } else { what }
        }
    }
}

fn runs(pbx: &Pbx) -> String {
    let kind = match pbx.pbx_kind.as_str() {
        "asterisk" => "Asterisk",
        "simulated" => "Simulated PBX",
        other => other,
    };
    format!("{kind} {}", pbx.pbx_version).trim().to_owned()
}

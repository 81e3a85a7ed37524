//! One ban with everything known: state, evidence as a timeline, earlier bans of the same source.

use leptos::prelude::*;
use policy::authz::Permission;
use policy::blocked_ips::{BanSource, BlockedIp, BlockedIpDetails, EvidenceEvent, short_duration};
use policy::net;

use crate::blocked_ips::api;
use crate::blocked_ips::page::Place;
use crate::blocked_ips::row::why;
use crate::blocked_ips::unblock::Unblocking;
use crate::clock::{Instant, Since, Until};
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::load::{Loaded, load};
use crate::ui::panel::SidePanel;
use crate::ui::states::{Failed, SkeletonRows};

/// The ban that the address bar names, if it names one.
pub(crate) type OpenBan = Loaded<Option<Result<BlockedIpDetails, ApiError>>>;

/// Loads the open ban; for the set-up of the page, outside of what waits for its list.
pub(crate) fn open_ban(place: Place) -> OpenBan {
    load(
        move || place.ban.get(),
        |ban| async move {
            match ban.parse() {
                Ok(id) => Some(api::show(id).await),
                Err(_) => None,
            }
        },
    )
}

/// The panel of the open ban.
#[component]
pub(crate) fn BanPanel(details: OpenBan, unblocking: Unblocking) -> impl IntoView {
    let place = unblocking.listing.place;
    let close = move |()| place.close();
    view! {
        <Transition fallback=|| view! { <SkeletonRows rows=5 /> }>
            {move || Suspend::new(async move {
                match details.await {
                    None => ().into_any(),
                    Some(Ok(details)) => view! { <Shown details unblocking /> }.into_any(),
                    Some(Err(ApiError::NotFound)) => {
                        view! {
                            <SidePanel title="Not blocked any more" close>
                                <p>"This ban has ended, or someone lifted it."</p>
                            </SidePanel>
                        }
                            .into_any()
                    }
                    Some(Err(error)) => {
                        view! {
                            <SidePanel title="Ban" close>
                                <Failed what="This ban" error retry=move |()| details.refetch() />
                            </SidePanel>
                        }
                            .into_any()
                    }
                }
            })}
        </Transition>
    }
}

#[component]
fn Shown(details: BlockedIpDetails, unblocking: Unblocking) -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let (may_block, may_allow) =
        (signed_in.may(Permission::WriteBlockedIps), signed_in.may(Permission::WriteAllowedIps));
    let BlockedIpDetails { ban, evidence, earlier } = details;
    let place = unblocking.listing.place;
    let (since, ends, times) = (ban.created_at, ban.expires_at, ban.times_banned);
    let source = match ban.source {
        BanSource::Detection => {
            format!("Detected by {}", ban.pbx_name.clone().unwrap_or_else(|| "a PBX that was removed".to_owned()))
        }
        BanSource::Portal => "By attacks on the login of this portal".to_owned(),
        BanSource::Manual => format!("By hand, {}", ban.blocked_by.clone().unwrap_or_default()),
    };
    let (title, reason) = (net::display(&ban.net), why(&ban));
    let ban = StoredValue::new(ban);
    view! {
        <SidePanel title close=move |()| place.close()>
            <p class="panel-state">
                "Blocked " <Since at=since suffix=" ago" /> ": " {reason} ". "
                {if ends.is_some() { "Ends in " } else { "Ends " }} <Until at=ends /> "."
            </p>
            <div class="button-row">
                {may_block.then(|| view! {
                    <button type="button" class="button" on:click=move |_| unblocking.unblock(vec![ban.get_value()])>"Unblock"</button>
                })}
                {(may_block && may_allow).then(|| view! {
                    <button type="button" class="button" on:click=move |_| unblocking.unblock_and_allow(vec![ban.get_value()])>
                        "Unblock and allow"
                    </button>
                })}
            </div>
            <dl class="facts">
                <dt>"Source"</dt>
                <dd>{source}</dd>
                <dt>"Since"</dt>
                <dd><Instant at=since /></dd>
                {ends.map(|ends| view! { <dt>"Until"</dt> <dd><Instant at=ends /></dd> })}
                <dt>"Times blocked"</dt>
                <dd class="mono">{times}</dd>
            </dl>
            <Evidence evidence />
            <Earlier earlier />
        </SidePanel>
    }
}

#[component]
fn Evidence(evidence: Vec<EvidenceEvent>) -> impl IntoView {
    if evidence.is_empty() {
        return ().into_any();
    }
    let first = evidence.first().map(|event| event.at);
    let events = evidence
        .into_iter()
        .enumerate()
        .map(|(index, event)| {
            let after = first.map(|first| (event.at - first).whole_seconds()).filter(|_| index > 0);
            view! {
                <li>
                    <span class="timeline-when">
                        {match after {
                            None => view! { <Instant at=event.at /> }.into_any(),
                            Some(seconds) => format!("+{}", short_duration(seconds)).into_any(),
                        }}
                    </span>
                    <span class="timeline-what">
                        {words(&event.kind)} " for " <code>{event.account}</code>
                        <small>{event.kind} ", " {event.service} " over " {event.transport}</small>
                    </span>
                </li>
            }
        })
        .collect_view();
    view! {
        <section class="panel-section">
            <h3>"Evidence"</h3>
            <ol class="timeline">{events}</ol>
        </section>
    }
    .into_any()
}

/// An event of a PBX in plain words.
fn words(kind: &str) -> &'static str {
    match kind {
        "ChallengeResponseFailed" | "InvalidPassword" => "Wrong password",
        "InvalidAccountID" => "Unknown account",
        "FailedACL" => "Refused by an access list",
        _ => "Security event",
    }
}

#[component]
fn Earlier(earlier: Vec<BlockedIp>) -> impl IntoView {
    if earlier.is_empty() {
        return ().into_any();
    }
    let bans = earlier
        .into_iter()
        .map(|ban| {
            view! {
                <li>
                    <span class="timeline-when"><Since at=ban.created_at suffix=" ago" /></span>
                    <span class="timeline-what">{why(&ban)}</span>
                </li>
            }
        })
        .collect_view();
    view! {
        <section class="panel-section">
            <h3>"Blocked before"</h3>
            <ol class="timeline">{bans}</ol>
        </section>
    }
    .into_any()
}

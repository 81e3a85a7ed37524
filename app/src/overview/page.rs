//! One screen: is it under control, what needs someone, what happened.

use leptos::prelude::*;
use leptos_meta::Title;
use policy::blocked_ips::BlockedIp;
use policy::net;
use policy::overview::{Attention, Overview};
use policy::pbxes::{Pbx, PbxState};

use crate::blocked_ips::row::why;
use crate::calls::{Loader, leave_if_signed_out};
use crate::clock::{Since, Until};
use crate::error::ApiError;
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::Look;
use crate::overview::api;
use crate::pbxes::row::{enforces, tone, word};
use crate::ui::chart::HoursChart;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::{counted, grouped};
use crate::ui::states::{Failed, SkeletonRows};
use crate::ui::when::When;

/// `/`
#[component]
pub(crate) fn OverviewPage() -> impl IntoView {
    let first = load(|| (), |()| api::show());
    view! {
        <Title text="Overview" />
        <Suspense fallback=|| view! { <h1 class="visually-hidden">"Overview"</h1> <SkeletonRows rows=6 /> }>
            {move || Suspend::new(async move {
                let overview = first.await;
                view! { <Screen overview /> }
            })}
        </Suspense>
    }
}

#[component]
fn Screen(overview: Result<Overview, ApiError>) -> impl IntoView {
    let loader = Loader::new(overview);
    let reload = move || loader.load(api::show());
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>()
        .on_change(&[Topic::Overview, Topic::BlockedIps, Topic::Pbxes, Topic::AllowedIps, Topic::Enforcement], reload);
    let none = Memo::new(move |_| loader.data.look(Option::is_none));
    view! {
        <h1 class="visually-hidden">"Overview"</h1>
        {move || loader.error.get().map(|error| view! { <Failed what="The overview" error retry=move |()| reload() /> })}
        <When is=move || !none.get()>
            <Status loader />
            <NeedsSomeone loader />
            <section class="box overview-chart" aria-label="Last 24 hours">
                <HoursChart hours=Signal::derive(move || part(loader, |overview| overview.hours.clone())) />
            </section>
            <div class="overview-columns">
                <NewestBans loader />
                <Pbxes loader />
            </div>
        </When>
    }
}

fn part<T: Default>(loader: Loader<Overview>, read: impl Fn(&Overview) -> T) -> T {
    loader.data.look(|overview| overview.as_ref().map(read).unwrap_or_default())
}

#[component]
fn Status(loader: Loader<Overview>) -> impl IntoView {
    let status = Memo::new(move |_| part(loader, |overview| Some(status(overview))));
    move || {
        status.get().map(|(tone, headline, sentence)| {
            let glyph = match tone {
                "good" => Glyph::ShieldCheck,
                "bad" => Glyph::Alert,
                "warn" => Glyph::Warning,
                _ => Glyph::Info,
            };
            view! {
                <section class="status" data-tone=tone aria-label="Status">
                    <Icon glyph />
                    <div>
                        <p class="status-headline">{headline}</p>
                        <p class="status-sentence">{sentence}</p>
                    </div>
                </section>
            }
        })
    }
}

/// Is it under control, in words.
fn status(overview: &Overview) -> (&'static str, &'static str, String) {
    let sum = &overview.enforcement;
    let attempts = counted(overview.attempts_last_hour, "attempt", "attempts");
    let blocked = counted(overview.active_bans, "address", "addresses");
    if sum.of == 0 {
        return ("idle", "Nothing is protected yet", "Connect your first PBX: it takes one command.".to_owned());
    }
    let pbxes = if sum.of == 1 { "PBX" } else { "PBXes" };
    if !sum.refused.is_empty() {
        let text = format!(
            "{} of {} {pbxes} enforce revision {}; {} refused it.",
            sum.enforced,
            sum.of,
            sum.revision,
            sum.refused.len()
        );
        return ("bad", "A change was refused", text);
    }
    if sum.online < sum.of {
        let text = format!(
            "{} of {} {pbxes} online. Those that aren't go on enforcing what they had; {blocked} blocked.",
            sum.online, sum.of
        );
        return ("bad", "Not everything is reachable", text);
    }
    if sum.enforced < sum.of {
        return (
            "busy",
            "A change is on its way",
            format!("{} of {} {pbxes} enforce revision {}.", sum.enforced, sum.of, sum.revision),
        );
    }
    if !sum.simulated.is_empty() {
        let text = format!(
            "{attempts} seen in the last hour, {blocked} on the list. Without a firewall nothing is dropped on {}.",
            sum.simulated.join(", ")
        );
        return ("warn", "Watching, not dropping", text);
    }
    let text = format!(
        "{attempts} stopped in the last hour, {blocked} blocked, {} {pbxes} enforcing revision {}.",
        sum.of, sum.revision
    );
    ("good", "Under control", text)
}

#[component]
fn NeedsSomeone(loader: Loader<Overview>) -> impl IntoView {
    let items = Memo::new(move |_| part(loader, |overview| overview.attention.clone()));
    let item = |item: Attention| {
        view! {
            <li data-urgent=item.urgent.to_string()>
                <Icon glyph=if item.urgent { Glyph::Alert } else { Glyph::Warning } />
                <span>{item.text}</span>
                <a class="button small" href=item.href>{item.button}</a>
            </li>
        }
    };
    move || {
        let items = items.get();
        (!items.is_empty()).then(|| {
            view! {
                <section class="box attention">
                    <h2>"Needs someone"</h2>
                    <ul>{items.into_iter().map(item).collect_view()}</ul>
                </section>
            }
        })
    }
}

#[component]
fn NewestBans(loader: Loader<Overview>) -> impl IntoView {
    let total = move || part(loader, |overview| overview.active_bans);
    let bans = Memo::new(move |_| part(loader, |overview| overview.newest_bans.clone()));
    view! {
        <section class="box">
            <h2>
                "Newest blocked addresses"
                <a class="box-more" href="/blocked-ips">{move || format!("All {}", grouped(total()))}</a>
            </h2>
            <When is=move || bans.look(Vec::is_empty)>
                <p class="box-empty">"Nothing is blocked. What your PBXes detect appears here by itself."</p>
            </When>
            <ul class="ban-list">
                <For each=move || bans.get() key=|ban| (ban.id.0, ban.expires_at) let:ban>
                    <NewBan ban />
                </For>
            </ul>
        </section>
    }
}

#[component]
fn NewBan(ban: BlockedIp) -> impl IntoView {
    let clock = expect_context::<crate::clock::Clock>();
    // Rows that come while the page is open flash once.
    let fresh = ban.created_at.unix_timestamp() > clock.now_untracked().map_or(i64::MAX, |now| now - 15);
    view! {
        <li class:fresh=fresh>
            <a class="mono" href=format!("/blocked-ips?ban={}", ban.id)>{net::display(&ban.net)}</a>
            <span class="ban-why">{why(&ban)}</span>
            <span class="ban-times">
                <Since at=ban.created_at suffix=" ago" />
                <span>"ends in " <Until at=ban.expires_at /></span>
            </span>
        </li>
    }
}

#[component]
fn Pbxes(loader: Loader<Overview>) -> impl IntoView {
    let pbxes = Memo::new(move |_| part(loader, |overview| overview.pbxes.clone()));
    let card = |pbx: Pbx| {
        let heard = pbx.last_seen_at.filter(|_| pbx.state == PbxState::Offline);
        view! {
            <li class="pbx-card">
                <p class="pbx-card-name">
                    {pbx.name.clone()}
                    <span class="state" data-state=tone(pbx.state)>
                        <span class="dot" aria-hidden="true"></span>
                        {word(pbx.state)}
                    </span>
                </p>
                <p class="pbx-card-facts">
                    <span>{enforces(&pbx)}</span>
                    <span><b class="mono">{grouped(pbx.bans)}</b> " blocked"</span>
                    <span><b class="mono">{grouped(i64::from(pbx.registered))}</b> " phones"</span>
                    {heard.map(|at| view! { <span>"heard " <Since at suffix=" ago" /></span> })}
                </p>
            </li>
        }
    };
    view! {
        <section class="box">
            <h2>"PBXes" <a class="box-more" href="/pbxes">"Manage"</a></h2>
            <When is=move || pbxes.look(Vec::is_empty)>
                <p class="box-empty">"None yet. " <a href="/pbxes?add=1">"Add a PBX"</a></p>
            </When>
            <ul class="pbx-cards">{move || pbxes.get().into_iter().map(card).collect_view()}</ul>
        </section>
    }
}

#[cfg(test)]
mod tests {
    use policy::enforcement::Enforcement;

    use super::*;

    fn overview(enforcement: Enforcement) -> Overview {
        Overview {
            pbxes: Vec::new(),
            enforcement,
            hours: Vec::new(),
            attempts_last_hour: 312,
            active_bans: 1,
            newest_bans: Vec::new(),
            allowed_ips: 0,
            attention: Vec::new(),
        }
    }

    #[test]
    fn the_status_says_what_holds() {
        let all = Enforcement { of: 2, enforced: 2, online: 2, revision: 41, ..Enforcement::default() };
        let (tone, headline, sentence) = status(&overview(all.clone()));
        assert_eq!((tone, headline), ("good", "Under control"));
        assert_eq!(
            sentence,
            "312 attempts stopped in the last hour, 1 address blocked, 2 PBXes enforcing revision 41."
        );
        let offline = Enforcement { online: 1, enforced: 1, ..all.clone() };
        assert_eq!(status(&overview(offline)).0, "bad");
        let simulated = Enforcement { simulated: vec!["demo".to_owned()], ..all };
        assert_eq!(status(&overview(simulated)).1, "Watching, not dropping");
        assert_eq!(status(&overview(Enforcement::default())).1, "Nothing is protected yet");
    }
}

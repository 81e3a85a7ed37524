//! Agents: enrolled once, known until revoked, what they report stored once, what is allowed never banned by them.

use actions::agents::{self, Agent, AppliedPolicy, Health, Hello, Report, Told};
use actions::{ActError, ca, pbxes};
use policy::audit::Outcome;
use policy::blocked_ips::{BanSource, BlockedIpFilter, BlockedIpForm, EvidenceEvent};
use policy::ids::{BanId, BatchId};
use policy::pbxes::PbxState;
use policy::reports::{AttemptCount, DetectedBan, ReportBatch, ReportEvent};
use policy::safety::{Change, Withheld};
use time::Duration;
use uuid::Uuid;

use crate::portal::{Portal, address, csr, der, token};

fn refused<T: std::fmt::Debug>(result: Result<T, ActError>) -> bool {
    matches!(result, Err(ActError::Refused(_)))
}

fn detected(portal: &Portal, net: &str) -> DetectedBan {
    let at = portal.ctx.now();
    let event = EvidenceEvent {
        at,
        kind: "ChallengeResponseFailed".to_owned(),
        transport: "UDP".to_owned(),
        account: "1007".to_owned(),
        service: "PJSIP".to_owned(),
    };
    DetectedBan {
        id: BanId(Uuid::now_v7()),
        net: policy::net::parse_net(net).unwrap(),
        at,
        expires_at: at + Duration::HOUR,
        reason: "5 wrong passwords for 1007".to_owned(),
        account: "1007".to_owned(),
        times_banned: 1,
        evidence: vec![event],
        took_us: 900,
    }
}

async fn report(portal: &Portal, agent: &Agent, events: Vec<ReportEvent>) -> i64 {
    report_in(portal, agent, BatchId(Uuid::now_v7()), events).await
}

async fn report_in(portal: &Portal, agent: &Agent, id: BatchId, events: Vec<ReportEvent>) -> i64 {
    let report = Report { agent: agent.clone(), batch: ReportBatch { id, events } };
    agents::report(&portal.ctx, agent.tenant_id, vec![report]).await.unwrap()
}

#[tokio::test]
async fn a_token_enrols_once() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let command = pbxes::add(&portal.ctx, &caller, "hq".to_owned()).await.unwrap();
    let token = token(&command.command);
    let enrolled = portal.enrol(&token).await.unwrap();
    portal.assert_audited(&caller, "agent/enrol", Outcome::Done).await;
    assert_eq!((enrolled.pbx_name.as_str(), enrolled.ca_pem.as_str()), ("hq", portal.ctx.ca().pem()));
    let agent = agents::identify(&portal.ctx, &der(&enrolled.certificate_pem)).await.unwrap();
    assert_eq!((agent.pbx_id, agent.tenant_id, agent.pbx_name.as_str()), (command.pbx_id, caller.tenant_id, "hq"));
    assert!(refused(portal.enrol(&token).await), "used");
    portal.assert_audited(&caller, "agent/enrol", Outcome::Refused).await;
    agents::identify(&portal.ctx, &der(&enrolled.certificate_pem)).await.unwrap();
}

#[tokio::test]
async fn tokens_that_no_longer_count() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let add = async |name: &str| pbxes::add(ctx, &caller, name.to_owned()).await.unwrap();

    let replaced = add("replaced").await;
    let renewed = pbxes::renew_enrolment(ctx, &caller, replaced.pbx_id).await.unwrap();
    assert!(refused(portal.enrol(&token(&replaced.command)).await));
    portal.enrol(&token(&renewed.command)).await.unwrap();

    let revoked = add("revoked").await;
    pbxes::revoke(ctx, &caller, revoked.pbx_id).await.unwrap();
    assert!(refused(portal.enrol(&token(&revoked.command)).await));

    let removed = add("removed").await;
    pbxes::remove(ctx, &caller, removed.pbx_id).await.unwrap();
    assert!(refused(portal.enrol(&token(&removed.command)).await));

    let late = add("late").await;
    portal.advance(Duration::HOUR);
    assert!(refused(portal.enrol(&token(&late.command)).await));

    let good = token(&add("forged").await.command);
    let unsigned = good.rsplit_once('.').unwrap().0;
    for forged in ["", "x.y.z", &format!("{unsigned}."), &format!("{unsigned}.AAAA"), &good[1..]] {
        assert!(refused(portal.enrol(forged).await), "{forged}");
    }
    let another = Portal::new().await;
    assert!(refused(another.enrol(&good).await), "another installation's");
    portal.enrol(&good).await.unwrap();
}

#[tokio::test]
async fn a_request_that_cannot_be_read_uses_no_token_up() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let command = pbxes::add(&portal.ctx, &caller, "hq".to_owned()).await.unwrap();
    let token = token(&command.command);
    for bad in ["", "nonsense", &csr().replace('A', "B")] {
        let request = agents::EnrolRequest {
            token: token.clone(),
            csr_pem: bad.to_owned(),
            agent_version: String::new(),
            hostname: String::new(),
        };
        assert!(refused(agents::enrol(&portal.ctx, address("192.0.2.77"), request).await), "{bad}");
    }
    portal.enrol(&token).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_known_until_it_ends_or_its_pbx_does() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let unknown = async |der: &[u8]| matches!(agents::identify(ctx, der).await, Err(ActError::NotFound));

    let (id, first) = portal.enrolled(&caller, "hq").await;
    let again = pbxes::renew_enrolment(ctx, &caller, id).await.unwrap();
    let second = der(&portal.enrol(&token(&again.command)).await.unwrap().certificate_pem);
    assert!(unknown(&first).await, "replaced");
    let agent = agents::identify(ctx, &second).await.unwrap();
    let link = Uuid::new_v4();
    agents::connected(ctx, &agent, link, Hello::default()).await.unwrap();
    pbxes::revoke(ctx, &caller, id).await.unwrap();
    assert!(unknown(&second).await, "revoked");
    let tenancy = agents::look(ctx, caller.tenant_id).await.unwrap();
    assert!(!tenancy.certificates.contains_key(agent.fingerprint()), "its stream ends");
    assert!(matches!(agents::connected(ctx, &agent, link, Hello::default()).await, Err(ActError::NotFound)));

    let (id, third) = portal.enrolled(&caller, "branch").await;
    pbxes::remove(ctx, &caller, id).await.unwrap();
    assert!(unknown(&third).await, "removed");
    let (_, fourth) = portal.enrolled(&caller, "old").await;
    portal.advance(Duration::days(ca::PBX_CERTIFICATE_DAYS));
    assert!(unknown(&fourth).await, "expired");
    assert!(unknown(b"").await && unknown(portal.ctx.ca().der()).await);
}

#[tokio::test]
async fn streams_states_and_answers() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let ctx = &portal.ctx;
    let pbx = async || pbxes::list(ctx, &caller).await.unwrap().remove(0);
    assert_eq!(pbx().await.state, PbxState::Offline);
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    let hello = Hello {
        agent_version: "0.1.0\n".to_owned(),
        hostname: "h".repeat(1_000),
        firewall: "nftables".to_owned(),
        ..Hello::default()
    };
    agents::connected(ctx, &agent, old, hello.clone()).await.unwrap();
    agents::connected(ctx, &agent, new, hello).await.unwrap();
    let tenancy = agents::look(ctx, caller.tenant_id).await.unwrap();
    assert_eq!(tenancy.certificates[agent.fingerprint()].link_id, Some(new));
    agents::disconnected(ctx, &agent, old).await.unwrap();
    let healthy = |health| Told { health: Some(health), ..Told::default() };
    let health = Health { bans: i64::MAX, registered: i32::MAX, dropped: 3, ..Health::default() };
    let beats = [(agent.pbx_id, old, healthy(Health::default())), (agent.pbx_id, new, healthy(health))];
    agents::told(ctx, caller.tenant_id, &beats).await.unwrap();
    let seen = pbx().await;
    assert_eq!(
        (seen.state, seen.agent_version.as_str(), seen.hostname.len(), seen.dropped),
        (PbxState::Online, "0.1.0", 120, 3)
    );

    let snapshot = agents::policy(ctx, agent.tenant_id).await.unwrap();
    agents::policy_refused(ctx, &agent, snapshot.revision, "no\0 nftables").await.unwrap();
    portal.assert_audited(&caller, "agent/link", Outcome::Done).await;
    assert_eq!(pbx().await.last_refusal, "no nftables");
    let rows = portal.audit_rows(&caller).await;
    agents::policy_refused(ctx, &agent, snapshot.revision, "no nftables").await.unwrap();
    assert_eq!(portal.audit_rows(&caller).await, rows, "said again, written once");
    agents::policy_refused(ctx, &agent, snapshot.revision, "").await.unwrap();
    assert_eq!(pbx().await.last_refusal, "The agent gave no reason.");
    let policy = AppliedPolicy { revision: snapshot.revision, digest: snapshot.digest(), took_us: Some(900) };
    let told = Told { policy: Some(policy), ..Told::default() };
    agents::told(ctx, caller.tenant_id, &[(agent.pbx_id, new, told)]).await.unwrap();
    let seen = pbx().await;
    assert_eq!((seen.applied_revision, seen.last_refusal.as_str()), (seen.wanted_revision, ""));
    assert_eq!(seen.applied_digest, data_encoding::HEXLOWER.encode(&snapshot.digest()));
    let enforcement = actions::enforcement::show(ctx, &caller).await.unwrap();
    assert_eq!((enforcement.enforced, enforcement.of, enforcement.took_ms), (1, 1, 1));
}

#[tokio::test]
async fn a_report_sent_twice_is_stored_once() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let ban = detected(&portal, "198.51.100.7");
    let attempts = AttemptCount { minute: portal.ctx.now(), address: address("198.51.100.7"), proven: 5, unproven: 2 };
    let events = vec![ReportEvent::Detected(ban.clone()), ReportEvent::Attempts(attempts)];
    let batch = BatchId(Uuid::now_v7());
    let seq = report_in(&portal, &agent, batch, events.clone()).await;
    let rows = portal.audit_rows(&caller).await;
    assert_eq!(report_in(&portal, &agent, batch, events.clone()).await, seq);
    // And the ban in another batch, too: the agent made its id.
    let sum = actions::overview::show(&portal.ctx, &caller).await.unwrap();
    assert_eq!((sum.attempts_last_hour, sum.active_bans), (7, 1));
    assert_eq!(report(&portal, &agent, vec![ReportEvent::Detected(ban.clone())]).await, seq);
    assert_eq!(portal.audit_rows(&caller).await, rows);

    let shown = actions::blocked_ips::show(&portal.ctx, &caller, ban.id).await.unwrap();
    assert_eq!(
        (shown.ban.source, shown.ban.pbx_name.as_deref(), shown.ban.account.as_deref()),
        (BanSource::Detection, Some("hq"), Some("1007"))
    );
    assert_eq!(shown.evidence, ban.evidence);
    // Ended by hand, it doesn't come back with a late copy.
    actions::blocked_ips::unblock(&portal.ctx, &caller, vec![ban.id]).await.unwrap();
    report(&portal, &agent, vec![ReportEvent::Detected(ban)]).await;
    assert!(portal.blocked(&caller).await.is_empty());
}

/// Batches of several agents in one transaction are what they would be one after another.
#[tokio::test]
async fn what_several_agents_report_at_once_is_each_ones_own() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let (hq, branch) = (portal.agent(&caller, "hq").await, portal.agent(&caller, "branch").await);
    let batch = |agent: &Agent, bans: &[&DetectedBan]| {
        let events = bans.iter().map(|ban| ReportEvent::Detected((*ban).clone())).collect();
        Report { agent: agent.clone(), batch: ReportBatch { id: BatchId(Uuid::now_v7()), events } }
    };
    let [same, other, late, empty] =
        ["198.51.100.7", "198.51.100.8", "198.51.100.7", "127.0.0.1"].map(|net| detected(&portal, net));
    let first = batch(&hq, &[&same]);
    let reports = vec![first.clone(), batch(&branch, &[&other, &late]), first, batch(&branch, &[&empty])];
    let rows = portal.audit_rows(&caller).await;
    assert_eq!(agents::report(&portal.ctx, caller.tenant_id, reports).await.unwrap(), 2);
    assert_eq!(portal.audit_rows(&caller).await, rows + 2, "a row for each that banned somebody");
    let row = portal.assert_audited(&caller, "agent/link", Outcome::Done).await;
    assert_eq!((row.actor.as_str(), row.subject.as_str()), ("pbx branch", "198.51.100.8"));
    let shown = actions::blocked_ips::show(&portal.ctx, &caller, same.id).await.unwrap();
    assert_eq!((shown.ban.pbx_name.as_deref(), shown.ban.times_banned), (Some("hq"), 1));
    assert!(matches!(actions::blocked_ips::show(&portal.ctx, &caller, late.id).await, Err(ActError::NotFound)));
    assert!(actions::audit::verify(&portal.ctx, &caller).await.unwrap().broken.is_none());
}

#[tokio::test]
async fn two_bans_of_one_source_in_one_report_leave_the_later() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let (first, mut second) = (detected(&portal, "198.51.100.7"), detected(&portal, "198.51.100.7"));
    second.expires_at += Duration::HOUR;
    report(&portal, &agent, vec![ReportEvent::Detected(first), ReportEvent::Detected(second.clone())]).await;
    let shown = actions::blocked_ips::show(&portal.ctx, &caller, second.id).await.unwrap();
    assert_eq!((shown.earlier.len(), shown.ban.expires_at), (1, Some(second.expires_at)));
    assert_eq!(portal.blocked(&caller).await.len(), 1);
}

#[tokio::test]
async fn what_is_allowed_is_not_banned_by_a_report() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    portal.allow(&caller, "198.51.100.0/24").await.unwrap();
    let events = ["198.51.100.7", "198.51.101.7", "127.0.0.1", "0.0.0.0/0"]
        .map(|net| ReportEvent::Detected(detected(&portal, net)));
    report(&portal, &agent, events.to_vec()).await;
    assert_eq!(portal.blocked(&caller).await, ["198.51.101.7"]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_the_pbx_does_no_harm() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let mut ahead = detected(&portal, "198.51.100.7");
    ahead.at += Duration::days(400);
    ahead.expires_at += Duration::days(400);
    let attempts = |days| {
        ReportEvent::Attempts(AttemptCount {
            minute: portal.ctx.now() + Duration::days(days),
            address: address("198.51.100.7"),
            proven: 1,
            unproven: 0,
        })
    };
    report(&portal, &agent, vec![ReportEvent::Detected(ahead.clone()), attempts(400), attempts(-4_000)]).await;
    let shown = actions::blocked_ips::show(&portal.ctx, &caller, ahead.id).await.unwrap();
    assert_eq!(shown.ban.created_at, portal.ctx.now());
}

/// The agent of one tenant reports into its own only.
#[tokio::test]
async fn another_tenants_bans_are_untouched() {
    let portal = Portal::new().await;
    let (ours, theirs) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    let agent = portal.agent(&ours, "hq").await;
    let ban = detected(&portal, "198.51.100.7");
    portal.block(&theirs, "198.51.100.7").await.unwrap();
    report(&portal, &agent, vec![ReportEvent::Detected(ban.clone())]).await;
    assert!(matches!(actions::blocked_ips::show(&portal.ctx, &theirs, ban.id).await, Err(ActError::NotFound)));
    assert_eq!(portal.blocked(&theirs).await.len(), 1);
    assert_eq!(agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_certificate_is_renewed_in_the_second_half_of_its_life() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let (_, first) = portal.enrolled(&caller, "hq").await;
    let agent = agents::identify(ctx, &first).await.unwrap();
    assert!(refused(agents::renew(ctx, &agent, &csr()).await), "not yet");
    portal.advance(Duration::days(ca::PBX_CERTIFICATE_DAYS / 2 + 1));
    assert!(refused(agents::renew(ctx, &agent, "nonsense").await));
    let unused = der(&agents::renew(ctx, &agent, &csr()).await.unwrap());
    portal.assert_audited(&caller, "agent/link", Outcome::Done).await;
    let second = der(&agents::renew(ctx, &agent, &csr()).await.unwrap());
    let known = async |der: &[u8]| agents::identify(ctx, der).await.is_ok();
    assert!(known(&first).await && known(&second).await && !known(&unused).await);
    let renewed = agents::identify(ctx, &second).await.unwrap();
    assert_eq!(renewed.pbx_id, agent.pbx_id);
    agents::connected(ctx, &renewed, Uuid::new_v4(), Hello::default()).await.unwrap();
    assert!(!known(&first).await && known(&second).await, "the old one ends once the new one is used");
    portal.advance(Duration::days(ca::PBX_CERTIFICATE_DAYS / 2 + 1));
    assert!(known(&second).await, "longer than the first one would have");
}

#[tokio::test]
async fn what_is_withheld_is_shown_and_written_once() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let ctx = &portal.ctx;
    let withheld = |change| Withheld {
        change,
        at: ctx.now(),
        rolled_back: true,
        reason: policy::safety::phones_fell(40, 12),
        lines: vec!["no longer allowed: 203.0.113.0/24".to_owned()],
    };
    let both = vec![withheld(Change::Policy(2)), withheld(Change::Ban("198.51.100.0/24".parse().unwrap()))];
    let hello = Hello { withheld: both.clone(), ..Hello::default() };
    agents::connected(ctx, &agent, Uuid::new_v4(), hello).await.unwrap();
    let row = portal.assert_audited(&caller, "agent/link", Outcome::Done).await;
    assert!(row.details.contains("ban of 198.51.100.0/24: Registered phones fell from 40 to 12."), "{row:?}");
    let rows = portal.audit_rows(&caller).await;
    agents::withheld(ctx, &agent, &both).await.unwrap();
    assert_eq!(portal.audit_rows(&caller).await, rows, "known");
    assert_eq!(pbxes::list(ctx, &caller).await.unwrap()[0].withheld, both);
    let enforcement = actions::enforcement::show(ctx, &caller).await.unwrap();
    assert_eq!((enforcement.enforced, enforcement.refused.len()), (0, 1));
    agents::withheld(ctx, &agent, &[]).await.unwrap();
    assert_eq!(portal.audit_rows(&caller).await, rows + 1);
    assert!(pbxes::list(ctx, &caller).await.unwrap()[0].withheld.is_empty());
}

#[tokio::test]
async fn a_report_never_shortens_what_an_administrator_blocks_at_the_same_moment() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    for host in 1..=20 {
        let net = format!("203.0.113.{host}");
        let form = BlockedIpForm { net: net.clone(), duration: "permanent".to_owned(), reason: "for good".to_owned() };
        let block = actions::blocked_ips::block(&portal.ctx, &caller, form, true);
        let (blocked, _) =
            tokio::join!(block, report(&portal, &agent, vec![ReportEvent::Detected(detected(&portal, &net))]));
        let blocked = blocked.unwrap();
        let page = actions::blocked_ips::list(&portal.ctx, &caller, BlockedIpFilter::default(), None).await.unwrap();
        let ban = page.rows.iter().find(|ban| policy::net::display(&ban.net) == net).unwrap();
        assert_eq!((ban.id, ban.expires_at), (blocked.id, None), "{net}");
    }
}

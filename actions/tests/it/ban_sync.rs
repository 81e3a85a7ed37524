//! Whatever happens to a tenant's bans, an agent that asks for what it missed holds the same set as the rows, by digest.

use std::collections::BTreeMap;

use actions::agents::{self, Agent, BanSync, Report};
use actions::{Caller, blocked_ips, jobs};
use ipnet::IpNet;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::blocked_ips::{BlockedIpFilter, BlockedIpForm};
use policy::ids::{BanId, BatchId};
use policy::reports::{DetectedBan, ReportBatch, ReportEvent};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::portal::Portal;

/// What an agent holds.
#[derive(Default)]
struct Held {
    seq: i64,
    digest: Option<BanDigest>,
    bans: BTreeMap<IpNet, Option<OffsetDateTime>>,
}

impl Held {
    fn digest(&self) -> BanDigest {
        let entries: Vec<BanEntry> =
            self.bans.iter().map(|(net, expires_at)| BanEntry { net: *net, expires_at: *expires_at }).collect();
        BanDigest::of(&entries)
    }

    /// Asks for what it missed, and takes it over as an agent does.
    async fn sync(&mut self, portal: &Portal, agent: &Agent) -> &'static str {
        let (kind, digest) =
            match agents::bans_since(&portal.ctx, agent.tenant_id, self.seq, self.digest).await.unwrap() {
                BanSync::Current { seq } => {
                    assert_eq!(seq, self.seq);
                    ("current", self.digest())
                }
                BanSync::Delta { from_seq, to_seq, digest, changes } => {
                    assert_eq!((from_seq, to_seq), (self.seq + 1, self.seq + i64::try_from(changes.len()).unwrap()));
                    for change in changes {
                        match change {
                            BanChange::Add(entry) => drop(self.bans.insert(entry.net, entry.expires_at)),
                            BanChange::Remove(net) => assert!(self.bans.remove(&net).is_some(), "{net} was not held"),
                        }
                    }
                    self.seq = to_seq;
                    ("delta", digest)
                }
                BanSync::Snapshot { seq, digest, bans } => {
                    self.bans = bans.into_iter().map(|entry| (entry.net, entry.expires_at)).collect();
                    self.seq = seq;
                    ("snapshot", digest)
                }
            };
        assert_eq!(self.digest(), digest, "after a {kind}");
        self.digest = Some(digest);
        kind
    }
}

/// Splitmix64: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

async fn something(portal: &Portal, caller: &Caller, agent: &Agent, random: &mut Random) {
    let ctx = &portal.ctx;
    let net = match random.below(4) {
        0 => format!("192.0.2.{}/30", random.below(4) * 4),
        1 => format!("2001:db8::{}", random.below(4)),
        _ => format!("192.0.2.{}", random.below(16)),
    };
    match random.below(8) {
        0..=2 => {
            let duration = ["permanent", "60", "3600"][usize::try_from(random.below(3)).unwrap()];
            let form = BlockedIpForm { net, duration: duration.to_owned(), reason: String::new() };
            blocked_ips::block(ctx, caller, form, true).await.unwrap();
        }
        3 | 4 => {
            let at = ctx.now();
            let ban = DetectedBan {
                id: BanId(Uuid::now_v7()),
                net: policy::net::parse_net(&net).unwrap(),
                at,
                expires_at: at + Duration::milliseconds(90_500),
                reason: "attack".to_owned(),
                account: String::new(),
                times_banned: 1,
                evidence: Vec::new(),
                took_us: 1,
            };
            let batch = ReportBatch { id: BatchId(Uuid::now_v7()), events: vec![ReportEvent::Detected(ban)] };
            agents::report(ctx, agent.tenant_id, vec![Report { agent: agent.clone(), batch }]).await.unwrap();
        }
        5 => {
            let page = blocked_ips::list(ctx, caller, BlockedIpFilter::default(), None).await.unwrap();
            let ids: Vec<BanId> = page.rows.iter().map(|ban| ban.id).filter(|_| random.below(3) == 0).collect();
            // None of them is an answer, too.
            let _ = blocked_ips::unblock(ctx, caller, ids).await;
        }
        6 => {
            portal.advance(Duration::milliseconds(30_400));
            jobs::expire(ctx).await.unwrap();
        }
        _ => {
            // Covered before is an answer, too.
            let _ = portal.allow(caller, &net).await;
            let allowed = actions::allowed_ips::list(ctx, caller, String::new(), None).await.unwrap();
            let ids = allowed.rows.iter().map(|entry| entry.id).filter(|_| random.below(2) == 0).collect();
            let _ = actions::allowed_ips::delete(ctx, caller, ids, true).await;
        }
    }
}

#[tokio::test]
async fn an_agent_holds_what_the_rows_say_after_anything() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    portal.advance(Duration::microseconds(123_456));
    let (mut eager, mut lazy) = (Held::default(), Held::default());
    let mut random = Random(3);
    assert_eq!(eager.sync(&portal, &agent).await, "snapshot");
    let mut kinds = BTreeMap::new();
    for _ in 0..150 {
        something(&portal, &caller, &agent, &mut random).await;
        *kinds.entry(eager.sync(&portal, &agent).await).or_insert(0) += 1;
        if random.below(10) == 0 {
            lazy.sync(&portal, &agent).await;
        }
        let mut tx = portal.ctx.store().tenant(caller.tenant_id).await.unwrap();
        let rows = store::blocked_ips::entries(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(BanDigest::of(&rows), eager.digest());
    }
    lazy.sync(&portal, &agent).await;
    assert_eq!(lazy.bans, eager.bans);
    assert!(kinds["delta"] > 50 && kinds["current"] > 5, "{kinds:?}");
    assert_eq!(actions::audit::verify(&portal.ctx, &caller).await.unwrap().broken, None);
}

#[tokio::test]
async fn who_holds_something_else_gets_the_whole_set() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    for n in 0..3 {
        portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
    }
    let mut held = Held::default();
    held.sync(&portal, &agent).await;
    for (seq, digest) in [
        (3, Some(BanDigest::default())),
        (3, None),
        (4, held.digest),
        (-1, held.digest),
        (i64::MIN, held.digest),
        (i64::MAX, held.digest),
    ] {
        let sync = agents::bans_since(&portal.ctx, agent.tenant_id, seq, digest).await.unwrap();
        let whole = matches!(&sync, BanSync::Snapshot { seq: 3, bans, .. } if bans.len() == 3);
        // One that is 4 behind 3 changes can't be served from them.
        assert!(whole, "{seq} {digest:?}: {sync:?}");
    }
}

#[tokio::test]
async fn the_policy_s_revision_rises_with_every_change_of_what_is_allowed() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    let revision = async || agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().revision;
    let before = revision().await;
    let id = portal.allow(&caller, "203.0.113.0/28").await.unwrap().id;
    assert_eq!(revision().await, before + 1);
    let form = policy::allowed_ips::AllowedIpForm { target: "203.0.113.0/29".to_owned(), ..Default::default() };
    actions::allowed_ips::edit(&portal.ctx, &caller, id, form, false).await.unwrap();
    assert_eq!(revision().await, before + 2);
    actions::allowed_ips::delete(&portal.ctx, &caller, vec![id], false).await.unwrap();
    assert_eq!(revision().await, before + 3);
    portal.block(&caller, "192.0.2.1").await.unwrap();
    assert!(portal.allow(&caller, "0.0.0.0/0").await.is_err());
    assert_eq!(revision().await, before + 3, "bans and refusals are no policy");
}

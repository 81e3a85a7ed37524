//! PBXes and their agents: tokens once, certificates until revoked, streams replaced, reports stored once.

use policy::ids::{BatchId, PbxId};
use policy::pbxes::{OFFLINE_AFTER_SECONDS, Pbx, PbxState};
use policy::trace_parent::TraceParent;
use store::agents::{AppliedBans, AppliedPolicy, Health, Told};
use store::rollups::Count;
use store::{StoreError, TenantTx};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::world::{NOW, World};

async fn pbx(tx: &mut TenantTx, at: OffsetDateTime) -> Pbx {
    store::pbxes::list(tx, at).await.unwrap().remove(0)
}

#[tokio::test]
async fn names_are_one_a_tenant() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let conflict = store::pbxes::insert(&mut tx, PbxId(Uuid::now_v7()), "hq", NOW).await.unwrap_err();
    assert!(matches!(conflict, StoreError::Conflict { constraint } if constraint == "pbxes_name_key"));
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::pbxes::rename(&mut tx, world.b.pbx, "branch").await.unwrap().as_deref(), Some("hq"));
    assert_eq!(store::pbxes::name(&mut tx, world.b.pbx).await.unwrap().as_deref(), Some("branch"));
}

#[tokio::test]
async fn a_token_works_once_in_time_and_until_replaced() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    let until = NOW + Duration::HOUR;
    assert!(store::pbxes::set_token(&mut tx, world.a.pbx, old, until).await.unwrap());
    assert!(store::pbxes::set_token(&mut tx, world.a.pbx, new, until).await.unwrap());
    assert_eq!(pbx(&mut tx, NOW).await.token_expires_at, Some(until));
    assert_eq!(pbx(&mut tx, until).await.token_expires_at, None);
    assert!(!store::pbxes::use_token(&mut tx, world.a.pbx, old, NOW).await.unwrap(), "replaced");
    assert!(!store::pbxes::use_token(&mut tx, world.a.pbx, new, until).await.unwrap(), "expired");
    assert!(!store::pbxes::use_token(&mut tx, PbxId(Uuid::now_v7()), new, NOW).await.unwrap(), "of another PBX");
    assert!(store::pbxes::use_token(&mut tx, world.a.pbx, new, NOW).await.unwrap());
    assert!(!store::pbxes::use_token(&mut tx, world.a.pbx, new, NOW).await.unwrap(), "used");
}

#[tokio::test]
async fn a_certificate_holds_until_expired_replaced_or_revoked() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let known = async |tx: &mut TenantTx, fingerprint: &[u8], at| {
        store::agents::by_certificate(tx, fingerprint, at).await.unwrap().is_some()
    };
    assert!(known(&mut tx, b"alpha", NOW).await);
    assert!(!known(&mut tx, b"alpha", NOW + Duration::DAY).await, "expired");
    assert!(!known(&mut tx, b"beta", NOW).await, "of another tenant");
    store::agents::insert_certificate(&mut tx, world.a.pbx, b"second", NOW, NOW + Duration::DAY).await.unwrap();
    assert!(known(&mut tx, b"alpha", NOW).await, "until the new one is used");
    assert_eq!(store::agents::revoke_certificates(&mut tx, world.a.pbx, Some(b"second"), NOW).await.unwrap(), 1);
    assert!(!known(&mut tx, b"alpha", NOW).await, "replaced");
    assert!(known(&mut tx, b"second", NOW).await);
    assert!(store::pbxes::revoke(&mut tx, world.a.pbx, NOW).await.unwrap());
    assert!(!store::pbxes::revoke(&mut tx, world.a.pbx, NOW).await.unwrap());
    assert!(!known(&mut tx, b"second", NOW).await, "revoked");
    assert!(!store::pbxes::set_token(&mut tx, world.a.pbx, Uuid::new_v4(), NOW + Duration::HOUR).await.unwrap());
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Revoked);
}

#[tokio::test]
async fn states() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let id = world.a.pbx;
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::WaitingForAgent);
    let token = Uuid::new_v4();
    store::pbxes::set_token(&mut tx, id, token, NOW + Duration::HOUR).await.unwrap();
    store::pbxes::use_token(&mut tx, id, token, NOW).await.unwrap();
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Offline);

    let described = store::agents::Described { agent_version: "0.1.0".to_owned(), ..Default::default() };
    let (first, second, node) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let connected = store::agents::connected(&mut tx, id, (first, node), &described, NOW).await.unwrap();
    assert_eq!(connected.unwrap().older_on, None);
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Offline, "nothing is known of the node");
    tx.commit().await.unwrap();
    store::nodes::beat(&world.db.store, node, NOW).await.unwrap();
    let mut tx = world.tx(world.a).await;
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Online);
    let later = NOW + Duration::seconds(OFFLINE_AFTER_SECONDS);
    let gone = pbx(&mut tx, later).await;
    assert_eq!((gone.state, gone.last_seen_at), (PbxState::Offline, Some(NOW)), "the node fell silent");
    tx.commit().await.unwrap();
    store::nodes::beat(&world.db.store, node, later).await.unwrap();
    let mut tx = world.tx(world.a).await;
    let seen = pbx(&mut tx, later).await;
    assert_eq!((seen.state, seen.last_seen_at), (PbxState::Online, Some(later)));

    let health = Health { bans: 7, registered: 12, dropped: 1, clock_ahead_ms: Some(-3), ..Health::default() };
    let told = Told { health: Some(health), ..Told::default() };
    assert_eq!(store::agents::told(&mut tx, &[(id, first, told)]).await.unwrap(), 1);
    assert_eq!(store::agents::told(&mut tx, &[(id, first, Told::default())]).await.unwrap(), 1);
    let seen = pbx(&mut tx, later).await;
    assert_eq!((seen.bans, seen.registered, seen.dropped, seen.clock_ahead_ms), (7, 12, 1, Some(-3)));

    // A newer stream takes over, and the end of the older one changes nothing.
    let late = later + Duration::seconds(OFFLINE_AFTER_SECONDS);
    let connected = store::agents::connected(&mut tx, id, (first, node), &described, late).await.unwrap();
    assert_eq!(connected.unwrap().older_on, None, "its node is dead");
    let connected = store::agents::connected(&mut tx, id, (second, node), &described, NOW).await.unwrap();
    assert_eq!(connected.unwrap().older_on, Some(node));
    assert_eq!(store::agents::told(&mut tx, &[(id, first, told)]).await.unwrap(), 0);
    assert!(!store::agents::disconnected(&mut tx, id, first, later).await.unwrap());
    assert_eq!(pbx(&mut tx, later).await.state, PbxState::Online);
    assert!(store::agents::disconnected(&mut tx, id, second, later).await.unwrap());
    let seen = pbx(&mut tx, later).await;
    assert_eq!((seen.state, seen.last_seen_at), (PbxState::Offline, Some(later)));
    tx.commit().await.unwrap();
    store::nodes::leave(&world.db.store, node).await.unwrap();
}

#[tokio::test]
async fn a_look_tells_what_concerns_agents() {
    let world = World::new().await;
    let ids = [world.a.id, world.b.id];
    let marks = async || {
        let mut marks = store::nodes::marks(&world.db.store, &ids).await.unwrap();
        marks.sort_by_key(|marks| marks.tenant_id != world.a.id);
        marks
    };
    let before = marks().await;
    assert_eq!(before.iter().map(|marks| marks.tenant_id).collect::<Vec<_>>(), ids);
    let mut tx = world.tx(world.a).await;
    store::tenants::raise_roster(&mut tx).await.unwrap();
    store::tenants::raise_revision(&mut tx, None).await.unwrap();
    tx.commit().await.unwrap();
    let after = marks().await;
    assert_eq!(after[0].roster, before[0].roster + 1);
    assert_eq!(after[0].policy_revision, before[0].policy_revision + 1);
    assert_eq!(after[1], before[1]);
}

#[tokio::test]
async fn what_was_applied_and_refused() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let id = world.a.pbx;
    store::agents::policy_refused(&mut tx, id, "no nftables").await.unwrap();
    assert_eq!(pbx(&mut tx, NOW).await.last_refusal, "no nftables");
    let link = Uuid::new_v4();
    store::agents::connected(&mut tx, id, (link, link), &store::agents::Described::default(), NOW).await.unwrap();
    let bans = Some(AppliedBans { seq: 1, took_us: Some(40) });
    store::agents::told(&mut tx, &[(id, link, Told { bans, ..Told::default() })]).await.unwrap();
    assert_eq!(pbx(&mut tx, NOW).await.last_refusal, "no nftables", "bans are no policy");
    let policy = Some(AppliedPolicy { revision: 1, digest: [0xab; 32], took_us: Some(900) });
    store::agents::told(&mut tx, &[(id, link, Told { policy, ..Told::default() })]).await.unwrap();
    let pbx = pbx(&mut tx, NOW).await;
    assert_eq!((pbx.applied_revision, pbx.last_refusal.as_str(), pbx.applied_took_us), (1, "", 900));
    assert_eq!(pbx.applied_digest, "ab".repeat(32));
    assert_eq!((pbx.applied_ban_seq, pbx.wanted_ban_seq, pbx.wanted_revision), (1, 1, 1));
    let trace = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(store::tenants::raise_revision(&mut tx, trace.as_ref()).await.unwrap(), 2);
    assert_eq!(store::tenants::policy_trace(&mut tx).await.unwrap(), trace);
    store::tenants::raise_revision(&mut tx, None).await.unwrap();
    assert_eq!(store::tenants::policy_trace(&mut tx).await.unwrap(), None, "a trace is one revision's only");
    assert_eq!(store::tenants::policy(&mut tx).await.unwrap().unwrap().0, 3);
}

#[tokio::test]
async fn a_batch_is_stored_once() {
    let world = World::new().await;
    let batch = BatchId(Uuid::now_v7());
    let mut tx = world.tx(world.a).await;
    let (twice, other) = ([(batch, world.a.pbx), (batch, world.a.pbx)], BatchId(Uuid::now_v7()));
    assert_eq!(store::agents::insert_batches(&mut tx, &twice, NOW).await.unwrap(), [batch].into());
    let again = [(batch, world.a.pbx), (other, world.a.pbx)];
    assert_eq!(store::agents::insert_batches(&mut tx, &again, NOW).await.unwrap(), [other].into());
    tx.commit().await.unwrap();
    // The id is of the tenant: another one's isn't taken by it.
    let mut tx = world.tx(world.b).await;
    assert!(!store::agents::insert_batches(&mut tx, &[(batch, world.b.pbx)], NOW).await.unwrap().is_empty());
}

#[tokio::test]
async fn charts_add_up_and_leave_no_hour_out() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let count = |at, attempts, bans| Count { pbx_id: world.a.pbx, at, attempts, bans };
    let counts = [
        count(NOW + Duration::minutes(2), 4, 0),
        count(NOW - Duration::minutes(1), 3, 0),
        count(NOW + Duration::minutes(3), 5, 1),
        count(NOW - Duration::hours(24), 99, 9),
    ];
    store::rollups::add(&mut tx, &counts).await.unwrap();
    store::rollups::add(&mut tx, &[count(NOW + Duration::minutes(2), 1, 1)]).await.unwrap();
    let day = store::rollups::last_day(&mut tx, NOW + Duration::minutes(30)).await.unwrap();
    assert_eq!(day.len(), 24);
    assert_eq!(
        day.iter().map(|hour| (hour.attempts, hour.bans)).filter(|sums| *sums != (0, 0)).collect::<Vec<_>>(),
        [(3, 0), (15, 3)]
    );
    assert_eq!(store::rollups::attempts_since(&mut tx, NOW).await.unwrap(), 15);
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::rollups::attempts_since(&mut tx, NOW - Duration::DAY).await.unwrap(), 5);
}

#[tokio::test]
async fn another_tenant_changes_nothing() {
    let world = World::new().await;
    let id = world.a.pbx;
    let link = Uuid::new_v4();
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::pbxes::name(&mut tx, id).await.unwrap(), None);
    assert_eq!(store::pbxes::rename(&mut tx, id, "stolen").await.unwrap(), None);
    assert!(!store::pbxes::set_token(&mut tx, id, link, NOW).await.unwrap());
    assert!(!store::pbxes::revoke(&mut tx, id, NOW).await.unwrap());
    assert!(!store::pbxes::remove(&mut tx, id).await.unwrap());
    let described = store::agents::Described::default();
    assert_eq!(store::agents::connected(&mut tx, id, (link, link), &described, NOW).await.unwrap(), None);
    store::agents::policy_refused(&mut tx, id, "x").await.unwrap();
    assert!(store::agents::insert_batches(&mut tx, &[(BatchId(link), id)], NOW).await.is_err());
    drop(tx);
    let mut tx = world.tx(world.a).await;
    let pbx = pbx(&mut tx, NOW).await;
    assert_eq!((pbx.name.as_str(), pbx.last_refusal.as_str(), pbx.state), ("hq", "", PbxState::WaitingForAgent));
}

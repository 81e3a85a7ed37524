//! PBXes and their agents: tokens once, certificates until revoked, streams replaced, reports stored once.

use policy::ids::{BatchId, PbxId};
use policy::pbxes::{OFFLINE_AFTER_SECONDS, Pbx, PbxState};
use store::agents::Health;
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
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(store::agents::connected(&mut tx, id, first, &described, NOW).await.unwrap());
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Online);
    assert_eq!(pbx(&mut tx, NOW + Duration::seconds(OFFLINE_AFTER_SECONDS)).await.state, PbxState::Offline);
    let health = Health { bans: 7, registered: 12, dropped: 1, ..Health::default() };
    let heard = store::agents::heard(&mut tx, &[(id, first, health)], NOW + Duration::seconds(10)).await.unwrap();
    assert_eq!(heard, 1);
    assert_eq!(pbx(&mut tx, NOW + Duration::seconds(OFFLINE_AFTER_SECONDS)).await.state, PbxState::Online);

    // A newer stream takes over, and the end of the older one changes nothing.
    assert!(store::agents::connected(&mut tx, id, second, &described, NOW).await.unwrap());
    assert_eq!(store::agents::heard(&mut tx, &[(id, first, Health::default())], NOW).await.unwrap(), 0);
    assert!(!store::agents::disconnected(&mut tx, id, first).await.unwrap());
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Online);
    assert!(store::agents::disconnected(&mut tx, id, second).await.unwrap());
    assert_eq!(pbx(&mut tx, NOW).await.state, PbxState::Offline);
}

#[tokio::test]
async fn what_was_applied_and_refused() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let id = world.a.pbx;
    store::agents::policy_refused(&mut tx, id, "no nftables").await.unwrap();
    assert_eq!(pbx(&mut tx, NOW).await.last_refusal, "no nftables");
    store::agents::policy_applied(&mut tx, id, 1, &[0xab, 0x01], Some(900)).await.unwrap();
    store::agents::bans_applied(&mut tx, id, 1, Some(40)).await.unwrap();
    let pbx = pbx(&mut tx, NOW).await;
    assert_eq!((pbx.applied_revision, pbx.applied_digest.as_str(), pbx.last_refusal.as_str()), (1, "ab01", ""));
    assert_eq!((pbx.applied_ban_seq, pbx.wanted_ban_seq, pbx.wanted_revision), (1, 1, 1));
    assert_eq!(store::tenants::raise_revision(&mut tx).await.unwrap(), 2);
    assert_eq!(store::tenants::policy(&mut tx).await.unwrap().unwrap().0, 2);
}

#[tokio::test]
async fn a_batch_is_stored_once() {
    let world = World::new().await;
    let batch = BatchId(Uuid::now_v7());
    let mut tx = world.tx(world.a).await;
    assert!(store::agents::insert_batch(&mut tx, world.a.pbx, batch, NOW).await.unwrap());
    assert!(!store::agents::insert_batch(&mut tx, world.a.pbx, batch, NOW).await.unwrap());
    tx.commit().await.unwrap();
    // The id is of the tenant: another one's isn't taken by it.
    let mut tx = world.tx(world.b).await;
    assert!(store::agents::insert_batch(&mut tx, world.b.pbx, batch, NOW).await.unwrap());
}

#[tokio::test]
async fn charts_add_up_and_leave_no_hour_out() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    store::rollups::add(&mut tx, world.a.pbx, NOW + Duration::minutes(2), 10, 2).await.unwrap();
    store::rollups::add(&mut tx, world.a.pbx, NOW - Duration::minutes(1), 3, 0).await.unwrap();
    store::rollups::add(&mut tx, world.a.pbx, NOW - Duration::hours(24), 99, 9).await.unwrap();
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
    assert!(!store::agents::connected(&mut tx, id, link, &store::agents::Described::default(), NOW).await.unwrap());
    store::agents::policy_refused(&mut tx, id, "x").await.unwrap();
    assert!(store::agents::insert_batch(&mut tx, id, BatchId(link), NOW).await.is_err());
    drop(tx);
    let mut tx = world.tx(world.a).await;
    let pbx = pbx(&mut tx, NOW).await;
    assert_eq!((pbx.name.as_str(), pbx.last_refusal.as_str(), pbx.state), ("hq", "", PbxState::WaitingForAgent));
}

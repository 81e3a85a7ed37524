//! Hints that something changed, where somebody carries them to the other nodes; and what tells those who missed one.

use actions::bus::{Bus, Change, Topic};
use actions::{pbxes, standing};

use crate::portal::Portal;

#[tokio::test]
async fn this_node_hears_every_change_and_the_others_what_there_is_room_for() {
    let (bus, mut delivered) = Bus::with_room(1);
    let portal = Portal::on(bus).await;
    let caller = portal.tenant("acme").await;
    while delivered.try_recv().is_ok() {}
    let mut heard = portal.ctx.bus().subscribe();
    portal.block(&caller, "203.0.113.9").await.unwrap();
    let topics: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).map(|change| change.topic).collect();
    assert_eq!(topics, [Topic::Bans, Topic::BlockedIps, Topic::Audit]);
    let first = Change { tenant_id: Some(caller.tenant_id), topic: Topic::Bans };
    assert_eq!(delivered.try_recv(), Ok(first));
    assert!(delivered.try_recv().is_err(), "there was room for one");

    portal.block(&caller, "no address").await.unwrap_err();
    let topics: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).map(|change| change.topic).collect();
    assert_eq!(topics, [Topic::Audit], "nothing else has changed");

    drop(delivered);
    portal.block(&caller, "203.0.113.10").await.expect("nobody who carries is no reason to fail");
}

#[tokio::test]
async fn who_missed_a_hint_sees_what_has_changed() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let mut seen = standing::read(&portal.ctx, caller.tenant_id).await.unwrap();
    let mut changed = async || {
        let now = standing::read(&portal.ctx, caller.tenant_id).await.unwrap();
        standing::between(&std::mem::replace(&mut seen, now.clone()), &now)
    };
    assert_eq!(changed().await, []);
    portal.block(&caller, "203.0.113.9").await.unwrap();
    assert_eq!(changed().await, [Topic::Bans, Topic::BlockedIps, Topic::Audit, Topic::People]);
    portal.allow(&caller, "198.51.100.0/24").await.unwrap();
    assert_eq!(changed().await, [Topic::Policy, Topic::AllowedIps, Topic::Audit, Topic::People]);
    pbxes::add(&portal.ctx, &caller, "hq".to_owned()).await.unwrap();
    assert_eq!(changed().await, [Topic::Audit, Topic::People, Topic::Pbxes]);
    let heartbeat = sqlx::query("UPDATE pbxes SET last_seen_at = now(), bans = 7, registered = 7, proven_at = now()");
    heartbeat.execute(&mut portal.admin().await).await.unwrap();
    assert_eq!(changed().await, [], "what comes with every heartbeat is no change");
    sqlx::query("UPDATE pbxes SET applied_revision = 2").execute(&mut portal.admin().await).await.unwrap();
    assert_eq!(changed().await, [Topic::Pbxes]);
}

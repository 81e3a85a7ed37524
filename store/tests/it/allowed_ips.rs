//! Allowed IPs: kept once, found by what people type, gone when their time is over.

use policy::allowed_ips::AllowedTarget;
use policy::ids::AllowedIpId;
use store::StoreError;
use store::allowed_ips::Search;
use store::blocked_ips::NetRange;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, World, allow};

#[tokio::test]
async fn the_same_target_is_kept_once_in_a_tenant() {
    let world = World::new().await;
    for (target, constraint) in
        [("203.0.113.0/24", "allowed_ips_net_key"), ("sip.example.com", "allowed_ips_domain_key")]
    {
        let mut tx = world.tx(world.a).await;
        if target == "sip.example.com" {
            store::allowed_ips::insert(&mut tx, AllowedIpId(Uuid::now_v7()), &allow(target), "ann", NOW).await.unwrap();
        }
        let conflict = store::allowed_ips::insert(&mut tx, AllowedIpId(Uuid::now_v7()), &allow(target), "ann", NOW)
            .await
            .unwrap_err();
        assert!(matches!(conflict, StoreError::Conflict { constraint: name } if name == constraint));
    }
    // The world holds it in both tenants.
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::allowed_ips::all(&mut tx).await.unwrap().len(), 1);
}

#[tokio::test]
async fn list_search_update_delete() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let domain = AllowedIpId(Uuid::now_v7());
    store::allowed_ips::insert(&mut tx, domain, &allow("Sip.Example.com"), "ann", NOW + Duration::SECOND)
        .await
        .unwrap();
    let list = async |tx: &mut store::TenantTx, search: Search| -> Vec<String> {
        let entries = store::allowed_ips::list(tx, &search, None, 10).await.unwrap();
        assert_eq!(store::allowed_ips::count(tx, &search).await.unwrap(), i64::try_from(entries.len()).unwrap());
        entries.into_iter().map(|entry| entry.target.to_string()).collect()
    };
    let holds = |text: &str| Search { word: Some(text.to_owned()), ..Search::default() };
    assert_eq!(list(&mut tx, Search::default()).await, ["sip.example.com", "203.0.113.0/24"]);
    assert_eq!(list(&mut tx, holds("EXAMPLE")).await, ["sip.example.com"]);
    assert_eq!(list(&mut tx, holds("office")).await.len(), 2);
    assert_eq!(list(&mut tx, holds("o%e")).await.len(), 0);
    let range = Some(NetRange::of("203.0.113.7/32".parse().unwrap()));
    assert_eq!(list(&mut tx, Search { range, ..Search::default() }).await, ["203.0.113.0/24"]);

    store::allowed_ips::update(&mut tx, domain, &allow("192.0.2.1")).await.unwrap();
    let entry = store::allowed_ips::by_id(&mut tx, domain).await.unwrap().unwrap();
    assert_eq!(
        (entry.target.to_string(), entry.created_by.as_str(), entry.created_at),
        ("192.0.2.1".to_owned(), "ann", NOW + Duration::SECOND)
    );
    assert_eq!(store::allowed_ips::delete(&mut tx, &[domain, domain]).await.unwrap().len(), 1);
    assert!(store::allowed_ips::delete(&mut tx, &[domain]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_has_expired_is_neither_enforced_nor_overlapping_nor_kept() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let mut draft = allow("192.0.2.0/24");
    draft.expires_at = Some(NOW + Duration::HOUR);
    store::allowed_ips::insert(&mut tx, AllowedIpId(Uuid::now_v7()), &draft, "ann", NOW).await.unwrap();
    let net = "192.0.2.7/32".parse().unwrap();
    let (before, after) = (NOW + Duration::minutes(59), NOW + Duration::HOUR);
    assert_eq!(
        store::allowed_ips::overlapping(&mut tx, net, before).await.unwrap(),
        Some("192.0.2.0/24".parse().unwrap())
    );
    assert_eq!(store::allowed_ips::overlapping(&mut tx, net, after).await.unwrap(), None);
    assert_eq!(store::allowed_ips::entries(&mut tx, before).await.unwrap().len(), 2);
    assert_eq!(store::allowed_ips::entries(&mut tx, after).await.unwrap().len(), 1);
    assert!(store::allowed_ips::delete_expired(&mut tx, before).await.unwrap().is_empty());
    assert_eq!(store::allowed_ips::delete_expired(&mut tx, after).await.unwrap(), [draft.target]);
}

#[tokio::test]
async fn another_tenant_sees_and_changes_nothing() {
    let world = World::new().await;
    let mut tx = world.tx(world.b).await;
    assert!(store::allowed_ips::by_id(&mut tx, world.a.allowed).await.unwrap().is_none());
    store::allowed_ips::update(&mut tx, world.a.allowed, &allow("192.0.2.1")).await.unwrap();
    assert!(store::allowed_ips::delete(&mut tx, &[world.a.allowed]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    let mut tx = world.tx(world.a).await;
    let entry = store::allowed_ips::by_id(&mut tx, world.a.allowed).await.unwrap().unwrap();
    assert_eq!(entry.target, AllowedTarget::Net("203.0.113.0/24".parse().unwrap()));
}

//! Bans: kept once a network, ended once, found by what people type, paged without gaps.

use policy::blocked_ips::BanSource;
use policy::ids::{BanId, PbxId};
use store::StoreError;
use store::blocked_ips::{NetRange, NewBan, Search};
use time::Duration;

use crate::world::{NOW, Tenant, World, ban, insert};

async fn found(world: &World, tenant: Tenant, search: Search) -> Vec<String> {
    let mut tx = world.tx(tenant).await;
    let bans = store::blocked_ips::list(&mut tx, &search, None, 100).await.unwrap();
    assert_eq!(store::blocked_ips::count(&mut tx, &search).await.unwrap(), i64::try_from(bans.len()).unwrap());
    bans.into_iter().map(|ban| policy::net::display(&ban.net)).collect()
}

fn word(text: &str) -> Search {
    Search { word: Some(text.to_owned()), ..Search::default() }
}

#[tokio::test]
async fn one_ban_a_network_at_a_time() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let conflict = insert(&mut tx, &ban("198.51.100.7", NOW)).await.unwrap_err();
    assert!(matches!(conflict, StoreError::Conflict { constraint } if constraint == "blocked_ips_net_key"));
    tx.rollback().await.unwrap();

    let mut tx = world.tx(world.a).await;
    let (id, entry) = store::blocked_ips::holding(&mut tx, &["198.51.100.7/32".parse().unwrap()])
        .await
        .unwrap()
        .into_values()
        .next()
        .unwrap();
    assert_eq!(id, world.a.ban);
    assert_eq!(store::blocked_ips::end(&mut tx, &[id], "ann", NOW).await.unwrap(), [entry]);
    assert_eq!(store::blocked_ips::end(&mut tx, &[id], "ann", NOW).await.unwrap(), []);
    let again = ban("198.51.100.7", NOW + Duration::HOUR);
    insert(&mut tx, &again).await.unwrap();
    assert_eq!(store::blocked_ips::times_banned(&mut tx, &[entry.net]).await.unwrap()[&entry.net], 2);
    let earlier = store::blocked_ips::earlier(&mut tx, entry.net, again.id, 20).await.unwrap();
    assert_eq!(earlier.iter().map(|ban| (ban.id, ban.expires_at)).collect::<Vec<_>>(), [(id, Some(NOW))]);
    assert_eq!(store::blocked_ips::entries(&mut tx).await.unwrap(), [again.entry]);
    assert!(store::blocked_ips::known(&mut tx, &[id]).await.unwrap().contains(&id));
}

#[tokio::test]
async fn evidence_and_names_come_back() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let (ban, evidence) = store::blocked_ips::by_id(&mut tx, world.a.ban).await.unwrap().unwrap();
    assert_eq!((ban.pbx_name.as_deref(), ban.source, evidence.len()), (Some("hq"), BanSource::Detection, 0));
    store::pbxes::remove(&mut tx, world.a.pbx).await.unwrap();
    let (ban, _) = store::blocked_ips::by_id(&mut tx, world.a.ban).await.unwrap().unwrap();
    assert_eq!((ban.pbx_id, ban.pbx_name), (None, None), "a ban outlives its PBX");
}

#[tokio::test]
async fn searches() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let manual = NewBan {
        source: BanSource::Manual,
        reason: "Scans 100%_sure ÄRGER".to_owned(),
        account: None,
        ..ban("203.0.113.0/24", NOW + Duration::SECOND)
    };
    insert(&mut tx, &manual).await.unwrap();
    let wide = NewBan {
        reason: "x".repeat(5_000),
        account: Some("y".repeat(5_000)),
        ..ban("2001:db8::/64", NOW + Duration::MINUTE)
    };
    insert(&mut tx, &wide).await.unwrap();
    tx.commit().await.unwrap();

    let all = ["2001:db8::/64", "203.0.113.0/24", "198.51.100.7"];
    assert_eq!(found(&world, world.a, Search::default()).await, all);
    assert_eq!(found(&world, world.a, word("1007")).await, ["198.51.100.7"]);
    assert_eq!(found(&world, world.a, word("SCANS")).await, ["203.0.113.0/24"]);
    assert_eq!(found(&world, world.a, word("ärger")).await, ["203.0.113.0/24"]);
    assert_eq!(found(&world, world.a, word("0%_s")).await, ["203.0.113.0/24"]);
    for none in ["1007%", "\\", "' OR true --"] {
        assert_eq!(found(&world, world.a, word(none)).await, Vec::<String>::new(), "{none}");
    }
    for no_wildcard in ["%", "_"] {
        assert_eq!(found(&world, world.a, word(no_wildcard)).await, ["203.0.113.0/24"], "{no_wildcard}");
    }
    assert_eq!(
        found(&world, world.a, Search { source: Some(BanSource::Manual), ..Search::default() }).await,
        ["203.0.113.0/24"]
    );
    assert_eq!(
        found(&world, world.a, Search { pbx_id: Some(world.a.pbx), ..Search::default() }).await,
        ["198.51.100.7"]
    );
    assert_eq!(
        found(&world, world.a, Search { pbx_id: Some(world.b.pbx), ..Search::default() }).await,
        Vec::<String>::new()
    );
    let range = NetRange::of("203.0.113.9/32".parse().unwrap());
    assert_eq!(found(&world, world.a, Search { range: Some(range), ..word("scans") }).await, ["203.0.113.0/24"]);
}

#[tokio::test]
async fn pages_have_no_gap_and_no_duplicate() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    for n in 0..25 {
        // Many at the same instant: the id decides between them.
        insert(&mut tx, &ban(&format!("192.0.2.{n}"), NOW + Duration::seconds(n / 10))).await.unwrap();
    }
    let whole = store::blocked_ips::list(&mut tx, &Search::default(), None, 100).await.unwrap();
    let whole: Vec<BanId> = whole.iter().map(|ban| ban.id).collect();
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = store::blocked_ips::list(&mut tx, &Search::default(), before, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.created_at, last.id));
        pages.extend(page.iter().map(|ban| ban.id));
    }
    assert_eq!(pages, whole);
    assert_eq!(whole.len(), 26);
}

#[tokio::test]
async fn bans_end_when_their_time_is_over() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let mut forever = ban("192.0.2.1", NOW);
    forever.entry.expires_at = None;
    insert(&mut tx, &forever).await.unwrap();
    let due = NOW + Duration::HOUR;
    assert!(store::blocked_ips::end_expired(&mut tx, due - Duration::SECOND, 10).await.unwrap().is_empty());
    assert_eq!(store::blocked_ips::end_expired(&mut tx, due, 10).await.unwrap().len(), 1);
    assert_eq!(store::blocked_ips::entries(&mut tx).await.unwrap(), [forever.entry]);
}

#[tokio::test]
async fn what_blocks_an_address() {
    let world = World::new().await;
    let address = "198.51.100.7/32".parse().unwrap();
    let covering = async |tenant, at| {
        let mut tx = world.tx(tenant).await;
        let net = store::blocked_ips::covering(&mut tx, address, at).await.unwrap();
        net.map(|net| policy::net::display(&net))
    };
    assert_eq!(covering(world.a, NOW).await.as_deref(), Some("198.51.100.7"));
    let mut tx = world.tx(world.a).await;
    for net in ["198.51.100.0/24", "198.51.101.0/24"] {
        insert(&mut tx, &ban(net, NOW + Duration::MINUTE)).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(covering(world.a, NOW).await.as_deref(), Some("198.51.100.0/24"));
    assert_eq!(covering(world.a, NOW + Duration::hours(2)).await, None, "their time is over");
    assert_eq!(covering(world.b, NOW).await.as_deref(), Some("198.51.100.7"), "its own");
}

#[tokio::test]
async fn another_tenant_sees_and_ends_nothing() {
    let world = World::new().await;
    let mut tx = world.tx(world.b).await;
    assert!(store::blocked_ips::by_id(&mut tx, world.a.ban).await.unwrap().is_none());
    assert!(store::blocked_ips::known(&mut tx, &[world.a.ban]).await.unwrap().is_empty());
    assert!(store::blocked_ips::end(&mut tx, &[world.a.ban], "bob", NOW).await.unwrap().is_empty());
    assert_eq!(found(&world, world.b, Search::default()).await, ["198.51.100.7"]);
    // Nor can a ban name another tenant's PBX.
    let stranger = NewBan { pbx_id: Some(PbxId(world.a.pbx.0)), ..ban("192.0.2.1", NOW) };
    assert!(insert(&mut tx, &stranger).await.is_err());
}

#[tokio::test]
async fn changes_are_numbered_without_holes() {
    use policy::bans::{BanChange, BanDigest, BanEntry};
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let set = store::ban_set::lock(&mut tx).await.unwrap();
    assert_eq!(set.seq, 1);
    let entry = BanEntry { net: "192.0.2.1/32".parse().unwrap(), expires_at: None };
    let changes = [BanChange::Add(entry), BanChange::Remove(entry.net)];
    let after = store::ban_set::append(&mut tx, &set, &changes, BanDigest::of([&entry])).await.unwrap();
    assert_eq!(store::ban_set::read(&mut tx).await.unwrap(), after);
    assert_eq!((after.seq, after.digest), (3, BanDigest::of([&entry])));
    assert_eq!(store::ban_set::changes_after(&mut tx, 1, 10).await.unwrap(), Some(changes.to_vec()));
    assert_eq!(store::ban_set::changes_after(&mut tx, 3, 10).await.unwrap(), Some(Vec::new()));
    tx.commit().await.unwrap();
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::ban_set::hold(&mut tx).await.unwrap().seq, 1);
    assert_eq!(store::ban_set::changes_after(&mut tx, 1, 10).await.unwrap(), Some(Vec::new()));
}

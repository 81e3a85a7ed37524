//! Sessions, mails, notifications, jobs and sealed secrets.

use store::notify::Listener;
use store::secrets::SealedSecret;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, World, connect};

#[tokio::test]
async fn a_session_that_ended_never_comes_back() {
    let world = World::new().await;
    let store = &world.db.store;
    let until = NOW + Duration::HOUR;
    let data = serde_json::json!({"step": 1});
    assert!(store::sessions::create(store, b"token", Some(world.a.user), &data, NOW, until, NOW).await.unwrap());
    assert!(!store::sessions::create(store, b"token", None, &data, NOW, until, NOW).await.unwrap(), "the id is taken");
    let row = store::sessions::load(store, b"token", NOW).await.unwrap().unwrap();
    assert_eq!((row.data, row.created_at, row.expires_at), (data.clone(), NOW, until));
    assert!(store::sessions::load(store, b"token", until).await.unwrap().is_none());
    assert!(
        store::sessions::update(
            store,
            b"token",
            Some(world.a.user),
            &serde_json::json!({"step": 2}),
            until + Duration::HOUR,
            NOW
        )
        .await
        .unwrap()
    );
    assert_eq!(store::sessions::load(store, b"token", until).await.unwrap().unwrap().data["step"], 2);

    let mut tx = store.platform().await.unwrap();
    store::sessions::delete_of_user(&mut tx, world.b.user, NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store::sessions::load(store, b"token", NOW).await.unwrap().is_some());
    let mut tx = store.platform().await.unwrap();
    store::sessions::delete_of_user(&mut tx, world.a.user, NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!store::sessions::update(store, b"token", Some(world.a.user), &data, until, NOW).await.unwrap());
    assert!(store::sessions::load(store, b"token", NOW).await.unwrap().is_none());
}

#[tokio::test]
async fn a_mail_is_taken_by_one_node_and_forgotten_when_sent() {
    let world = World::new().await;
    let store = &world.db.store;
    let mut tx = store.platform().await.unwrap();
    store::mails::insert(&mut tx, "ann@alpha.example", "Hello", "the token", NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store::mails::take_due(store, NOW - Duration::SECOND, NOW).await.unwrap().is_none());
    let retry = NOW + Duration::MINUTE;
    let mail = store::mails::take_due(store, NOW, retry).await.unwrap().unwrap();
    assert_eq!((mail.tries, mail.body.as_str()), (1, "the token"));
    assert!(store::mails::take_due(store, NOW, retry).await.unwrap().is_none(), "another node has it");
    store::mails::failed(store, mail.id, "no route", retry).await.unwrap();
    assert!(store::mails::take_due(store, retry, retry + Duration::MINUTE).await.unwrap().is_some());
    assert_eq!(store::mails::newest(store, 5).await.unwrap().len(), 1);
    store::mails::sent(store, mail.id, NOW).await.unwrap();
    assert!(store::mails::newest(store, 5).await.unwrap().is_empty());
    assert!(store::mails::take_due(store, NOW + Duration::DAY, NOW).await.unwrap().is_none());
}

#[tokio::test]
async fn hints_come_from_other_nodes() {
    let world = World::new().await;
    let store = &world.db.store;
    let (node, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut listener = Listener::start(store, node).await.unwrap();
    store::notify::publish(store, node, [(world.a.id, "bans")]).await.unwrap();
    store::notify::publish(store, other, [(world.a.id, "bans"), (world.b.id, "policy")]).await.unwrap();
    // As nodes of earlier versions say it.
    let older = sqlx::query("SELECT pg_notify('ringfence', $1)").bind(format!("{}:audit", world.b.id));
    older.execute(&mut connect(&world.db.admin_url).await).await.unwrap();
    for (tenant, topic) in [(world.a.id, "bans"), (world.b.id, "policy"), (world.b.id, "audit")] {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(10), listener.next()).await.unwrap().unwrap();
        assert_eq!(heard, Some((tenant, topic.to_owned())));
    }
}

#[tokio::test]
async fn jobs_find_the_tenants_with_something_due() {
    let world = World::new().await;
    let store = &world.db.store;
    assert!(store::jobs::tenants_with_expired(store, NOW).await.unwrap().is_empty());
    let mut due = store::jobs::tenants_with_expired(store, NOW + Duration::HOUR).await.unwrap();
    due.sort_unstable();
    assert_eq!(due, [world.a.id, world.b.id]);
    assert_eq!(store::jobs::all_tenants(store).await.unwrap().len(), 3, "the installation's own included");
    store::jobs::sweep_platform(store, NOW).await.unwrap();
    store::jobs::sweep_tenant(store, world.a.id, NOW + Duration::days(91)).await.unwrap();
    let mut tx = world.tx(world.a).await;
    assert_eq!(store::rollups::attempts_since(&mut tx, NOW - Duration::DAY).await.unwrap(), 0);
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::rollups::attempts_since(&mut tx, NOW - Duration::DAY).await.unwrap(), 5);
}

#[tokio::test]
async fn of_two_nodes_that_keep_a_secret_one_wins() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    for sealed in [b"first".to_vec(), b"second".to_vec()] {
        let secret = SealedSecret { key_id: "key".to_owned(), sealed };
        store::secrets::put_new(&mut tx, "ca", &secret, NOW).await.unwrap();
    }
    assert_eq!(store::secrets::get(&mut tx, "ca").await.unwrap().unwrap().sealed, b"first");
    assert!(store::secrets::get(&mut tx, "other").await.unwrap().is_none());
}

//! People: accounts, memberships, codes, links, guesses.

use policy::authz::Role;
use policy::ids::UserId;
use store::StoreError;
use store::people::{self, SignUp};
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, World};

#[tokio::test]
async fn an_email_address_is_one_account() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    let user = people::by_email(&mut tx, "ann@alpha.example").await.unwrap().unwrap();
    assert_eq!(user.id, world.a.user);
    let conflict = people::insert(&mut tx, UserId(Uuid::now_v7()), "ann@alpha.example", "x", NOW).await.unwrap_err();
    assert!(matches!(conflict, StoreError::Conflict { constraint } if constraint == "users_email_key"));
}

#[tokio::test]
async fn totp_steps_go_forward_and_a_proven_seed_stays() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    let id = world.a.user;
    assert!(people::set_totp(&mut tx, id, b"seed", "key", 99, NOW).await.unwrap());
    assert!(!people::set_totp(&mut tx, id, b"another", "key", 200, NOW).await.unwrap());
    for (step, fresh) in [(99, false), (100, true), (100, false), (99, false), (101, true)] {
        assert_eq!(people::use_totp_step(&mut tx, id, step).await.unwrap(), fresh, "{step}");
    }
    let user = people::by_id(&mut tx, id).await.unwrap().unwrap();
    assert_eq!(user.totp, Some((b"seed".to_vec(), "key".to_owned())));
}

#[tokio::test]
async fn a_recovery_code_works_once_and_for_its_owner() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    people::set_recovery_codes(&mut tx, world.a.user, &[b"one".to_vec(), b"two".to_vec()]).await.unwrap();
    assert!(!people::use_recovery_code(&mut tx, world.b.user, b"one", NOW).await.unwrap());
    assert!(people::use_recovery_code(&mut tx, world.a.user, b"one", NOW).await.unwrap());
    assert!(!people::use_recovery_code(&mut tx, world.a.user, b"one", NOW).await.unwrap());
    people::set_recovery_codes(&mut tx, world.a.user, &[b"three".to_vec()]).await.unwrap();
    assert!(!people::use_recovery_code(&mut tx, world.a.user, b"two", NOW).await.unwrap(), "replaced");
}

#[tokio::test]
async fn a_person_sees_her_own_memberships_and_no_others() {
    let world = World::new().await;
    let mut tx = world.tx(world.b).await;
    store::members::insert(&mut tx, world.a.user, Role::Auditor, "", NOW).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.db.store.person(world.a.user).await.unwrap();
    let hers: Vec<_> =
        people::memberships(&mut tx, world.a.user).await.unwrap().into_iter().map(|m| (m.slug, m.role)).collect();
    assert_eq!(hers, [("alpha".to_owned(), Role::SuperAdministrator), ("beta".to_owned(), Role::Auditor)]);
    assert!(people::memberships(&mut tx, world.b.user).await.unwrap().is_empty());
    let mut nobody = world.db.store.platform().await.unwrap();
    assert!(people::memberships(&mut nobody, world.a.user).await.unwrap().is_empty());
}

#[tokio::test]
async fn links_work_once_and_in_time() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    let sign_up = SignUp {
        organisation: "Gamma".to_owned(),
        slug: "gamma".to_owned(),
        email: "g@g.example".to_owned(),
        password_hash: "x".to_owned(),
    };
    let until = NOW + Duration::HOUR;
    people::insert_sign_up(&mut tx, b"token", &sign_up, until).await.unwrap();
    for (token, at) in [(&b"token"[..], until), (b"other", NOW)] {
        assert!(people::find_sign_up(&mut tx, token, at).await.unwrap().is_none(), "expired or another");
        assert!(!people::take_sign_up(&mut tx, token, at).await.unwrap(), "expired or another");
    }
    assert_eq!(people::find_sign_up(&mut tx, b"token", NOW).await.unwrap().unwrap().slug, "gamma");
    assert!(people::take_sign_up(&mut tx, b"token", NOW).await.unwrap());
    assert!(!people::take_sign_up(&mut tx, b"token", NOW).await.unwrap(), "used");
    assert!(people::find_sign_up(&mut tx, b"token", NOW).await.unwrap().is_none(), "used");

    people::insert_reset(&mut tx, b"reset", world.a.user, until).await.unwrap();
    assert_eq!(people::find_reset(&mut tx, b"reset", until).await.unwrap(), None, "expired");
    assert_eq!(people::find_reset(&mut tx, b"reset", NOW).await.unwrap(), Some(world.a.user));
    people::delete_resets(&mut tx, world.b.user).await.unwrap();
    assert_eq!(
        people::find_reset(&mut tx, b"reset", NOW).await.unwrap(),
        Some(world.a.user),
        "found as often as asked"
    );
    people::delete_resets(&mut tx, world.a.user).await.unwrap();
    assert_eq!(people::find_reset(&mut tx, b"reset", NOW).await.unwrap(), None);
    assert!(
        people::slug_taken(&mut tx, "alpha").await.unwrap() && !people::slug_taken(&mut tx, "gamma").await.unwrap()
    );
}

#[tokio::test]
async fn guesses_add_up_until_forgotten() {
    let world = World::new().await;
    let mut tx = world.db.store.platform().await.unwrap();
    let at = |minutes| NOW + Duration::minutes(minutes);
    for minute in 0..3 {
        people::count_guess(&mut tx, "code ann", at(minute), at(minute - 60)).await.unwrap();
    }
    assert_eq!(people::guesses(&mut tx, "code ann").await.unwrap(), Some((3, at(2))));
    assert_eq!(people::guesses(&mut tx, "code bob").await.unwrap(), None);
    people::count_guess(&mut tx, "code ann", at(90), at(30)).await.unwrap();
    assert_eq!(people::guesses(&mut tx, "code ann").await.unwrap(), Some((1, at(90))));
    people::clear_guesses(&mut tx, "code ann").await.unwrap();
    assert_eq!(people::guesses(&mut tx, "code ann").await.unwrap(), None);
}

//! Guesses at passwords: what they cost the guesser, and what they must not cost anybody else.

use actions::{ActError, Visitor, account, sign_up};
use policy::account::Stage;
use policy::audit::Outcome;
use time::Duration;

use crate::portal::{PASSWORD, Portal, address, field_error, form, visitor};

fn from(text: &str) -> Visitor {
    Visitor { address: address(text), login: None }
}

/// A wrong password; how long to wait when it isn't even looked at.
async fn wrong(portal: &Portal, visitor: &Visitor, email: &str) -> Option<Duration> {
    match account::log_in(&portal.ctx, visitor, email, "wrong", None).await {
        Err(ActError::TooMany { retry_after_seconds }) => Some(Duration::seconds(retry_after_seconds.cast_signed())),
        refused => {
            field_error(refused, "password");
            None
        }
    }
}

/// Wrong passwords for these accounts, each as soon as it is looked at.
async fn spray(portal: &Portal, visitor: &Visitor, emails: impl Iterator<Item = String>) {
    for email in emails {
        while let Some(wait) = wrong(portal, visitor, &email).await {
            portal.advance(wait);
        }
    }
}

/// Somebody's way in that is right.
async fn right(portal: &Portal, visitor: &Visitor, email: &str, pass: Option<&str>) -> Result<Stage, ActError> {
    account::log_in(&portal.ctx, visitor, email, PASSWORD, pass).await.map(|login| login.stage)
}

/// What happens beside an answer.
async fn soon<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(there) = look().await {
            return there;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it does not happen");
}

#[tokio::test]
async fn who_mistypes_waits_a_little() {
    let portal = Portal::new().await;
    let ann = portal.person("acme").await;
    for (visitor, email) in [(visitor(None), ann.email.as_str()), (from("198.51.100.77"), "nobody@acme.example")] {
        for _ in 0..4 {
            assert_eq!(wrong(&portal, &visitor, email).await, None);
        }
        let refused = right(&portal, &visitor, email, None).await;
        assert!(matches!(refused, Err(ActError::TooMany { retry_after_seconds: 2 })), "known or not: {refused:?}");
    }
    portal.advance(Duration::seconds(1));
    assert_eq!(right(&portal, &visitor(None), &ann.email, None).await.unwrap(), Stage::NeedsCode);
    assert_eq!(portal.mailed(&ann.email, "?pass=").await, None, "seconds are worth no mail");
    // What was right is forgotten: all four are free again.
    for _ in 0..4 {
        assert_eq!(wrong(&portal, &visitor(None), &ann.email).await, None);
    }
}

/// Knowing her e-mail address is not enough to keep somebody out.
#[tokio::test]
async fn guesses_from_elsewhere_make_nobody_wait() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    sign_up::request(ctx, &visitor(None), form("new")).await.unwrap();
    for (site, email) in [(1, ann.email.as_str()), (2, "ann@new.example")] {
        for host in 1..=5 {
            let waits = wrong(&portal, &from(&format!("2001:db8:0:{site}::{host}")), email).await;
            assert_eq!(waits.is_some(), host == 5, "a /64 is one source");
        }
    }
    right(&portal, &visitor(None), &ann.email, None).await.unwrap();
    let link = portal.mailed_token("ann@new.example").await;
    sign_up::verify(ctx, &visitor(None), &link, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn guesses_from_everywhere_are_a_few_a_second_and_the_owner_gets_a_pass() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let (ann, bob) = (portal.person("acme").await, portal.person("bolt").await);
    let mut tx = ctx.store().platform().await.unwrap();
    for _ in 0..300 {
        let subject = format!("password {}", ann.email);
        store::people::count_guess(&mut tx, &subject, ctx.now(), ctx.now() - Duration::HOUR).await.unwrap();
    }
    tx.commit().await.unwrap();
    // However many there were, and from a source that is new; what is refused does not count as a try of hers.
    for _ in 0..20 {
        let refused = right(&portal, &visitor(None), &ann.email, None).await;
        assert!(matches!(refused, Err(ActError::TooMany { retry_after_seconds: 2 })), "{refused:?}");
    }
    let pass = soon(async || portal.mailed(&ann.email, "?pass=").await).await;
    assert!(right(&portal, &visitor(None), &ann.email, Some("made-up")).await.is_err());
    assert!(right(&portal, &visitor(None), &ann.email, Some(&"x".repeat(pass.len()))).await.is_err());
    // She may mistype, too.
    field_error(account::log_in(ctx, &visitor(None), &ann.email, "wrong", Some(&pass)).await, "password");
    right(&portal, &visitor(None), &ann.email, Some(&pass)).await.unwrap();

    // It was hers, and good for one login.
    let mut tx = ctx.store().platform().await.unwrap();
    for name in [&ann.email, &bob.email] {
        for _ in 0..300 {
            let subject = format!("password {name}");
            store::people::count_guess(&mut tx, &subject, ctx.now(), ctx.now() - Duration::HOUR).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    for email in [&ann.email, &bob.email] {
        let refused = right(&portal, &visitor(None), email, Some(&pass)).await;
        assert!(matches!(refused, Err(ActError::TooMany { .. })), "{refused:?}");
    }
    portal.advance(Duration::seconds(1));
    right(&portal, &visitor(None), &ann.email, None).await.unwrap();
}

#[tokio::test]
async fn a_pass_is_good_for_five_tries_within_an_hour() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    let guesser = from("203.0.113.66");
    spray(&portal, &guesser, std::iter::repeat_n(ann.email.clone(), 7)).await;
    assert!(wrong(&portal, &guesser, &ann.email).await.unwrap() > Duration::seconds(50));
    let pass = soon(async || portal.mailed(&ann.email, "?pass=").await).await;
    for _ in 0..5 {
        field_error(account::log_in(ctx, &guesser, &ann.email, "wrong", Some(&pass)).await, "password");
    }
    let refused = right(&portal, &guesser, &ann.email, Some(&pass)).await;
    assert!(matches!(refused, Err(ActError::TooMany { .. })), "{refused:?}");

    portal.advance(Duration::minutes(16));
    assert!(wrong(&portal, &guesser, &ann.email).await.is_none());
    assert!(wrong(&portal, &guesser, &ann.email).await.is_some());
    let newer = soon(async || portal.mailed(&ann.email, "?pass=").await.filter(|newer| *newer != pass)).await;
    portal.advance(Duration::minutes(61));
    spray(&portal, &guesser, std::iter::once(ann.email.clone())).await;
    let refused = right(&portal, &guesser, &ann.email, Some(&newer)).await;
    assert!(matches!(refused, Err(ActError::TooMany { .. })), "an hour has passed: {refused:?}");
}

/// Several people of one tenant.
async fn colleagues(portal: &Portal, tenant: policy::ids::TenantId, count: usize) -> Vec<String> {
    let mut tx = portal.ctx.store().tenant(tenant).await.unwrap();
    let mut emails = Vec::new();
    for n in 0..count {
        let (user, email) = (policy::ids::UserId(uuid::Uuid::now_v7()), format!("colleague{n}@{tenant}.example"));
        store::people::insert(&mut tx, user, &email, "-", portal.ctx.now()).await.unwrap();
        store::members::insert(&mut tx, user, policy::authz::Role::Auditor, "", portal.ctx.now()).await.unwrap();
        emails.push(email);
    }
    tx.commit().await.unwrap();
    emails
}

#[tokio::test]
async fn who_tries_many_accounts_waits_for_a_day_and_is_blocked_at_the_pbxes_of_whom_he_attacks() {
    let portal = Portal::new().await;
    let (acme, bolt) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    let people = colleagues(&portal, acme.tenant_id, 5).await;
    let sprayer = from("203.0.113.66");
    let begun = portal.ctx.now();
    let strangers = (0..9).map(|n| format!("somebody{n}@elsewhere.example"));
    // One try at somebody gives away nothing of where he belongs.
    spray(&portal, &sprayer, strangers.chain(people).chain([bolt.email.clone()])).await;
    assert!(portal.ctx.now() - begun < Duration::hours(3), "so long it takes at least");
    let wait = wrong(&portal, &sprayer, "another@elsewhere.example").await.unwrap();
    assert!(wait > Duration::hours(23), "{wait}");
    assert!(right(&portal, &sprayer, &acme.email, None).await.is_err(), "also with the right password");

    let blocked = soon(async || Some(portal.blocked(&acme).await).filter(|blocked| !blocked.is_empty())).await;
    assert_eq!(blocked, ["203.0.113.66"]);
    assert!(portal.blocked(&bolt).await.is_empty());
    let row = portal.assert_audited(&acme, "blocked_ips/block", Outcome::Done).await;
    assert_eq!((row.actor.as_str(), row.source.as_str()), ("system", "203.0.113.66"));
    assert!(row.details.contains("15 accounts"), "{}", row.details);
    // Its owner gets in from elsewhere, at once.
    right(&portal, &visitor(None), &acme.email, None).await.unwrap();
    for _ in 0..4 {
        portal.advance(Duration::hours(5));
        assert!(wrong(&portal, &sprayer, &acme.email).await.is_some(), "a day is a day");
    }
    portal.advance(Duration::hours(4));
    assert_eq!(wrong(&portal, &sprayer, &acme.email).await, None, "the day is over");
}

/// What is right is no attack, however many others were wrong.
#[tokio::test]
async fn a_right_password_shuts_nobody_out() {
    let portal = Portal::new().await;
    let ann = portal.person("acme").await;
    let office = from("203.0.113.66");
    spray(&portal, &office, (0..14).map(|n| format!("somebody{n}@elsewhere.example"))).await;
    portal.advance(Duration::minutes(31));
    right(&portal, &office, &ann.email, None).await.unwrap();
    assert_eq!(wrong(&portal, &office, "somebody0@elsewhere.example").await, None);
}

/// Where people work there are phones: what somebody does who shares their address costs logins there, and no calls.
#[tokio::test]
async fn where_people_work_or_are_allowed_nothing_is_blocked() {
    let portal = Portal::new().await;
    let (acme, bolt, corp) = (portal.tenant("acme").await, portal.tenant("bolt").await, portal.tenant("corp").await);
    portal.allow(&acme, "203.0.113.0/24").await.unwrap();
    let mut people = Vec::new();
    for tenant in [&acme, &bolt, &corp] {
        people.extend(colleagues(&portal, tenant.tenant_id, 5).await);
    }
    let mut database = portal.admin().await;
    sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, data, created_at, expires_at, last_seen_at)
         VALUES ('\\x01', $1, jsonb_build_object('login', jsonb_build_object('tenant_id', $2::text),
                 'origin', jsonb_build_object('address', '203.0.113.66')), $3, $3 + interval '9 hours', $3)",
    )
    .bind(bolt.user_id.0)
    .bind(bolt.tenant_id.to_string())
    .bind(portal.ctx.now())
    .execute(&mut database)
    .await
    .unwrap();
    spray(&portal, &from("203.0.113.66"), people.into_iter()).await;
    let blocked = soon(async || Some(portal.blocked(&corp).await).filter(|blocked| !blocked.is_empty())).await;
    assert_eq!(blocked, ["203.0.113.66"]);
    assert!(portal.blocked(&acme).await.is_empty() && portal.blocked(&bolt).await.is_empty());
}

/// An account of one's own is no way to begin anew.
#[tokio::test]
async fn logging_in_forgets_nothing_of_what_failed_at_others() {
    let portal = Portal::new().await;
    let bob = portal.person("bolt").await;
    let guesser = from("203.0.113.66");
    for n in 0..6 {
        assert_eq!(wrong(&portal, &guesser, &format!("somebody{n}@elsewhere.example")).await, None);
    }
    right(&portal, &guesser, &bob.email, None).await.unwrap();
    assert_eq!(wrong(&portal, &guesser, "seventh@elsewhere.example").await, None);
    let refused = right(&portal, &guesser, &bob.email, None).await;
    assert!(matches!(refused, Err(ActError::TooMany { retry_after_seconds: 61 })), "{refused:?}");
}

#[tokio::test]
async fn a_hundred_tries_at_once_are_a_hundred_tries() {
    let portal = Portal::new().await;
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..30 {
        let ctx = portal.ctx.clone();
        tries.spawn(async move {
            let refused =
                account::log_in(&ctx, &from("203.0.113.66"), &format!("nobody{n}@acme.example"), "wrong", None).await;
            matches!(refused, Err(ActError::Invalid(_)))
        });
    }
    let looked_at = tries.join_all().await.into_iter().filter(|looked_at| *looked_at).count();
    assert_eq!(looked_at, 7);
}

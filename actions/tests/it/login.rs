//! From sign-up to a complete login, and everything that must not lead there.

use actions::{ActError, account, password_reset, sign_up, totp};
use policy::account::{SignUpForm, Stage};
use policy::audit::Outcome;
use time::Duration;

use crate::portal::{PASSWORD, Person, Portal, code_at, field_error, form, visitor};

/// Logs in up to the password.
async fn password(portal: &Portal, person: &Person) -> actions::Visitor {
    let login = account::log_in(&portal.ctx, &visitor(None), &person.email, PASSWORD, None).await.unwrap();
    assert_eq!((login.stage, login.tenant_id), (Stage::NeedsCode, None));
    visitor(Some(login))
}

#[tokio::test]
async fn from_sign_up_to_a_complete_login() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let login = portal.sign_up("acme").await;
    assert_eq!(login.stage, Stage::NeedsTotpSetup);
    let waiting = visitor(Some(login));
    assert!(matches!(actions::caller::caller(ctx, &waiting).await, Err(ActError::SecondFactorNeeded)));
    assert!(account::me(ctx, &waiting).await.unwrap().tenants.is_empty());
    assert!(matches!(totp::confirm(ctx, &waiting, "000000").await, Err(ActError::Refused(_))), "nothing scanned");
    // The key stays the same when the page is loaded again, and no other session is ever shown it.
    let (begun, first) = totp::begin(ctx, &waiting).await.unwrap();
    let begun = visitor(Some(begun));
    assert_eq!(totp::begin(ctx, &begun).await.unwrap().1.key, first.key);
    assert_ne!(totp::begin(ctx, &waiting).await.unwrap().1.key, first.key);
    assert!(field_error(totp::confirm(ctx, &begun, "000000").await, "code").contains("wrong"));

    let person = portal.person("bolt").await;
    assert_eq!(person.recovery_codes.len(), totp::RECOVERY_CODES);
    assert_eq!(person.login.stage, Stage::SignedIn);
    let me = account::me(ctx, &visitor(Some(person.login.clone()))).await.unwrap();
    assert_eq!(
        (me.email.as_str(), me.current.unwrap().slug.as_str(), me.tenants.len()),
        ("ann@bolt.example", "bolt", 1)
    );

    // A proven second factor can't be set up again with the password alone.
    let waiting = password(&portal, &person).await;
    assert!(matches!(totp::begin(ctx, &waiting).await, Err(ActError::Refused(_))));
    portal.advance(Duration::seconds(30));
    let login = account::log_in_code(ctx, &waiting, &person.code(&portal)).await.unwrap();
    let caller = actions::caller::caller(ctx, &visitor(Some(login))).await.unwrap();
    portal.assert_audited(&caller, "account/log_in_code", Outcome::Done).await;
    assert_eq!(actions::audit::verify(ctx, &caller).await.unwrap().broken, None);
}

#[tokio::test]
async fn a_code_is_accepted_once_and_of_the_right_person_only() {
    let portal = Portal::new().await;
    let (ann, bob) = (portal.person("acme").await, portal.person("bolt").await);
    let waiting = password(&portal, &ann).await;
    let refused = async |code: String| {
        field_error(account::log_in_code(&portal.ctx, &waiting, &code).await, "code");
    };
    refused(ann.code(&portal)).await; // Used by the set-up.
    portal.advance(Duration::seconds(60));
    refused(bob.code(&portal)).await;
    let now = portal.ctx.now().unix_timestamp();
    let code = ann.code_at(now);
    account::log_in_code(&portal.ctx, &waiting, &code).await.unwrap();
    refused(code).await;
    refused(ann.code_at(now - 30)).await; // In the skew that is allowed, but older than the one used.
    portal.advance(Duration::minutes(5));
    refused(ann.code_at(now + 30)).await; // Never used, too old.
    for nonsense in ["", "12345", "１２３４５６", "' OR true --"] {
        portal.advance(Duration::hours(7));
        refused(nonsense.to_owned()).await;
    }
}

#[tokio::test]
async fn a_recovery_code_is_accepted_once() {
    let portal = Portal::new().await;
    let (ann, bob) = (portal.person("acme").await, portal.person("bolt").await);
    let waiting = password(&portal, &ann).await;
    // As people type it.
    let typed = ann.recovery_codes[0].to_uppercase().replace('-', " ");
    let login = account::log_in_recovery_code(&portal.ctx, &waiting, &typed).await.unwrap();
    assert_eq!(login.stage, Stage::SignedIn);
    for wrong in [&ann.recovery_codes[0], &bob.recovery_codes[1], "aaaaa-aaaaa"] {
        field_error(account::log_in_recovery_code(&portal.ctx, &waiting, wrong).await, "code");
    }
    account::log_in_recovery_code(&portal.ctx, &waiting, &ann.recovery_codes[9]).await.unwrap();
}

#[tokio::test]
async fn guesses_at_codes_have_to_wait() {
    let portal = Portal::new().await;
    let ann = portal.person("acme").await;
    let waiting = password(&portal, &ann).await;
    portal.advance(Duration::minutes(1));
    for _ in 0..5 {
        field_error(account::log_in_code(&portal.ctx, &waiting, "000000").await, "code");
    }
    // The right code has to wait, too, and a recovery code is no way around.
    let right = ann.code(&portal);
    assert!(matches!(
        account::log_in_code(&portal.ctx, &waiting, &right).await,
        Err(ActError::TooMany { retry_after_seconds: 31 })
    ));
    assert!(matches!(
        account::log_in_recovery_code(&portal.ctx, &waiting, &ann.recovery_codes[0]).await,
        Err(ActError::TooMany { .. })
    ));
    portal.advance(Duration::seconds(30));
    field_error(account::log_in_code(&portal.ctx, &waiting, "000000").await, "code");
    assert!(matches!(
        account::log_in_code(&portal.ctx, &waiting, &right).await,
        Err(ActError::TooMany { retry_after_seconds: 61 })
    ));
    portal.advance(Duration::seconds(60));
    account::log_in_code(&portal.ctx, &waiting, &ann.code(&portal)).await.unwrap();
    // Success forgets the failures.
    for _ in 0..5 {
        field_error(account::log_in_code(&portal.ctx, &waiting, "000000").await, "code");
    }
}

/// Whoever knows the password can make its owner wait at the second factor, until she sets another one.
#[tokio::test]
async fn a_new_password_ends_the_wait_for_codes() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    let waiting = password(&portal, &ann).await;
    portal.advance(Duration::minutes(1));
    for _ in 0..5 {
        field_error(account::log_in_code(ctx, &waiting, "000000").await, "code");
    }
    let refused = account::log_in_code(ctx, &waiting, &ann.code(&portal)).await;
    assert!(matches!(refused, Err(ActError::TooMany { .. })));
    password_reset::request(ctx, &visitor(None), &ann.email).await.unwrap();
    let link = portal.mailed_token(&ann.email).await;
    password_reset::reset(ctx, &visitor(None), &link, "amber kettle walks north").await.unwrap();
    account::log_in_code(ctx, &waiting, &ann.code(&portal)).await.unwrap();
}

/// Mail to an address is bounded by kind: signing up in her name does not keep the link for a new password away.
#[tokio::test]
async fn one_kind_of_mail_does_not_keep_another_away() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    for n in 0..10 {
        let again = SignUpForm { email: ann.email.clone(), ..form(&format!("other-{n}")) };
        sign_up::request(ctx, &visitor(None), again).await.unwrap();
    }
    password_reset::request(ctx, &visitor(None), &ann.email).await.unwrap();
    let mails = store::mails::newest(ctx.store(), 20).await.unwrap();
    let told = mails.iter().filter(|mail| mail.subject.starts_with("You have")).count();
    assert_eq!((mails[0].subject.as_str(), told), ("Set a new password", 4));
}

/// Whether an e-mail address is known shows nowhere.
#[tokio::test]
async fn known_and_unknown_addresses_get_the_same_answers() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    let wrong = field_error(account::log_in(ctx, &visitor(None), &ann.email, "wrong", None).await, "password");
    let unknown =
        field_error(account::log_in(ctx, &visitor(None), "nobody@acme.example", "wrong", None).await, "password");
    assert_eq!(wrong, unknown);
    for email in [&ann.email, "nobody@acme.example"] {
        password_reset::request(ctx, &visitor(None), email).await.unwrap();
        let again = SignUpForm { email: email.to_owned(), slug: "other".to_owned(), ..form("other") };
        sign_up::request(ctx, &visitor(None), again).await.unwrap();
    }
    let mails = store::mails::newest(ctx.store(), 3).await.unwrap();
    let sent: Vec<_> = mails.iter().map(|mail| (mail.recipient.as_str(), mail.subject.as_str())).collect();
    assert_eq!(
        sent,
        [
            ("nobody@acme.example", "Confirm your e-mail address"),
            ("ann@acme.example", "You have a Ringfence account already"),
            ("ann@acme.example", "Set a new password"),
        ]
    );
}

#[tokio::test]
async fn wrong_sign_ups_make_nothing() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let bad = SignUpForm {
        organisation: "\0".to_owned(),
        slug: "admin".to_owned(),
        email: "x".to_owned(),
        password: "short".to_owned(),
    };
    let Err(ActError::Invalid(errors)) = sign_up::request(ctx, &visitor(None), bad).await else { panic!("taken") };
    assert_eq!(
        errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(),
        ["organisation", "slug", "email", "password"]
    );
    for weak in ["passwordpassword", "acmeacmeacme", "ann@acme.example", "111111111111111"] {
        field_error(
            sign_up::request(ctx, &visitor(None), SignUpForm { password: weak.to_owned(), ..form("acme") }).await,
            "password",
        );
    }
    assert!(store::mails::newest(ctx.store(), 5).await.unwrap().is_empty());

    portal.sign_up("acme").await;
    let same = SignUpForm { email: "bob@bolt.example".to_owned(), ..form("acme") };
    assert!(field_error(sign_up::request(ctx, &visitor(None), same).await, "slug").contains("taken"));
    for link in ["", "nonsense", &portal.mailed_token("ann@acme.example").await] {
        assert!(
            matches!(sign_up::verify(ctx, &visitor(None), link, PASSWORD).await, Err(ActError::Refused(_))),
            "used or unknown"
        );
    }
    sign_up::request(ctx, &visitor(None), form("late")).await.unwrap();
    let link = portal.mailed_token("ann@late.example").await;
    portal.advance(Duration::hours(24));
    assert!(
        matches!(sign_up::verify(ctx, &visitor(None), &link, PASSWORD).await, Err(ActError::Refused(_))),
        "expired"
    );
}

/// Somebody signs up with an address that is not his, and its owner follows the link.
#[tokio::test]
async fn a_link_is_worth_nothing_without_the_password_of_its_sign_up() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    sign_up::request(ctx, &visitor(None), form("acme")).await.unwrap();
    let link = portal.mailed_token("ann@acme.example").await;
    for wrong in ["", "ann's own password"] {
        let told = field_error(sign_up::verify(ctx, &visitor(None), &link, wrong).await, "password");
        assert!(told.contains("sign up yourself"), "{told}");
    }
    // She does, and only her link makes anything.
    let own = "ann's quite own password";
    let hers = SignUpForm { slug: "anns-own".to_owned(), password: own.to_owned(), ..form("acme") };
    sign_up::request(ctx, &visitor(None), hers).await.unwrap();
    let own_link = portal.mailed_token("ann@acme.example").await;
    sign_up::verify(ctx, &visitor(None), &own_link, own).await.unwrap();
    assert!(matches!(sign_up::verify(ctx, &visitor(None), &link, PASSWORD).await, Err(ActError::Refused(_))));
}

#[tokio::test]
async fn proving_the_second_factor_ends_the_other_sessions() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let waiting = visitor(Some(portal.sign_up("acme").await));
    let user = waiting.login.as_ref().unwrap().user_id;
    let (now, until) = (ctx.now(), ctx.now() + Duration::DAY);
    let data = serde_json::json!({});
    assert!(store::sessions::create(ctx.store(), b"another", Some(user), &data, now, until, now).await.unwrap());
    let (begun, setup) = totp::begin(ctx, &waiting).await.unwrap();
    let code = code_at(&setup.key, now.unix_timestamp());
    totp::confirm(ctx, &visitor(Some(begun)), &code).await.unwrap();
    assert!(store::sessions::load(ctx.store(), b"another", now).await.unwrap().is_none());
}

#[tokio::test]
async fn two_who_want_the_same_short_name_or_address() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let other = SignUpForm { email: "bob@bolt.example".to_owned(), ..form("acme") };
    sign_up::request(ctx, &visitor(None), form("acme")).await.unwrap();
    sign_up::request(ctx, &visitor(None), other).await.unwrap();
    let (first, second) =
        (portal.mailed_token("ann@acme.example").await, portal.mailed_token("bob@bolt.example").await);
    sign_up::verify(ctx, &visitor(None), &first, PASSWORD).await.unwrap();
    field_error(sign_up::verify(ctx, &visitor(None), &second, PASSWORD).await, "slug");

    for slug in ["one", "two"] {
        sign_up::request(ctx, &visitor(None), SignUpForm { email: "eve@eve.example".to_owned(), ..form(slug) })
            .await
            .unwrap();
        let link = portal.mailed_token("eve@eve.example").await;
        if slug == "one" {
            // Not followed yet: the second wish gets a link of its own.
            continue;
        }
        sign_up::verify(ctx, &visitor(None), &link, PASSWORD).await.unwrap();
        assert!(matches!(sign_up::verify(ctx, &visitor(None), &link, PASSWORD).await, Err(ActError::Refused(_))));
    }
}

#[tokio::test]
async fn a_password_reset_ends_sessions_and_works_once() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let ann = portal.person("acme").await;
    let data = serde_json::json!({});
    let (now, until) = (ctx.now(), ctx.now() + Duration::DAY);
    assert!(
        store::sessions::create(ctx.store(), b"ann's", Some(ann.login.user_id), &data, now, until, now).await.unwrap()
    );

    password_reset::request(ctx, &visitor(None), &ann.email).await.unwrap();
    let link = portal.mailed_token(&ann.email).await;
    for bad in ["short", "passwordpassword", &"é".repeat(129)] {
        field_error(password_reset::reset(ctx, &visitor(None), &link, bad).await, "password");
    }
    assert!(store::sessions::load(ctx.store(), b"ann's", now).await.unwrap().is_some());
    let new = "amber kettle walks north";
    password_reset::reset(ctx, &visitor(None), &link, new).await.unwrap();
    assert!(store::sessions::load(ctx.store(), b"ann's", now).await.unwrap().is_none());
    assert!(matches!(password_reset::reset(ctx, &visitor(None), &link, new).await, Err(ActError::Refused(_))), "used");
    field_error(account::log_in(ctx, &visitor(None), &ann.email, PASSWORD, None).await, "password");
    let login = account::log_in(ctx, &visitor(None), &ann.email, new, None).await.unwrap();
    assert_eq!(login.stage, Stage::NeedsCode, "the second factor stays");

    password_reset::request(ctx, &visitor(None), &ann.email).await.unwrap();
    let link = portal.mailed_token(&ann.email).await;
    portal.advance(Duration::HOUR);
    assert!(
        matches!(password_reset::reset(ctx, &visitor(None), &link, new).await, Err(ActError::Refused(_))),
        "expired"
    );
}

#[tokio::test]
async fn a_password_alone_opens_nothing() {
    let portal = Portal::new().await;
    let ann = portal.person("acme").await;
    let waiting = password(&portal, &ann).await;
    assert!(matches!(actions::caller::caller(&portal.ctx, &waiting).await, Err(ActError::SecondFactorNeeded)));
    let tenant = ann.login.tenant_id.unwrap();
    assert!(matches!(account::switch_tenant(&portal.ctx, &waiting, tenant).await, Err(ActError::SecondFactorNeeded)));
    assert!(matches!(actions::caller::caller(&portal.ctx, &visitor(None)).await, Err(ActError::SignedOut)));
    assert!(matches!(account::log_in_code(&portal.ctx, &visitor(None), "123456").await, Err(ActError::SignedOut)));
}

#[tokio::test]
async fn a_tenant_that_is_not_hers_is_not_there() {
    let portal = Portal::new().await;
    let (ann, bob) = (portal.person("acme").await, portal.person("bolt").await);
    let signed_in = visitor(Some(ann.login.clone()));
    let theirs = bob.login.tenant_id.unwrap();
    assert!(matches!(account::switch_tenant(&portal.ctx, &signed_in, theirs).await, Err(ActError::NotFound)));
    let caller = actions::caller::caller(&portal.ctx, &signed_in).await.unwrap();
    portal.assert_audited(&caller, "account/switch_tenant", Outcome::Refused).await;
    // A session that names it all the same is no session.
    let forged = visitor(Some(actions::Login { tenant_id: Some(theirs), ..ann.login }));
    assert!(matches!(actions::caller::caller(&portal.ctx, &forged).await, Err(ActError::SignedOut)));
    assert_eq!(account::me(&portal.ctx, &forged).await.unwrap().stage, Stage::SignedOut);
}

#[tokio::test]
async fn a_second_factor_is_shown_again() {
    let portal = Portal::new().await;
    let ctx = &portal.ctx;
    let (ann, bob) = (portal.person("acme").await, portal.person("bolt").await);
    let signed_in = visitor(Some(ann.login.clone()));
    assert!(matches!(account::step_up(ctx, &visitor(None), "000000").await, Err(ActError::SignedOut)));
    let waiting = password(&portal, &ann).await;
    let half_way = account::step_up(ctx, &waiting, &ann.recovery_codes[0]).await;
    assert!(matches!(half_way, Err(ActError::SecondFactorNeeded)), "the login comes first: {half_way:?}");

    portal.advance(Duration::minutes(20));
    let code = ann.code(&portal);
    for wrong in [bob.code(&portal), bob.recovery_codes[0].clone()] {
        field_error(account::step_up(ctx, &signed_in, &wrong).await, "code");
    }
    let fresh = account::step_up(ctx, &signed_in, &code).await.unwrap();
    assert_eq!(fresh, actions::Login { proven_at: Some(ctx.now()), ..ann.login.clone() });
    let caller = actions::caller::caller(ctx, &visitor(Some(fresh))).await.unwrap();
    portal.assert_audited(&caller, "account/step_up", Outcome::Done).await;
    field_error(account::step_up(ctx, &signed_in, &code).await, "code");
    let recovery = &ann.recovery_codes[0];
    account::step_up(ctx, &signed_in, recovery).await.unwrap();
    field_error(account::step_up(ctx, &signed_in, recovery).await, "code");

    // Guesses wait, as they do at the login.
    portal.advance(Duration::hours(7));
    for _ in 0..5 {
        field_error(account::step_up(ctx, &signed_in, "000000").await, "code");
    }
    let refused = account::step_up(ctx, &signed_in, &ann.code(&portal)).await;
    assert!(matches!(refused, Err(ActError::TooMany { .. })), "{refused:?}");
}

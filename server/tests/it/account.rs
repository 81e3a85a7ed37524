//! The whole of a login as a browser does it, and the life of sessions.

use http::StatusCode;
use policy::account::{Me, Stage, TotpSetup};
use policy::authz::{Operation, Role};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::support::{Answer, PASSWORD, Person, TestServer, stranger};

/// The code that an authenticator app would show for a key now.
fn code(server: &TestServer, key: &str) -> String {
    let secret = Secret::try_from_base32(key.replace(' ', "")).unwrap();
    let totp = Builder::new().with_secret(secret).with_issuer(Some("x")).with_account_name("x").build().unwrap();
    totp.generate(u64::try_from(server.ctx.now().unix_timestamp()).unwrap()).to_string()
}

/// The token of the newest mail's link.
async fn mailed_token(server: &TestServer) -> String {
    let mail = store::mails::newest(server.ctx.store(), 1).await.unwrap().remove(0);
    mail.body.split("token=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// The session after an answer that began one.
fn follow(person: &Person, answer: &Answer) -> Person {
    let cookie = answer.cookie.as_deref().expect("a cookie").split(';').next().unwrap().to_owned();
    assert_ne!(cookie, person.cookie, "a login gets a new id");
    Person { cookie, ..person.clone() }
}

async fn sign_up(server: &TestServer, slug: &str) -> (Person, String, Vec<String>) {
    let email = format!("ann@{slug}.test");
    let form = json!({ "organisation": "Acme", "slug": slug, "email": email, "password": PASSWORD });
    let nobody = stranger();
    let _: () = server.done(&nobody, Operation::SignUp, json!({ "form": form })).await;
    let token = mailed_token(server).await;
    let link = json!({ "token": token, "password": PASSWORD });
    let guess = json!({ "token": token, "password": "not the password" });
    assert_eq!(server.call(&nobody, Operation::VerifyEmail, &guess).await.code(), "invalid", "who did not sign up");
    let verified = server.call(&nobody, Operation::VerifyEmail, &link).await;
    assert_eq!(verified.text, r#""needs_totp_setup""#);
    let ann = follow(&nobody, &verified);
    assert_eq!(server.call(&nobody, Operation::VerifyEmail, &link).await.code(), "refused", "a link works once");
    let setup: TotpSetup = server.done(&ann, Operation::BeginTotp, json!({})).await;
    let confirmed = server.call(&ann, Operation::ConfirmTotp, &json!({ "code": code(server, &setup.key) })).await;
    assert_eq!(confirmed.status, StatusCode::OK, "{confirmed:?}");
    let codes: Vec<String> = serde_json::from_str(&confirmed.text).unwrap();
    assert_eq!(codes.len(), 10);
    (Person { email, ..follow(&ann, &confirmed) }, setup.key, codes)
}

async fn me(server: &TestServer, person: &Person) -> Me {
    server.done(person, Operation::Me, json!({})).await
}

#[tokio::test]
async fn from_sign_up_to_log_out_and_in_again() {
    let server = TestServer::start().await;
    let (ann, key, codes) = sign_up(&server, "acme").await;
    let seen = me(&server, &ann).await;
    assert_eq!((seen.stage, seen.current.unwrap().role), (Stage::SignedIn, Role::SuperAdministrator));

    let _: () = server.done(&ann, Operation::LogOut, json!({})).await;
    assert_eq!(me(&server, &ann).await.stage, Stage::SignedOut, "the cookie is worth nothing any more");

    let nobody = stranger();
    let credentials = json!({ "email": ann.email, "password": PASSWORD });
    let halfway = follow(&nobody, &server.call(&nobody, Operation::LogIn, &credentials).await);
    assert_eq!(me(&server, &halfway).await.stage, Stage::NeedsCode);
    let used = json!({ "code": code(&server, &key) });
    assert_eq!(
        server.call(&halfway, Operation::LogInCode, &used).await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "a code is accepted once"
    );
    server.clock.advance(time::Duration::seconds(60));
    let done = server.call(&halfway, Operation::LogInCode, &json!({ "code": code(&server, &key) })).await;
    let ann = follow(&halfway, &done);
    assert_eq!(me(&server, &ann).await.stage, Stage::SignedIn);
    assert_eq!(me(&server, &halfway).await.stage, Stage::SignedOut, "the id of before is worth nothing");

    // So it is when the second factor is shown again.
    let used = json!({ "code": codes[4] });
    let again = follow(&ann, &server.call(&ann, Operation::StepUp, &used).await);
    assert_eq!(me(&server, &again).await.stage, Stage::SignedIn);
    assert_eq!(me(&server, &ann).await.stage, Stage::SignedOut, "the id of before is worth nothing");

    let halfway = follow(&nobody, &server.call(&nobody, Operation::LogIn, &credentials).await);
    let recovery = json!({ "code": codes[3] });
    assert_eq!(server.call(&halfway, Operation::LogInRecoveryCode, &recovery).await.text, r#""signed_in""#);
    let halfway = follow(&nobody, &server.call(&nobody, Operation::LogIn, &credentials).await);
    assert_eq!(
        server.call(&halfway, Operation::LogInRecoveryCode, &recovery).await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "and is used up"
    );
}

#[tokio::test]
async fn a_new_password_ends_all_sessions() {
    let server = TestServer::start().await;
    let (ann, ..) = sign_up(&server, "reset").await;
    let nobody = stranger();
    let _: () = server.done(&nobody, Operation::RequestPasswordReset, json!({ "email": ann.email })).await;
    let token = mailed_token(&server).await;
    let new = "quite another long password";
    let _: () = server.done(&nobody, Operation::ResetPassword, json!({ "token": token, "password": new })).await;
    assert_eq!(me(&server, &ann).await.stage, Stage::SignedOut);
    assert_eq!(
        server.call(&nobody, Operation::LogIn, &json!({ "email": ann.email, "password": PASSWORD })).await.code(),
        "invalid"
    );
    assert_eq!(
        server.call(&nobody, Operation::LogIn, &json!({ "email": ann.email, "password": new })).await.text,
        r#""needs_code""#
    );
}

#[tokio::test]
async fn whether_an_address_is_known_is_given_away_by_nothing() {
    let server = TestServer::start().await;
    let (ann, ..) = sign_up(&server, "known").await;
    let nobody = stranger();
    for operation in [Operation::RequestPasswordReset, Operation::LogIn] {
        let ask = async |email: &str| {
            let answer =
                server.call(&nobody, operation, &json!({ "email": email, "password": "not the password" })).await;
            (answer.status, answer.text)
        };
        assert_eq!(ask(&ann.email).await, ask("nobody@known.test").await, "{}", operation.path());
    }
    let form = |email: &str, slug: &str| json!({ "form": { "organisation": "X", "slug": slug, "email": email, "password": PASSWORD } });
    let known = server.call(&nobody, Operation::SignUp, &form(&ann.email, "x-one")).await;
    let unknown = server.call(&nobody, Operation::SignUp, &form("new@known.test", "x-two")).await;
    assert_eq!((known.status, known.text), (unknown.status, unknown.text));
}

#[tokio::test]
async fn a_session_ends_when_nobody_uses_it_and_at_last_in_any_case() {
    let server = TestServer::start().await;
    let tenant = server.tenant("ends").await;
    let idle = server.person(tenant, Role::Auditor).await;
    server.clock.advance(time::Duration::minutes(29));
    assert_eq!(me(&server, &idle).await.stage, Stage::SignedIn);
    server.clock.advance(time::Duration::minutes(29));
    assert_eq!(me(&server, &idle).await.stage, Stage::SignedIn, "using it puts the end off");
    server.clock.advance(time::Duration::minutes(31));
    assert_eq!(me(&server, &idle).await.stage, Stage::SignedOut);

    let busy = server.person(tenant, Role::Auditor).await;
    for _ in 0..12 * 3 - 1 {
        server.clock.advance(time::Duration::minutes(20));
        assert_eq!(me(&server, &busy).await.stage, Stage::SignedIn);
    }
    server.clock.advance(time::Duration::minutes(21));
    assert_eq!(me(&server, &busy).await.stage, Stage::SignedOut, "twelve hours after the login");
}

#[tokio::test]
async fn switching_the_tenant_does_not_make_a_session_live_longer() {
    let server = TestServer::start().await;
    let (first, second) = (server.tenant("first").await, server.tenant("second").await);
    let person = server.person(first, Role::Auditor).await;
    let mut tx = server.ctx.store().tenant(second).await.unwrap();
    store::members::insert(&mut tx, person.user_id, Role::Auditor, "", server.ctx.now()).await.unwrap();
    tx.commit().await.unwrap();
    for _ in 0..26 {
        server.clock.advance(time::Duration::minutes(25));
        assert_eq!(me(&server, &person).await.stage, Stage::SignedIn);
    }
    let switched =
        follow(&person, &server.call(&person, Operation::SwitchTenant, &json!({ "tenant_id": second })).await);
    assert_eq!(me(&server, &switched).await.current.unwrap().slug, "second");
    for _ in 0..2 {
        server.clock.advance(time::Duration::minutes(25));
        assert_eq!(me(&server, &switched).await.stage, Stage::SignedIn);
    }
    server.clock.advance(time::Duration::minutes(25));
    assert_eq!(me(&server, &switched).await.stage, Stage::SignedOut);
}

#[tokio::test]
async fn the_cookie_is_closed_to_scripts_and_other_sites() {
    let server = TestServer::start().await;
    let (ann, ..) = sign_up(&server, "cookie").await;
    let answer = server.call(&stranger(), Operation::LogIn, &json!({ "email": ann.email, "password": PASSWORD })).await;
    let cookie = answer.cookie.unwrap();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
}

#[tokio::test]
async fn a_made_up_session_is_nobody() {
    let server = TestServer::start().await;
    for cookie in ["ringfence=AAAAAAAAAAAAAAAAAAAAAA", "ringfence=", "ringfence=%00", "ringfence=../../x"] {
        let person = Person { cookie: cookie.to_owned(), ..stranger() };
        assert_eq!(me(&server, &person).await.stage, Stage::SignedOut, "{cookie}");
    }
    let answer: Value = server.done(&stranger(), Operation::Me, json!({})).await;
    assert_eq!(answer["email"], "");
}

//! What every request passes through: headers, origin, limits, login gate.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode, header};
use policy::account::Stage;
use policy::authz::{Operation, Role};
use server::connections::Connections;
use server::http::limits::{Limit, Limits};
use server::http::serving;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::{TestServer, stranger, text};

#[tokio::test]
async fn pages_carry_a_policy_with_the_nonce_of_their_scripts() {
    let server = TestServer::start().await;
    let first = server.get(&stranger(), "/login").await;
    assert_eq!(first.status(), StatusCode::OK);
    let policy = first.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let page = text(first).await;
    assert!(page.contains(&format!("nonce=\"{nonce}\"")));
    assert_eq!(
        page.matches("<script").count(),
        page.matches("<script nonce=").count() + page.matches("<script type=\"module\" nonce=").count()
    );
    assert!(!policy.contains("unsafe-inline") && !page.contains(" style=\""), "{policy}");
    let second = server.get(&stranger(), "/login").await;
    assert!(
        !second.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains(&nonce),
        "a nonce is used once"
    );
}

#[tokio::test]
async fn everything_carries_the_security_headers() {
    let server = TestServer::start().await;
    for path in ["/", "/login", "/healthz", "/live", "/api/nothing", "/pkg/nothing.js", "/dev/mailbox"] {
        let response = server.get(&stranger(), path).await;
        for name in [
            "x-content-type-options",
            "x-frame-options",
            "referrer-policy",
            "content-security-policy",
            "cache-control",
            "x-request-id",
        ] {
            assert!(response.headers().contains_key(name), "{path} lacks {name}");
        }
    }
}

#[tokio::test]
async fn another_site_changes_nothing() {
    let server = TestServer::start().await;
    let tenant = server.tenant("csrf").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("x-none", "1"),
    ] {
        let request = Request::post("/api/pbxes/add")
            .header(header::COOKIE, &admin.cookie)
            .header(header::CONTENT_TYPE, "application/json")
            .header(name, value)
            .body(Body::from(r#"{"name":"x"}"#))
            .unwrap();
        assert_eq!(server.send(request).await.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    let get = Request::get("/api/pbxes/add?name=x").header(header::COOKIE, &admin.cookie).body(Body::empty()).unwrap();
    assert!(server.send(get).await.status().is_client_error(), "server functions take no GET");
    assert_eq!(server.audited(tenant, Operation::AddPbx).await, 0);
}

#[tokio::test]
async fn pages_lead_to_the_step_that_is_missing() {
    let server = TestServer::start().await;
    let tenant = server.tenant("gate").await;
    for (stage, expected) in [
        (Stage::SignedOut, Some("/login?next=%2Fblocked-ips")),
        (Stage::NeedsCode, Some("/login/code?next=%2Fblocked-ips")),
        (Stage::NeedsTotpSetup, Some("/setup?next=%2Fblocked-ips")),
        (Stage::SignedIn, None),
    ] {
        let person = match stage {
            Stage::SignedOut => stranger(),
            _ => server.person_at(tenant, Role::Auditor, stage).await,
        };
        let response = server.get(&person, "/blocked-ips").await;
        let place = response.headers().get(header::LOCATION).map(|place| place.to_str().unwrap());
        assert_eq!(place, expected);
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let wide = Limit { burst: 1000, refill: Duration::from_millis(1) };
    let server = TestServer::with_limits(Limits {
        all: wide,
        account: Limit { burst: 3, refill: Duration::from_mins(1) },
        enrolment: wide,
    })
    .await;
    let body = serde_json::json!({ "token": "unknown", "password": "x" });
    for _ in 0..3 {
        assert_eq!(server.call(&stranger(), Operation::VerifyEmail, &body).await.code(), "refused");
    }
    let response = server.post(&stranger(), "/api/account/verify_email", body.to_string()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let said = text(response).await;
    assert!(said.contains("too_many") && said.contains("retry_after_seconds"), "{said}");
    assert_eq!(
        server.call(&stranger(), Operation::Me, &serde_json::json!({})).await.status,
        StatusCode::OK,
        "the rest still answers"
    );
}

#[tokio::test]
async fn an_unknown_server_function_says_that_the_page_is_old() {
    let server = TestServer::start().await;
    let response = server.post(&stranger(), "/api/gone/function", "{}").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(text(response).await.contains("new_version"));
}

#[tokio::test]
async fn an_unknown_page_is_a_page() {
    let server = TestServer::start().await;
    let tenant = server.tenant("missing").await;
    let person = server.person(tenant, Role::Auditor).await;
    let response = server.get(&person, "/no/such/page").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(text(response).await.contains("There is nothing here"));
}

/// The port itself, which the other tests leave out.
#[tokio::test]
async fn one_source_has_so_many_connections_and_others_have_theirs() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(2, &[]);
    let serving = tokio::spawn(serving::serve(listener, server.router.clone(), connections, server.stopping.clone()));
    let from = async |source: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let _silent = [from("127.0.0.2").await, from("127.0.0.2").await];
    let mut third = from("127.0.0.2").await;
    assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)), "closed at once");

    let mut other = from("127.0.0.1").await;
    other.write_all(b"GET /healthz HTTP/1.1\r\nhost: portal.test\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    server.stopping.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it ends though connections are open").unwrap();
}

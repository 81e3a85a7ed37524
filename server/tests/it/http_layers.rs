//! What every request passes through: headers, origin, limits, login gate.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode, header};
use policy::account::Stage;
use policy::authz::{Operation, Role};
use server::connections::{Connections, Most};
use server::http::limits::{Limit, Limits};
use server::http::serving;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

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
    for path in ["/", "/login", "/healthz", "/readyz", "/live", "/api/nothing", "/pkg/nothing.js", "/dev/mailbox"] {
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
async fn judging_passwords_is_asked_for_as_rarely_and_counted_apart() {
    let wide = Limit { burst: 1000, refill: Duration::from_millis(1) };
    let account = Limit { burst: 3, refill: Duration::from_mins(1) };
    let server = TestServer::with_limits(Limits { all: wide, account, enrolment: wide }).await;
    let judge = serde_json::json!({ "password": "swordfish", "words": [] });
    for expected in [200, 200, 200, 429] {
        assert_eq!(server.call(&stranger(), Operation::PasswordStrength, &judge).await.status, expected);
    }
    let body = serde_json::json!({ "token": "unknown", "password": "x" });
    assert_eq!(server.call(&stranger(), Operation::VerifyEmail, &body).await.code(), "refused", "not too many");
}

#[tokio::test]
async fn a_tenant_has_two_lists_as_a_whole_at_a_time() {
    let server = TestServer::start().await;
    let (tenant, other) = (server.tenant("greedy").await, server.tenant("other").await);
    let (ann, eve) =
        (server.person(tenant, Role::Auditor).await, server.person(tenant, Role::SuperAdministrator).await);
    let bob = server.person(other, Role::Auditor).await;
    let first = server.get(&ann, "/csv/blocked-ips").await;
    let _second = server.get(&eve, "/csv/allowed-ips").await;
    assert_eq!(first.status(), StatusCode::OK);
    for (person, path) in [(&ann, "/csv/blocked-ips"), (&eve, "/csv/allowed-ips")] {
        let refused = server.get(person, path).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the answers before have not been taken");
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
    }
    let none = serde_json::json!({});
    assert_eq!(server.call(&eve, Operation::VerifyAudit, &none).await.code(), "too_many");
    assert_eq!(server.get(&eve, "/blocked-ips").await.status(), StatusCode::OK, "the rest still answers");
    assert_eq!(server.get(&bob, "/csv/blocked-ips").await.status(), StatusCode::OK, "others have theirs");
    assert!(text(first).await.starts_with("address,"));
    assert_eq!(server.call(&eve, Operation::VerifyAudit, &none).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_mailbox_is_shown_on_this_machine_only() {
    let server = TestServer::start().await;
    for (address, status) in [([127, 0, 0, 1], 200), ([192, 0, 2, 7], 404), ([10, 0, 0, 1], 404)] {
        let request = Request::get("/dev/mailbox").body(Body::empty()).unwrap();
        assert_eq!(server.send_from(address, request).await.status(), status, "{address:?}");
    }
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
    let connections = Connections::new(Most { source: 2, site: 2, all: 10 }, &[]);
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

/// A port on this machine that serves a small and a large file to one connection at a time.
async fn narrow_port() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let large = async || vec![0u8; 64 * 1024 * 1024];
    let router = Router::new().route("/small", get(async || "small")).route("/large", get(large));
    let connections = Connections::new(Most { source: 1, site: 1, all: 1 }, &[]);
    tokio::spawn(serving::serve(listener, router, connections, CancellationToken::new()));
    address
}

/// Asks for a file; whether it begins to come.
async fn ask(stream: &mut TcpStream, path: &str) -> bool {
    let head = format!("GET {path} HTTP/1.1\r\nhost: portal.test\r\n\r\n");
    let mut answer = [0; 12];
    stream.write_all(head.as_bytes()).await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && answer == *b"HTTP/1.1 200"
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_is_closed_soon() {
    let address = narrow_port().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let mut asking = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        assert!(ask(&mut asking, "/small").await);
        let mut rest = [0; 1024];
        assert!(asking.read(&mut rest).await.unwrap() > 0);
        sleep(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_answer_is_let_go() {
    let address = narrow_port().await;
    let mut lazy = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut lazy, "/large").await);
    sleep(Duration::from_secs(20)).await;
    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(!ask(&mut other, "/small").await, "the one place is taken");
    sleep(Duration::from_secs(20)).await;
    let mut other = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut other, "/small").await);
}

//! Every server function and file route with input that nobody should send: empty, huge, of the wrong type, with control
//! characters, with text that other programs would run. Never an error of ours, always an error that says what it is.

use app::error::ApiError;
use http::StatusCode;
use policy::account::Stage;
use policy::authz::{Need, Operation, Role};
use serde_json::{Value, json};

use crate::samples::{Things, body};
use crate::support::{Route, TestServer, route, stranger, text};

fn nasty_values() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(i64::MAX),
        json!(1.5e300),
        json!([]),
        json!([[[]]]),
        json!({}),
        json!({ "id": 1 }),
        json!([null]),
        json!(["00000000-0000-0000-0000-000000000000"]),
        json!(vec!["018f0000-0000-7000-8000-000000000000"; 2000]),
    ];
    let texts = [
        "",
        " ",
        "\u{0}",
        "a\u{0}b",
        "\r\n",
        "\u{202e}gpj.exe",
        "🦊🦊🦊",
        "ﬀ",
        "' OR 1=1 --",
        "'; DROP TABLE tenants; --",
        "%' AND '1'='1",
        "%",
        "_",
        "\\",
        "$1",
        "<script>alert(1)</script>",
        "{{7*7}}",
        "=cmd|' /C calc'!A0",
        "../../etc/passwd",
        "0.0.0.0/0",
        "::/0",
        "::ffff:203.0.113.9",
        "127.0.0.1",
        "224.0.0.1",
        "1.2.3.4/33",
        "1.2.3.4/-1",
        "256.1.1.1",
        "1e9",
        "9223372036854775808",
        "-9223372036854775808",
        "00000000-0000-0000-0000-000000000000",
        "not-a-uuid",
        "2026-13-45T99:99:99Z",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
    ];
    values.extend(texts.iter().map(|text| json!(text)));
    values.push(json!("x".repeat(100_000)));
    values.push(json!("é\u{301}".repeat(20_000)));
    values.push(json!("1.2.3.4\n".repeat(30_000)));
    values.push(json!("\"".repeat(5_000)));
    values
}

/// The body with one leaf after the other replaced or left out.
fn mutations(body: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for path in leaves(body, String::new()) {
        for nasty in nasty_values() {
            let mut changed = body.clone();
            *changed.pointer_mut(&path).unwrap() = nasty;
            all.push(changed);
        }
        let (parent, name) = path.rsplit_once('/').unwrap();
        let mut without = body.clone();
        if let Some(object) = without.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(name);
            all.push(without);
        }
    }
    all.extend(nasty_values());
    all
}

fn leaves(value: &Value, path: String) -> Vec<String> {
    let mut all: Vec<String> = match value {
        Value::Object(object) => {
            object.iter().flat_map(|(name, value)| leaves(value, format!("{path}/{name}"))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(place, value)| leaves(value, format!("{path}/{place}"))).collect()
        }
        _ => Vec::new(),
    };
    if !path.is_empty() {
        all.push(path);
    }
    all
}

fn check(what: &str, status: StatusCode, said: &str) {
    let short: String = what.chars().take(200).collect();
    assert!(!status.is_server_error(), "{short}: {status} {said}");
    if !status.is_success() {
        let error: Result<ApiError, _> = serde_json::from_str(said);
        assert!(error.is_ok(), "{short}: {status} {said}");
    }
}

/// Hashing passwords takes long, and what fails before it is tried by the other functions, too.
fn is_slow(operation: Operation) -> bool {
    matches!(operation, Operation::SignUp | Operation::LogIn | Operation::ResetPassword | Operation::PasswordStrength)
}

async fn try_all(operations: impl Iterator<Item = Operation>) {
    let server = TestServer::start().await;
    for operation in operations {
        let Route::ServerFn(path) = route(operation) else { continue };
        let tenant = server.tenant(&format!("t{}", uuid::Uuid::now_v7().simple())[..30]).await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        let things = Things::make(&server, &admin, tenant).await;
        let stage = match (operation, operation.need()) {
            (Operation::BeginTotp | Operation::ConfirmTotp, _) => Stage::NeedsTotpSetup,
            (_, Need::Password) => Stage::NeedsCode,
            _ => Stage::SignedIn,
        };
        let person = server.person_at(tenant, Role::SuperAdministrator, stage).await;
        for body in mutations(&body(operation, &things)) {
            let sent = body.to_string();
            let response = server.post(&person, &path, sent.clone()).await;
            check(&format!("{path} {sent}"), response.status(), &text(response).await);
        }
        for raw in
            [&b""[..], b"{", b"\"", b"\xff\xfe", b"form=1&insist=true", &[0; 1000], "[".repeat(50_000).as_bytes()]
        {
            let response = server.post(&person, &path, raw.to_vec()).await;
            check(&format!("{path} {raw:?}"), response.status(), &text(response).await);
        }
    }
}

#[tokio::test]
async fn server_functions_of_lists() {
    try_all(Operation::ALL.iter().copied().filter(|operation| matches!(operation.need(), Need::Permission(_)))).await;
}

#[tokio::test]
async fn server_functions_of_accounts() {
    try_all(
        Operation::ALL
            .iter()
            .copied()
            .filter(|operation| !matches!(operation.need(), Need::Permission(_)) && !is_slow(*operation)),
    )
    .await;
}

#[tokio::test]
async fn server_functions_that_hash() {
    let server = TestServer::start().await;
    let tenant = server.tenant("hashes").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    let things = Things::make(&server, &admin, tenant).await;
    for operation in Operation::ALL.iter().copied().filter(|operation| is_slow(*operation)) {
        let Route::ServerFn(path) = route(operation) else { continue };
        let sample = body(operation, &things);
        for leaf in leaves(&sample, String::new()) {
            for nasty in [
                json!("\u{0}"),
                json!(""),
                json!("' OR 1=1 --"),
                json!("x".repeat(100_000)),
                json!(7),
                json!(["\u{0}"]),
            ] {
                let mut changed = sample.clone();
                *changed.pointer_mut(&leaf).unwrap() = nasty;
                let response = server.post(&stranger(), &path, changed.to_string()).await;
                check(&format!("{path} {leaf}"), response.status(), &text(response).await);
            }
        }
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() {
    let server = TestServer::start().await;
    let tenant = server.tenant("large").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    let csv = json!({ "csv": "x".repeat(3 * 1024 * 1024) }).to_string();
    let response = server.post(&admin, "/api/allowed_ips/import", csv).await;
    // Not read at all: within the limit the same file would be understood, and refused with 422.
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    check("3 MB", response.status(), &text(response).await);
}

#[tokio::test]
async fn queries_of_pages_and_files() {
    let server = TestServer::start().await;
    let tenant = server.tenant("queries").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    for path in [
        "/csv/blocked-ips",
        "/csv/allowed-ips",
        "/blocked-ips",
        "/allowed-ips",
        "/audit",
        "/pbxes",
        "/people",
        "/sessions",
        "/invitation",
        "/verify",
        "/reset",
        "/login",
    ] {
        for query in [
            "?search=%00",
            "?search='",
            "?search=%25",
            "?pbx_id=x",
            "?source=nobody",
            "?ban=x",
            "?token=%00",
            "?after=x",
            "?next=//evil.example",
            "?%ff=%fe",
            "?__err=x&__path=y",
        ] {
            let response = server.get(&admin, &format!("{path}{query}")).await;
            let status = response.status();
            assert!(!status.is_server_error(), "{path}{query}: {status} {}", text(response).await);
        }
    }
}

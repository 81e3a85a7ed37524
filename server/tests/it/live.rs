//! The stream of hints: begins at once, tells of the tenant's changes and no others, ends with the session.

use std::time::Duration;

use axum::response::Response;
use futures::StreamExt as _;
use http::StatusCode;
use policy::authz::{Operation, Role};
use serde_json::{Value, json};
use store::testing::TestDb;
use tokio::time::timeout;

use crate::support::{TestServer, wide};

/// Reads until a text comes, the stream ends, or it takes too long.
async fn read_until(
    body: &mut (impl futures::Stream<Item = Result<axum::body::Bytes, axum::Error>> + Unpin),
    wanted: &str,
    longest: Duration,
) -> Option<String> {
    let mut seen = String::new();
    timeout(longest, async {
        while let Some(Ok(bytes)) = body.next().await {
            seen += &String::from_utf8_lossy(&bytes);
            if seen.contains(wanted) {
                return true;
            }
        }
        false
    })
    .await
    .unwrap_or(false)
    .then_some(seen)
}

fn body(response: Response) -> impl futures::Stream<Item = Result<axum::body::Bytes, axum::Error>> + Unpin {
    response.into_body().into_data_stream()
}

#[tokio::test]
async fn changes_of_the_tenant_are_told_and_those_of_others_are_not() {
    let server = TestServer::start().await;
    let (ours, theirs) = (server.tenant("ours").await, server.tenant("theirs").await);
    let us = server.person(ours, Role::Auditor).await;
    let admin = server.person(ours, Role::SuperAdministrator).await;
    let them = server.person(theirs, Role::SuperAdministrator).await;
    let mut stream = body(server.get(&us, "/live").await);
    read_until(&mut stream, "event: ready", Duration::from_secs(5)).await.expect("it begins at once");
    // Listening on the database begins with a hint to look at everything.
    let _ = read_until(&mut stream, "nothing", Duration::from_secs(2)).await;
    let _: Value = server.done(&them, Operation::AddPbx, json!({ "name": "theirs" })).await;
    assert!(read_until(&mut stream, "pbxes", Duration::from_millis(500)).await.is_none(), "a change of theirs");
    let _: Value = server.done(&admin, Operation::AddPbx, json!({ "name": "ours" })).await;
    let seen = read_until(&mut stream, r#"{"topic":"pbxes"}"#, Duration::from_secs(5)).await.expect("a change of ours");
    assert!(seen.contains("event: change"));
}

#[tokio::test]
async fn the_stream_ends_with_the_session() {
    let server = TestServer::start().await;
    let tenant = server.tenant("ends").await;
    let person = server.person(tenant, Role::Auditor).await;
    let mut stream = body(server.get(&person, "/live").await);
    read_until(&mut stream, "event: ready", Duration::from_secs(5)).await.expect("it begins");
    let _: () = server.done(&person, Operation::LogOut, json!({})).await;
    let ended = timeout(Duration::from_secs(10), async { while stream.next().await.is_some() {} }).await;
    assert!(ended.is_ok(), "the stream went on after the session");
}

/// On every node: what a person may no longer see is no longer on her screen.
#[tokio::test]
async fn who_loses_access_is_told_at_once_wherever_she_is() {
    for operation in [Operation::RemovePerson, Operation::SuspendPerson, Operation::ChangeRole, Operation::EndSession] {
        let db = TestDb::new().await;
        let (server, other) = (TestServer::on(&db, wide()).await, TestServer::on(&db, wide()).await);
        let tenant = server.tenant("access").await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        let person = server.person(tenant, Role::SecurityOperator).await;
        let mut streams = Vec::new();
        for node in [&server, &other] {
            let mut stream = body(node.get(&person, "/live").await);
            read_until(&mut stream, "event: ready", Duration::from_secs(5)).await.expect("it begins");
            streams.push(stream);
        }
        // Listening on the database begins with a hint to look at everything.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let id = if operation == Operation::EndSession { person.session.0 } else { person.user_id.0 };
        let _: () = server.done(&admin, operation, json!({ "id": id, "role": "auditor" })).await;
        for stream in &mut streams {
            // By the hint, not by the look that comes every five seconds.
            let told = read_until(stream, "event: ended", Duration::from_secs(3)).await;
            assert!(told.is_some(), "{operation:?}");
        }
        for node in [&server, &other] {
            let answer = node.call(&person, Operation::ListPbxes, &json!({})).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{operation:?}");
        }
    }
}

#[tokio::test]
async fn the_stream_ends_when_the_server_stops() {
    let server = TestServer::start().await;
    let tenant = server.tenant("stops").await;
    let person = server.person(tenant, Role::Auditor).await;
    let mut stream = body(server.get(&person, "/live").await);
    server.stopping.cancel();
    timeout(Duration::from_secs(5), async { while stream.next().await.is_some() {} }).await.expect("it ends at once");
}

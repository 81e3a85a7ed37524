//! Every path that the server answers is an operation of `policy::authz`, and every operation answers to each role, and to
//! people who are not signed in, as that table says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use http::StatusCode;
use policy::account::Stage;
use policy::authz::{Need, Operation, Role};

use crate::samples::{Things, body};
use crate::support::{Answer, Route, TestServer, route, stranger};

#[tokio::test]
async fn every_server_function_is_an_operation_and_every_operation_is_reached() {
    let served: BTreeSet<String> = server::http::server_functions().into_iter().map(str::to_owned).collect();
    let listed: BTreeSet<String> = Operation::ALL
        .iter()
        .filter_map(|operation| match route(*operation) {
            Route::ServerFn(path) => Some(path),
            Route::Get(_) | Route::Rpc => None,
        })
        .collect();
    assert_eq!(served, listed, "a server function without an operation, or an operation that nothing serves");
    // What is no server function is listed here, so that a new one is noticed; the RPCs are those of agent.proto.
    let others: Vec<&str> = Operation::ALL
        .iter()
        .filter(|operation| !matches!(route(**operation), Route::ServerFn(_)))
        .map(|operation| operation.path())
        .collect();
    assert_eq!(others, ["allowed_ips/export", "blocked_ips/export", "live", "agent/enrol", "agent/link"]);
    let rpcs = include_str!("../../../proto/proto/ringfence/agent/v1/agent.proto")
        .lines()
        .filter(|line| line.trim().starts_with("rpc "))
        .count();
    assert_eq!(rpcs, 2, "a new RPC needs an operation");
}

fn verdict(answer: &Answer) -> &'static str {
    match (answer.status, answer.code().as_str()) {
        (StatusCode::UNAUTHORIZED, "signed_out") => "signed out",
        (StatusCode::UNAUTHORIZED, _) => "second factor",
        (StatusCode::FORBIDDEN, _) => "forbidden",
        (status, _) => {
            assert!(!status.is_server_error(), "{answer:?}");
            "may"
        }
    }
}

#[tokio::test]
async fn every_operation_answers_each_role_as_the_table_says() {
    let server = TestServer::start().await;
    let tenant = server.tenant("matrix").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    let things = Things::make(&server, &admin, tenant).await;
    let mut table = String::new();
    for operation in Operation::ALL.iter().copied().filter(|operation| !matches!(route(*operation), Route::Rpc)) {
        let body = body(operation, &things);
        let mut row = format!("{:<32}", operation.path());
        for stage in [Stage::SignedOut, Stage::NeedsCode, Stage::NeedsTotpSetup] {
            let person = match stage {
                Stage::SignedOut => stranger(),
                _ => server.person_at(tenant, Role::SuperAdministrator, stage).await,
            };
            let said = verdict(&server.call(&person, operation, &body).await);
            match operation.need() {
                Need::Nothing => assert_eq!(said, "may", "{} at {stage:?}", operation.path()),
                Need::Password if stage == Stage::SignedOut => assert_eq!(said, "signed out", "{}", operation.path()),
                Need::Password => {}
                Need::Session | Need::Permission(_) => {
                    let expected = if stage == Stage::SignedOut { "signed out" } else { "second factor" };
                    assert_eq!(said, expected, "{} at {stage:?}", operation.path());
                }
                Need::EnrolmentToken | Need::PbxCertificate => unreachable!("an RPC"),
            }
            write!(row, " {said:<14}").unwrap();
        }
        // The mightiest last: what she does can't be done again.
        for role in Role::ALL.into_iter().rev() {
            let person = server.person(tenant, role).await;
            let said = verdict(&server.call(&person, operation, &body).await);
            if operation.need() != Need::Password {
                assert_eq!(said == "may", operation.allowed_for(role), "{} as {role:?}: {said}", operation.path());
            }
            write!(row, " {said:<10}").unwrap();
        }
        writeln!(table, "{}", row.trim_end()).unwrap();
    }
    let heading = format!(
        "{:<32} {:<14} {:<14} {:<14} {:<10} {:<10} {:<10} super",
        "operation", "signed out", "needs code", "needs set-up", "auditor", "operator", "admin"
    );
    insta::assert_snapshot!(format!("{heading}\n{table}"));
}

#[tokio::test]
async fn a_session_that_names_a_tenant_without_a_role_there_opens_nothing() {
    let server = TestServer::start().await;
    let tenant = server.tenant("taken").await;
    let other = server.tenant("other").await;
    let person = server.person(tenant, Role::SuperAdministrator).await;
    assert_eq!(server.call(&person, Operation::ListPbxes, &serde_json::json!({})).await.status, StatusCode::OK);
    // A session that names a tenant in which the person has no role.
    let login = actions::Login::complete(person.user_id, Some(other), server.ctx.now());
    let (cookie, _) = server.session(&login).await;
    let elsewhere = crate::support::Person { cookie, ..person };
    assert_eq!(
        server.call(&elsewhere, Operation::ListPbxes, &serde_json::json!({})).await.status,
        StatusCode::UNAUTHORIZED
    );
}

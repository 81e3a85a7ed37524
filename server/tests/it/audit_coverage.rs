//! Every operation that changes something leaves an audit row: done or refused, in the tenant's log or, where there is no
//! tenant yet, in the installation's.

use policy::account::Stage;
use policy::authz::{Need, Operation, Role};
use policy::ids::TenantId;
use uuid::Uuid;

use crate::samples::{Things, body};
use crate::support::{Route, TestServer, route};

const INSTALLATION: TenantId = TenantId(Uuid::nil());

#[tokio::test]
async fn every_change_leaves_a_row() {
    let server = TestServer::start().await;
    for operation in Operation::ALL.iter().copied().filter(|operation| operation.changes()) {
        if matches!(route(operation), Route::Rpc) {
            // See rpc.rs.
            continue;
        }
        let tenant = server.tenant(&format!("t{}", Uuid::now_v7().simple())[..30]).await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        let things = Things::make(&server, &admin, tenant).await;
        let stage = match (operation, operation.need()) {
            (Operation::BeginTotp | Operation::ConfirmTotp, _) => Stage::NeedsTotpSetup,
            (_, Need::Password) => Stage::NeedsCode,
            _ => Stage::SignedIn,
        };
        let person = server.person_at(tenant, Role::SuperAdministrator, stage).await;
        let rows = async || server.audited(tenant, operation).await + server.audited(INSTALLATION, operation).await;
        let before = rows().await;
        let answer = server.call(&person, operation, &body(operation, &things)).await;
        assert!(!answer.status.is_server_error(), "{}: {answer:?}", operation.path());
        assert_eq!(rows().await, before + 1, "{} left no row, or several: {answer:?}", operation.path());
        if let Need::Permission(_) = operation.need() {
            assert!(answer.status.is_success(), "the sample must succeed: {} {answer:?}", operation.path());
        }
    }
}

#[tokio::test]
async fn a_refusal_leaves_a_row_and_changes_nothing() {
    let server = TestServer::start().await;
    let tenant = server.tenant("refusals").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    let auditor = server.person(tenant, Role::Auditor).await;
    let things = Things::make(&server, &admin, tenant).await;
    let state = async || {
        let lists = [
            Operation::ListPbxes,
            Operation::ShowPhoneLossLimit,
            Operation::ListAllowedIps,
            Operation::ListBlockedIps,
            Operation::ListPeople,
        ];
        let mut all = String::new();
        for list in lists {
            let everything = match list {
                Operation::ListAllowedIps => serde_json::json!({ "search": "", "after": null }),
                Operation::ListBlockedIps => serde_json::json!({ "filter": {}, "after": null }),
                _ => serde_json::json!({}),
            };
            all += &server.call(&admin, list, &everything).await.text;
        }
        all
    };
    let before = state().await;
    for operation in Operation::ALL
        .iter()
        .copied()
        .filter(|operation| operation.changes() && matches!(operation.need(), Need::Permission(_)))
    {
        let rows = server.audited(tenant, operation).await;
        let answer = server.call(&auditor, operation, &body(operation, &things)).await;
        assert_eq!(answer.code(), "forbidden", "{}", operation.path());
        assert_eq!(server.audited(tenant, operation).await, rows + 1, "{}", operation.path());
    }
    assert_eq!(state().await, before);
    let verdict: policy::audit::ChainVerdict = server.done(&admin, Operation::VerifyAudit, serde_json::json!({})).await;
    assert_eq!(verdict.broken, None);
}

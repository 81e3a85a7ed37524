//! With the session of one tenant and the ids of another, everything that takes an id answers "not found", and nothing of
//! the other one is seen or changed.

use http::StatusCode;
use policy::authz::{Operation, Role};
use serde_json::{Value, json};

use crate::samples::{Things, body};
use crate::support::{Person, Route, TestServer, route};

/// Whether the body of an operation names something by its id. Exhaustive, so that a new operation must say.
fn takes_id(operation: Operation) -> bool {
    match operation {
        Operation::SwitchTenant
        | Operation::ResendInvitation
        | Operation::EndSession
        | Operation::EndOwnSession
        | Operation::WithdrawInvitation
        | Operation::ChangeRole
        | Operation::SuspendPerson
        | Operation::ReinstatePerson
        | Operation::RemovePerson
        | Operation::TransferOwnership
        | Operation::RenewEnrolment
        | Operation::RenamePbx
        | Operation::RevokePbx
        | Operation::RemovePbx
        | Operation::EditAllowedIp
        | Operation::DeleteAllowedIps
        | Operation::ShowBlockedIp
        | Operation::UnblockIps
        | Operation::UnblockAndAllow => true,
        // Agents name nothing but themselves, by their certificate: rpc.rs. Filters are tried below.
        Operation::EnrolAgent
        | Operation::LinkAgent
        | Operation::SignUp
        | Operation::VerifyEmail
        | Operation::PasswordStrength
        | Operation::LogIn
        | Operation::LogInCode
        | Operation::LogInRecoveryCode
        | Operation::LogOut
        | Operation::StepUp
        | Operation::RequestPasswordReset
        | Operation::ResetPassword
        | Operation::BeginTotp
        | Operation::ConfirmTotp
        | Operation::Me
        | Operation::ShowInvitation
        | Operation::AcceptInvitation
        | Operation::JoinTenant
        | Operation::ListPeople
        | Operation::ListOwnSessions
        | Operation::EndOtherSessions
        | Operation::ListSessions
        | Operation::InvitePerson
        | Operation::ShowOverview
        | Operation::ShowEnforcement
        | Operation::ListPbxes
        | Operation::AddPbx
        | Operation::ShowPhoneLossLimit
        | Operation::SetPhoneLossLimit
        | Operation::ListAllowedIps
        | Operation::AddAllowedIp
        | Operation::AllowMyAddress
        | Operation::ImportAllowedIps
        | Operation::ExportAllowedIps
        | Operation::ListBlockedIps
        | Operation::BlockIp
        | Operation::UnblockMatching
        | Operation::ExportBlockedIps
        | Operation::ListAudit
        | Operation::VerifyAudit
        | Operation::WatchLive => false,
    }
}

/// Two tenants with a Super administrator and the same kind of things each.
async fn two(server: &TestServer) -> [(Person, Things); 2] {
    let mut both = Vec::new();
    for name in ["ours", "theirs"] {
        let tenant = server.tenant(name).await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        let things = Things::make(server, &admin, tenant).await;
        both.push((admin, things));
    }
    both.try_into().unwrap()
}

/// Everything that the tenant of a person shows.
async fn everything(server: &TestServer, person: &Person) -> String {
    let mut all = String::new();
    for (list, body) in [
        (Operation::ListPbxes, json!({})),
        (Operation::ShowPhoneLossLimit, json!({})),
        (Operation::ListAllowedIps, json!({ "search": "", "after": null })),
        (Operation::ListBlockedIps, json!({ "filter": {}, "after": null })),
        (Operation::ListPeople, json!({})),
        (Operation::ListSessions, json!({})),
        (Operation::ListAudit, json!({ "filter": {}, "after": null })),
    ] {
        all += &server.call(person, list, &body).await.text;
    }
    all
}

#[tokio::test]
async fn ids_of_another_tenant_are_not_found() {
    let server = TestServer::start().await;
    let [(us, _), (them, theirs)] = two(&server).await;
    let before = everything(&server, &them).await;
    for operation in Operation::ALL.iter().copied().filter(|operation| takes_id(*operation)) {
        assert!(matches!(route(operation), Route::ServerFn(_)));
        let answer = server.call(&us, operation, &body(operation, &theirs)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::NOT_FOUND, "not_found"),
            "{}: {answer:?}",
            operation.path()
        );
        let own = server.call(&them, Operation::Me, &json!({})).await;
        assert_eq!(own.status, StatusCode::OK);
    }
    assert_eq!(everything(&server, &them).await, before, "something of theirs changed");
}

#[tokio::test]
async fn a_mixture_of_own_and_foreign_ids_touches_only_the_own() {
    let server = TestServer::start().await;
    let [(us, ours), (them, theirs)] = two(&server).await;
    let before = everything(&server, &them).await;
    let ended: i64 = server.done(&us, Operation::UnblockIps, json!({ "ids": [ours.ban, theirs.ban] })).await;
    let deleted: i64 = server
        .done(&us, Operation::DeleteAllowedIps, json!({ "ids": [theirs.allowed_ip, ours.allowed_ip], "insist": false }))
        .await;
    assert_eq!((ended, deleted), (1, 1));
    assert_eq!(everything(&server, &them).await, before);
}

#[tokio::test]
async fn filters_and_files_show_nothing_of_another_tenant() {
    let server = TestServer::start().await;
    let [(us, _), (them, theirs)] = two(&server).await;
    let form = json!({ "net": "203.0.113.77", "duration": "permanent", "reason": "theirs alone" });
    let _: Value = server.done(&them, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    let before = everything(&server, &them).await;
    let by_pbx = json!({ "filter": { "search": "", "source": null, "pbx_id": theirs.pbx }, "after": null });
    let page: Value = server.done(&us, Operation::ListBlockedIps, by_pbx.clone()).await;
    assert_eq!(page["total"], 0);
    let none: i64 = server.done(&us, Operation::UnblockMatching, by_pbx).await;
    assert_eq!(none, 0);
    for path in [
        "/csv/blocked-ips".to_owned(),
        format!("/csv/blocked-ips?pbx_id={}", theirs.pbx),
        "/csv/allowed-ips".to_owned(),
    ] {
        let file = crate::support::text(server.get(&us, &path).await).await;
        assert!(!file.contains("203.0.113.77"), "{path}: {file}");
    }
    let seen = everything(&server, &us).await;
    for secret in ["203.0.113.77", "theirs alone", &them.email, &theirs.pbx.to_string(), &theirs.ban.to_string()] {
        assert!(!seen.contains(secret), "{secret}");
    }
    assert_eq!(everything(&server, &them).await, before);
}

#[tokio::test]
async fn cursors_of_another_tenant_lead_nowhere_foreign() {
    let server = TestServer::start().await;
    let [(us, ours), (them, _)] = two(&server).await;
    for number in 0..60 {
        let form = json!({ "net": format!("203.0.113.{number}"), "duration": "permanent", "reason": "filler" });
        let _: Value = server.done(&them, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    }
    let theirs: Value = server.done(&them, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await;
    let cursor = theirs["next"].as_str().expect("a second page").to_owned();
    let page: Value = server.done(&us, Operation::ListBlockedIps, json!({ "filter": {}, "after": cursor })).await;
    for row in page["rows"].as_array().unwrap() {
        assert_eq!(row["id"], json!(ours.ban));
    }
}

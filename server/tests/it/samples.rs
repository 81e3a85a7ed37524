//! For every operation a body with which it succeeds, given things that exist.

use policy::authz::Operation;
use policy::authz::Role;
use policy::ids::{AllowedIpId, BanId, InvitationId, PbxId, SessionId, TenantId, UserId};
use policy::pbxes::EnrolmentCommand;
use policy::people::People;
use serde_json::{Value, json};

use crate::support::{Person, TestServer};

/// Things of one tenant.
#[derive(Debug, Clone)]
pub struct Things {
    pub tenant: TenantId,
    pub pbx: PbxId,
    pub allowed_ip: AllowedIpId,
    pub ban: BanId,
    /// Another Administrator, who isn't suspended.
    pub person: UserId,
    /// One who is.
    pub suspended: UserId,
    pub invitation: InvitationId,
    /// Of that Administrator.
    pub session: SessionId,
}

impl Things {
    /// Makes some.
    pub async fn make(server: &TestServer, admin: &Person, tenant: TenantId) -> Self {
        let pbx: EnrolmentCommand = server.done(admin, Operation::AddPbx, json!({ "name": "first" })).await;
        let form = json!({ "target": "198.51.100.0/28", "note": "", "expires_at": "" });
        let added: Value = server.done(admin, Operation::AddAllowedIp, json!({ "form": form, "insist": false })).await;
        let form = json!({ "net": "203.0.113.200", "duration": "3600", "reason": "scanner" });
        let blocked: Value = server.done(admin, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
        let (person, suspended) =
            (server.person(tenant, Role::Administrator).await, server.person(tenant, Role::Auditor).await);
        server.with_totp(person.user_id).await;
        let _: () = server.done(admin, Operation::SuspendPerson, json!({ "id": suspended.user_id })).await;
        let invited = json!({ "email": format!("{}@invited.test", tenant.0.simple()), "role": "auditor" });
        let _: () = server.done(admin, Operation::InvitePerson, invited).await;
        let people: People = server.done(admin, Operation::ListPeople, json!({})).await;
        let id = |value: &Value| value["id"].as_str().unwrap().parse().unwrap();
        Self {
            tenant,
            pbx: pbx.pbx_id,
            allowed_ip: AllowedIpId(id(&added)),
            ban: BanId(id(&blocked)),
            person: person.user_id,
            suspended: suspended.user_id,
            invitation: people.invitations[0].id,
            session: person.session,
        }
    }
}

/// A body for an operation; file routes and streams have none.
pub fn body(operation: Operation, things: &Things) -> Value {
    let filter = json!({ "search": "", "source": null, "pbx_id": things.pbx });
    match operation {
        Operation::Me
        | Operation::LogOut
        | Operation::BeginTotp
        | Operation::ShowOverview
        | Operation::ShowEnforcement
        | Operation::ListPbxes
        | Operation::ShowPhoneLossLimit
        | Operation::AllowMyAddress
        | Operation::ListPeople
        | Operation::ListOwnSessions
        | Operation::EndOtherSessions
        | Operation::ListSessions
        | Operation::VerifyAudit => json!({}),
        Operation::SignUp => {
            json!({ "form": { "organisation": "New Ltd", "slug": "new-ltd", "email": "ann@new.test", "password": crate::support::PASSWORD } })
        }
        Operation::PasswordStrength => json!({ "password": "swordfish", "words": ["fish"] }),
        Operation::LogIn => json!({ "email": "ann@new.test", "password": "wrong password" }),
        Operation::LogInCode | Operation::LogInRecoveryCode | Operation::StepUp | Operation::ConfirmTotp => {
            json!({ "code": "000000" })
        }
        Operation::RequestPasswordReset => json!({ "email": "ann@new.test" }),
        Operation::VerifyEmail | Operation::ResetPassword => {
            json!({ "token": "unknown", "password": crate::support::PASSWORD })
        }
        Operation::EndOwnSession | Operation::EndSession => json!({ "id": things.session }),
        Operation::ShowInvitation | Operation::JoinTenant => json!({ "token": "unknown" }),
        Operation::AcceptInvitation => json!({ "token": "unknown", "password": crate::support::PASSWORD }),
        Operation::InvitePerson => json!({ "email": "another@people.test", "role": "security_operator" }),
        Operation::ResendInvitation | Operation::WithdrawInvitation => json!({ "id": things.invitation }),
        Operation::ChangeRole => json!({ "id": things.person, "role": "auditor" }),
        Operation::SuspendPerson | Operation::RemovePerson | Operation::TransferOwnership => {
            json!({ "id": things.person })
        }
        Operation::ReinstatePerson => json!({ "id": things.suspended }),
        Operation::SwitchTenant => json!({ "tenant_id": things.tenant }),
        Operation::AddPbx => json!({ "name": "second" }),
        Operation::RenewEnrolment | Operation::RevokePbx | Operation::RemovePbx => json!({ "id": things.pbx }),
        Operation::RenamePbx => json!({ "id": things.pbx, "name": "renamed" }),
        Operation::SetPhoneLossLimit => json!({ "percent": "35" }),
        Operation::ListAllowedIps => json!({ "search": "198.51.100.1", "after": null }),
        Operation::AddAllowedIp => {
            json!({ "form": { "target": "192.0.2.64/28", "note": "office", "expires_at": "2100-01-01T00:00:00Z" }, "insist": false })
        }
        Operation::EditAllowedIp => {
            json!({ "id": things.allowed_ip, "form": { "target": "192.0.2.128/28", "note": "", "expires_at": "" }, "insist": false })
        }
        Operation::DeleteAllowedIps => json!({ "ids": [things.allowed_ip], "insist": false }),
        Operation::ImportAllowedIps => json!({ "csv": "target,note\n192.0.2.200,imported\n" }),
        Operation::ListBlockedIps => json!({ "filter": filter, "after": null }),
        Operation::ShowBlockedIp => json!({ "id": things.ban }),
        Operation::BlockIp => {
            json!({ "form": { "net": "203.0.113.9", "duration": "permanent", "reason": "scanner" }, "insist": false })
        }
        Operation::UnblockIps => json!({ "ids": [things.ban] }),
        Operation::UnblockMatching => {
            json!({ "filter": { "search": "203.0.113.200", "source": null, "pbx_id": null } })
        }
        Operation::UnblockAndAllow => json!({ "ids": [things.ban], "note": "customer" }),
        Operation::ListAudit => {
            json!({ "filter": { "search": "x", "action": "pbxes/", "outcome": "done" }, "after": null })
        }
        Operation::ExportAllowedIps
        | Operation::ExportBlockedIps
        | Operation::WatchLive
        | Operation::EnrolAgent
        | Operation::LinkAgent => Value::Null,
    }
}

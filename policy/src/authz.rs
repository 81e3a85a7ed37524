//! Who may do what: one exhaustive table of operations, the permission that each needs, and what each role may.
//! Pages hide by it, actions refuse by it, tests print it.

use serde::{Deserialize, Serialize};

/// What a role may do, in the grain in which roles differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See the overview, PBXes, allowed and blocked IPs.
    ReadNetwork,
    /// Allow addresses.
    WriteAllowedIps,
    /// Block and unblock addresses.
    WriteBlockedIps,
    /// Add, rename, revoke and remove PBXes, and say which changes they take back.
    WritePbxes,
    /// Read, export and verify the audit log.
    ReadAudit,
    /// See who has access.
    ReadPeople,
    /// Invite people, change their roles, suspend and remove them.
    WritePeople,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ReadNetwork,
        Self::WriteAllowedIps,
        Self::WriteBlockedIps,
        Self::WritePbxes,
        Self::ReadAudit,
        Self::ReadPeople,
        Self::WritePeople,
    ];

    /// What it allows, in plain words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ReadNetwork => "see the overview, PBXes, allowed and blocked IPs",
            Self::WriteAllowedIps => "allow addresses",
            Self::WriteBlockedIps => "block and unblock addresses",
            Self::WritePbxes => "add, rename, revoke and remove PBXes, and say which changes they take back",
            Self::ReadAudit => "read and verify the audit log",
            Self::ReadPeople => "see who has access",
            Self::WritePeople => {
                "invite people of the same rank or a lower one, change their roles, suspend and remove them"
            }
        }
    }
}

/// What a person is in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, people and roles included; the first person of a tenant.
    SuperAdministrator,
    /// Everything but people of higher rank.
    Administrator,
    /// Reads all, blocks and allows.
    SecurityOperator,
    /// Reads all, changes nothing.
    Auditor,
}

impl Role {
    /// All of them, from the mightiest down.
    pub const ALL: [Self; 4] = [Self::SuperAdministrator, Self::Administrator, Self::SecurityOperator, Self::Auditor];

    /// The stable name used in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuperAdministrator => "super_administrator",
            Self::Administrator => "administrator",
            Self::SecurityOperator => "security_operator",
            Self::Auditor => "auditor",
        }
    }

    /// The role of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::SuperAdministrator => "Super administrator",
            Self::Administrator => "Administrator",
            Self::SecurityOperator => "Security operator",
            Self::Auditor => "Auditor",
        }
    }

    /// What it is for, in a few words.
    pub fn summary(self) -> &'static str {
        match self {
            Self::SuperAdministrator => "everything",
            Self::Administrator => "everything but Super administrators",
            Self::SecurityOperator => "sees all, blocks and allows",
            Self::Auditor => "sees all, changes nothing",
        }
    }

    /// Whether who has this role may give the other one, or change the access of who has that. Nobody makes anybody mightier than
    /// himself, nor touches who is.
    pub fn may_manage(self, other: Self) -> bool {
        self.may(Permission::WritePeople) && (self == Self::SuperAdministrator || other != Self::SuperAdministrator)
    }

    /// Whether the role holds a permission.
    pub fn may(self, permission: Permission) -> bool {
        match (self, permission) {
            (Self::SuperAdministrator | Self::Administrator, _)
            | (Self::SecurityOperator, Permission::WriteAllowedIps | Permission::WriteBlockedIps)
            | (_, Permission::ReadNetwork | Permission::ReadAudit | Permission::ReadPeople) => true,
            (Self::SecurityOperator | Self::Auditor, Permission::WritePbxes | Permission::WritePeople)
            | (Self::Auditor, Permission::WriteAllowedIps | Permission::WriteBlockedIps) => false,
        }
    }
}

/// What an operation needs of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Anyone.
    Nothing,
    /// A session that has passed the password but not the second factor.
    Password,
    /// A complete session.
    Session,
    /// A complete session in a tenant, with this permission there.
    Permission(Permission),
    /// A valid enrolment token.
    EnrolmentToken,
    /// The certificate of a PBX that isn't revoked.
    PbxCertificate,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $path:literal, $need:expr, $changes:literal;)*) => {
        /// Everything that can be asked of the server: server functions, streams, file routes and RPCs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its stable name: the path of the server function below `/api/`, the name in the audit log.
            pub fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* }
            }

            /// What it needs of the caller.
            pub fn need(self) -> Need {
                match self { $(Self::$name => $need,)* }
            }

            /// Whether it changes something, and so leaves an audit row.
            pub fn changes(self) -> bool {
                match self { $(Self::$name => $changes,)* }
            }

            /// The operation of a stable name.
            pub fn from_path(path: &str) -> Option<Self> {
                match path { $($path => Some(Self::$name),)* _ => None }
            }
        }
    };
}

operations! {
    /// Ask for a new tenant; a mail with a link follows.
    SignUp = "account/sign_up", Need::Nothing, true;
    /// Follow the link of the sign-up mail: the tenant and its first person are made.
    VerifyEmail = "account/verify_email", Need::Nothing, true;
    /// How strong a password is.
    PasswordStrength = "account/password_strength", Need::Nothing, false;
    /// Log in with e-mail address and password.
    LogIn = "account/log_in", Need::Nothing, true;
    /// Complete a login with a TOTP code.
    LogInCode = "account/log_in_code", Need::Password, true;
    /// Complete a login with a recovery code.
    LogInRecoveryCode = "account/log_in_recovery_code", Need::Password, true;
    /// End the session.
    LogOut = "account/log_out", Need::Nothing, true;
    /// Show the second factor again, before something that asks for a fresh one.
    StepUp = "account/step_up", Need::Session, true;
    /// Ask for a mail with a link to set a new password.
    RequestPasswordReset = "account/request_password_reset", Need::Nothing, true;
    /// Follow that link.
    ResetPassword = "account/reset_password", Need::Nothing, true;
    /// Begin to set up TOTP: the QR code and the key.
    BeginTotp = "account/begin_totp", Need::Password, true;
    /// Prove the TOTP set-up with a code; gives the recovery codes.
    ConfirmTotp = "account/confirm_totp", Need::Password, true;
    /// Who the session is: person, tenants, role, permissions, what is still missing.
    Me = "account/me", Need::Nothing, false;
    /// Work in another of one's tenants.
    SwitchTenant = "account/switch_tenant", Need::Session, true;
    /// What an invitation offers, by the link of its mail.
    ShowInvitation = "account/show_invitation", Need::Nothing, false;
    /// Accept an invitation as somebody new: an account is made.
    AcceptInvitation = "account/accept_invitation", Need::Nothing, true;
    /// Accept an invitation with the account that one has.
    JoinTenant = "account/join_tenant", Need::Session, true;
    /// List one's own sessions, wherever they are.
    ListOwnSessions = "sessions/list_own", Need::Session, false;
    /// End one of one's own sessions.
    EndOwnSession = "sessions/end_own", Need::Session, true;
    /// End all of one's own sessions but this one.
    EndOtherSessions = "sessions/end_others", Need::Session, true;
    /// List the sessions of everybody in the tenant.
    ListSessions = "sessions/list", Need::Permission(Permission::ReadPeople), false;
    /// End somebody's session.
    EndSession = "sessions/end", Need::Permission(Permission::WritePeople), true;
    /// List who has access, and who is invited.
    ListPeople = "people/list", Need::Permission(Permission::ReadPeople), false;
    /// Invite somebody by mail.
    InvitePerson = "people/invite", Need::Permission(Permission::WritePeople), true;
    /// Send the mail of an invitation again; the link of the one before stops working.
    ResendInvitation = "people/resend_invitation", Need::Permission(Permission::WritePeople), true;
    /// Withdraw an invitation.
    WithdrawInvitation = "people/withdraw_invitation", Need::Permission(Permission::WritePeople), true;
    /// Give somebody another role; her sessions end.
    ChangeRole = "people/change_role", Need::Permission(Permission::WritePeople), true;
    /// Suspend somebody's access; her sessions end.
    SuspendPerson = "people/suspend", Need::Permission(Permission::WritePeople), true;
    /// Give a suspended person her access back.
    ReinstatePerson = "people/reinstate", Need::Permission(Permission::WritePeople), true;
    /// Remove somebody; her sessions end.
    RemovePerson = "people/remove", Need::Permission(Permission::WritePeople), true;
    /// Make somebody else Super administrator, and oneself Administrator.
    TransferOwnership = "people/transfer_ownership", Need::Permission(Permission::WritePeople), true;
    /// The overview page.
    ShowOverview = "overview/show", Need::Permission(Permission::ReadNetwork), false;
    /// How far the newest change is enforced.
    ShowEnforcement = "enforcement/show", Need::Permission(Permission::ReadNetwork), false;
    /// List PBXes.
    ListPbxes = "pbxes/list", Need::Permission(Permission::ReadNetwork), false;
    /// Add a PBX; gives the enrolment command.
    AddPbx = "pbxes/add", Need::Permission(Permission::WritePbxes), true;
    /// A new enrolment command for a PBX; the one before stops working.
    RenewEnrolment = "pbxes/renew_enrolment", Need::Permission(Permission::WritePbxes), true;
    /// Rename a PBX.
    RenamePbx = "pbxes/rename", Need::Permission(Permission::WritePbxes), true;
    /// Revoke a PBX's certificate; its stream is cut.
    RevokePbx = "pbxes/revoke", Need::Permission(Permission::WritePbxes), true;
    /// Remove a PBX and what is known of it.
    RemovePbx = "pbxes/remove", Need::Permission(Permission::WritePbxes), true;
    /// How many phones a change may cost before PBXes take it back.
    ShowPhoneLossLimit = "pbxes/phone_loss_limit", Need::Permission(Permission::ReadNetwork), false;
    /// Change that.
    SetPhoneLossLimit = "pbxes/set_phone_loss_limit", Need::Permission(Permission::WritePbxes), true;
    /// List allowed IPs.
    ListAllowedIps = "allowed_ips/list", Need::Permission(Permission::ReadNetwork), false;
    /// Allow an address, network or domain name.
    AddAllowedIp = "allowed_ips/add", Need::Permission(Permission::WriteAllowedIps), true;
    /// Change an entry.
    EditAllowedIp = "allowed_ips/edit", Need::Permission(Permission::WriteAllowedIps), true;
    /// Delete entries.
    DeleteAllowedIps = "allowed_ips/delete", Need::Permission(Permission::WriteAllowedIps), true;
    /// Allow the address that one comes from.
    AllowMyAddress = "allowed_ips/allow_my_address", Need::Permission(Permission::WriteAllowedIps), true;
    /// Add entries from a CSV file.
    ImportAllowedIps = "allowed_ips/import", Need::Permission(Permission::WriteAllowedIps), true;
    /// All entries as CSV.
    ExportAllowedIps = "allowed_ips/export", Need::Permission(Permission::ReadNetwork), false;
    /// List bans, page by page.
    ListBlockedIps = "blocked_ips/list", Need::Permission(Permission::ReadNetwork), false;
    /// One ban with its evidence.
    ShowBlockedIp = "blocked_ips/show", Need::Permission(Permission::ReadNetwork), false;
    /// Block an address or network.
    BlockIp = "blocked_ips/block", Need::Permission(Permission::WriteBlockedIps), true;
    /// Unblock by ids.
    UnblockIps = "blocked_ips/unblock", Need::Permission(Permission::WriteBlockedIps), true;
    /// Unblock all that a filter finds.
    UnblockMatching = "blocked_ips/unblock_matching", Need::Permission(Permission::WriteBlockedIps), true;
    /// Unblock and allow, so that it can't be blocked again.
    UnblockAndAllow = "blocked_ips/unblock_and_allow", Need::Permission(Permission::WriteAllowedIps), true;
    /// All bans of a filter as CSV.
    ExportBlockedIps = "blocked_ips/export", Need::Permission(Permission::ReadNetwork), false;
    /// List audit rows, page by page.
    ListAudit = "audit/list", Need::Permission(Permission::ReadAudit), false;
    /// Verify the hash chain.
    VerifyAudit = "audit/verify", Need::Permission(Permission::ReadAudit), false;
    /// The live stream of a tenant's changes to a browser.
    WatchLive = "live", Need::Permission(Permission::ReadNetwork), false;
    /// An agent exchanges its token for a certificate.
    EnrolAgent = "agent/enrol", Need::EnrolmentToken, true;
    /// An agent's stream: policy and bans down, reports up.
    LinkAgent = "agent/link", Need::PbxCertificate, true;
}

impl Operation {
    /// Whether it asks for a second factor that was shown within [`crate::account::FRESH_MINUTES`]: what changes who has access, or takes
    /// protection away, is not done by who has found a browser open (ASVS 5.0, 7.5.3).
    pub fn needs_fresh_factor(self) -> bool {
        matches!(
            self,
            Self::InvitePerson
                | Self::ResendInvitation
                | Self::RenewEnrolment
                | Self::RevokePbx
                | Self::RemovePbx
                | Self::ChangeRole
                | Self::SuspendPerson
                | Self::ReinstatePerson
                | Self::RemovePerson
                | Self::TransferOwnership
                | Self::SetPhoneLossLimit
        )
    }

    /// Whether a role may do it.
    pub fn allowed_for(self, role: Role) -> bool {
        match self.need() {
            Need::Nothing | Need::Password | Need::Session => true,
            Need::Permission(permission) => role.may(permission),
            Need::EnrolmentToken | Need::PbxCertificate => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_matrix() {
        let mut text = String::from(
            "operation                            needs                  super admin operator auditor changes fresh\n",
        );
        for operation in Operation::ALL {
            let marks = Role::ALL.map(|role| if operation.allowed_for(role) { "yes" } else { "-" });
            let need = if let Need::Permission(permission) = operation.need() {
                format!("{permission:?}")
            } else {
                format!("({:?})", operation.need())
            };
            writeln!(
                text,
                "{:<36} {need:<22} {:<5} {:<5} {:<8} {:<7} {:<7} {}",
                operation.path(),
                marks[0],
                marks[1],
                marks[2],
                marks[3],
                if operation.changes() { "yes" } else { "-" },
                if operation.needs_fresh_factor() { "yes" } else { "-" }
            )
            .unwrap();
        }
        insta::assert_snapshot!("authz_matrix", text);
    }

    #[test]
    fn nobody_touches_who_is_mightier() {
        for role in Role::ALL {
            assert!(Role::SuperAdministrator.may_manage(role));
            assert_eq!(Role::Administrator.may_manage(role), role != Role::SuperAdministrator);
            assert!(!Role::SecurityOperator.may_manage(role) && !Role::Auditor.may_manage(role));
        }
    }

    #[test]
    fn names_lead_back() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_path(operation.path()), Some(*operation));
        }
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.as_str()), Some(role));
        }
    }
}

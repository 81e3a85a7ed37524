//! Actions of the audit log in plain words.

/// What was done, in the past tense. An agent's stream stands for several things, which its details tell apart.
pub(crate) fn what<'a>(name: &'a str, details: &str) -> &'a str {
    match name {
        "agent/link" if details.contains("\"batch\"") => "Detected and blocked",
        "agent/link" if details.contains("\"refused_revision\"") => "Refused a policy",
        "agent/link" if details.contains("\"withheld\"") => "Took changes back",
        "agent/link" if details.contains("\"found\"") => "Found its firewall changed",
        "agent/link" if details.contains("\"renewed\"") => "Renewed its certificate",
        other => action(other),
    }
}

/// The same for the name alone; the stable name where there are no words for it.
fn action(name: &str) -> &str {
    match name {
        "account/sign_up" => "Asked for an organisation",
        "account/verify_email" => "Made the organisation",
        "account/log_in" => "Gave the password",
        "account/log_in_code" => "Logged in",
        "account/log_in_recovery_code" => "Logged in with a recovery code",
        "account/log_out" => "Logged out",
        "account/step_up" => "Confirmed who they are",
        "account/request_password_reset" => "Asked for a new password",
        "account/reset_password" => "Set a new password",
        "account/begin_totp" => "Began to connect an authenticator app",
        "account/confirm_totp" => "Connected an authenticator app",
        "account/switch_tenant" => "Switched to this organisation",
        "account/accept_invitation" => "Accepted an invitation",
        "account/join_tenant" => "Accepted an invitation with an account",
        "people/invite" => "Invited",
        "people/resend_invitation" => "Sent an invitation again",
        "people/withdraw_invitation" => "Withdrew an invitation",
        "people/change_role" => "Changed a role",
        "people/suspend" => "Suspended",
        "people/reinstate" => "Reinstated",
        "people/remove" => "Removed from the organisation",
        "people/transfer_ownership" => "Handed the organisation over",
        "sessions/end_own" => "Ended an own session",
        "sessions/end_others" => "Ended all other own sessions",
        "sessions/end" => "Ended a session",
        "pbxes/add" => "Added a PBX",
        "pbxes/renew_enrolment" => "Made a new connection command",
        "pbxes/rename" => "Renamed a PBX",
        "pbxes/revoke" => "Revoked a PBX",
        "pbxes/remove" => "Removed a PBX",
        "pbxes/set_phone_loss_limit" => "Changed how many phones a change may cost",
        "allowed_ips/add" => "Allowed",
        "allowed_ips/edit" => "Changed an allowed entry",
        "allowed_ips/delete" => "Deleted from Allowed IPs",
        "allowed_ips/allow_my_address" => "Allowed the own address",
        "allowed_ips/import" => "Imported allowed entries",
        "blocked_ips/block" => "Blocked",
        "blocked_ips/unblock" => "Unblocked",
        "blocked_ips/unblock_matching" => "Unblocked all that matched",
        "blocked_ips/unblock_and_allow" => "Unblocked and allowed",
        "agent/enrol" => "Enrolled its agent",
        "agent/link" => "Connected",
        other => other,
    }
}

/// A detail's name in words; as it is where there are none.
pub(crate) fn detail(name: &str) -> &str {
    match name {
        "added" => "Added",
        "batch" => "Report",
        "before" => "Before",
        "certificate" => "Certificate",
        "began_from" => "Logged in from",
        "connected" => "Agent version",
        "count" => "How many",
        "device" => "Device",
        "expired" => "Ended",
        "found" => "Found",
        "hostname" => "Host",
        "insisted" => "Insisted",
        "lengthened" => "Lengthened",
        "lifted_bans" => "Bans lifted",
        "networks" => "Networks",
        "note" => "Note",
        "reason" => "Reason",
        "refused" => "Why not",
        "refused_revision" => "Refused revision",
        "renewed" => "New certificate",
        "repaired" => "Repaired",
        "revision" => "Policy revision",
        "role" => "Role",
        "search" => "Search",
        "seconds" => "Seconds",
        "sessions" => "Sessions ended",
        "skipped" => "There already",
        "targets" => "Entries",
        "withdrawn" => "Invitations withdrawn",
        "withheld" => "Taken back",
        other => other,
    }
}

/// The groups that the list can be filtered by: the beginning of the stable names, and words.
pub(crate) const GROUPS: [(&str, &str); 8] = [
    ("", "Anything"),
    ("account/", "Logins"),
    ("people/", "People"),
    ("sessions/", "Sessions"),
    ("pbxes/", "PBXes"),
    ("allowed_ips/", "Allowed IPs"),
    ("blocked_ips/", "Blocked IPs"),
    ("agent/", "Agents"),
];

#[cfg(test)]
mod tests {
    use policy::authz::Operation;

    use super::*;

    #[test]
    fn every_change_has_words() {
        for operation in Operation::ALL.iter().filter(|operation| operation.changes()) {
            assert_ne!(action(operation.path()), operation.path(), "{operation:?}");
        }
    }
}

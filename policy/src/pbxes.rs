//! PBXes: the phone systems that a tenant protects, and the agent on each.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::blocked_ips::short_duration;
use crate::ids::PbxId;
use crate::safety::{Drift, Withheld};

/// Seconds between heartbeats of agent and server.
pub const HEARTBEAT_SECONDS: u32 = 4;
/// After this many seconds without a word an agent is offline.
pub const OFFLINE_AFTER_SECONDS: i64 = 12;
/// From so many seconds on people are told that the clock of a PBX is off.
const CLOCK_APART_SECONDS: i64 = 5;

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PbxState {
    /// Added, no agent has enrolled yet.
    WaitingForAgent,
    /// Connected.
    Online,
    /// Not heard from.
    Offline,
    /// Its certificate was revoked.
    Revoked,
}

/// A PBX as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pbx {
    /// Its id.
    pub id: PbxId,
    /// The name that people gave it; one per tenant.
    pub name: String,
    /// What its agent is doing.
    pub state: PbxState,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its agent was last heard.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    /// Until when its enrolment token can be used; `None` when there is none.
    #[serde(with = "time::serde::rfc3339::option")]
    pub token_expires_at: Option<OffsetDateTime>,
    /// Version of the agent.
    pub agent_version: String,
    /// Host name of the machine.
    pub hostname: String,
    /// `asterisk` or `simulated`.
    pub pbx_kind: String,
    /// Version of the PBX.
    pub pbx_version: String,
    /// `nftables`, or `memory` where nothing is enforced for real.
    pub firewall: String,
    /// The revision that the tenant's policy has.
    pub wanted_revision: i64,
    /// The revision that the agent has applied.
    pub applied_revision: i64,
    /// Digest of the applied policy, hexadecimal.
    pub applied_digest: String,
    /// The number of the tenant's last change of bans, and of the last one that the agent has applied.
    pub wanted_ban_seq: i64,
    /// See `wanted_ban_seq`.
    pub applied_ban_seq: i64,
    /// How long the last apply took on the PBX, in microseconds.
    pub applied_took_us: i64,
    /// Why the agent refused the wanted revision; empty when it did not.
    pub last_refusal: String,
    /// What it does not enforce, lest it be cut off.
    pub withheld: Vec<Withheld>,
    /// When all that is never to be blocked was last found in its kernel.
    #[serde(with = "time::serde::rfc3339::option")]
    pub proven_at: Option<OffsetDateTime>,
    /// How many ranges that was.
    pub proven_ranges: i32,
    /// What was found last in its firewall that wasn't as it should be.
    pub drift: Option<Drift>,
    /// Bans in its kernel.
    pub bans: i64,
    /// Phones registered.
    pub registered: i32,
    /// Reports dropped while it was cut off.
    pub dropped: i64,
    /// How far the server's clock is ahead of the PBX's, in milliseconds; `None` when it hasn't been measured.
    pub clock_ahead_ms: Option<i64>,
}

/// What to run on the PBX to connect it. Shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentCommand {
    /// The PBX.
    pub pbx_id: PbxId,
    /// Its name.
    pub pbx_name: String,
    /// The exact command.
    pub command: String,
    /// Until when it works.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// How far the clock of a PBX is from the server's, in words, where it matters: what ends there ends by that clock.
/// `apart_ms` is its time less the server's.
pub fn clock_apart(apart_ms: i64) -> Option<String> {
    let seconds = apart_ms.saturating_abs() / 1000;
    let side = if apart_ms < 0 { "behind" } else { "ahead" };
    (seconds >= CLOCK_APART_SECONDS).then(|| format!("clock {} {side}", short_duration(seconds)))
}

/// A PBX whose agent is up to date, for tests of what sums PBXes up.
#[cfg(test)]
pub(crate) fn sample(name: &str, state: PbxState) -> Pbx {
    Pbx {
        id: uuid::Uuid::nil().into(),
        name: name.to_owned(),
        state,
        created_at: OffsetDateTime::UNIX_EPOCH,
        last_seen_at: None,
        token_expires_at: None,
        agent_version: "0.1.0".to_owned(),
        hostname: name.to_owned(),
        pbx_kind: "asterisk".to_owned(),
        pbx_version: "22".to_owned(),
        firewall: "nftables".to_owned(),
        wanted_revision: 7,
        applied_revision: 7,
        applied_digest: String::new(),
        wanted_ban_seq: 40,
        applied_ban_seq: 40,
        applied_took_us: 1_001,
        last_refusal: String::new(),
        withheld: Vec::new(),
        proven_at: None,
        proven_ranges: 0,
        drift: None,
        bans: 3,
        registered: 12,
        dropped: 0,
        clock_ahead_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_with_its_side() {
        assert_eq!(clock_apart(4_999), None);
        assert_eq!(clock_apart(-200), None);
        assert_eq!(clock_apart(5_000).as_deref(), Some("clock 5 s ahead"));
        assert_eq!(clock_apart(-3_600_000).as_deref(), Some("clock 1 h behind"));
        assert!(clock_apart(i64::MIN).is_some());
    }
}

//! The only translation between wire messages and `policy` types. What comes from the wire is checked here, once: sizes,
//! values, canonical text. Neither side trusts the other's bytes.
//!
//! `TryFrom<pb::…>` checks; `From<…> for pb::…` never fails, and shortens what may hold attacker-made text.

mod bans;
mod fields;
mod messages;
mod policies;
mod reports;
mod withheld;

pub use bans::{BAN_CHANGES_MAX, BAN_PART_MAX, BanDelta, BanSnapshotPart, snapshot_parts};
pub use messages::{
    BansApplied, Enrolment, FromAgent, FromServer, Hello, PolicyApplied, PolicyRefused, Welcome, agent_message,
    server_message,
};
pub use policies::ALLOWED_MAX;
pub use reports::ReportAck;

/// A message that breaks the rules of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// The field, as `agent.proto` names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl WireError {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests;

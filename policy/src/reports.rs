//! What an agent reports about attacks: the bans it made by itself, and how many attempts failed.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::blocked_ips::EvidenceEvent;
use crate::ids::{BanId, BatchId};

/// Most events in one batch.
pub const MAX_BATCH_EVENTS: usize = 500;

/// A ban that an agent made by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DetectedBan {
    /// Its id, made by the agent.
    pub id: BanId,
    /// What is blocked.
    pub net: IpNet,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Why, in words.
    pub reason: String,
    /// The account that was tried most.
    pub account: String,
    /// How often this source has been banned by this agent, this time included.
    pub times_banned: u32,
    /// The events, oldest first; at most [`crate::detection::MAX_EVIDENCE`].
    pub evidence: Vec<EvidenceEvent>,
    /// From the last event to the kernel's answer, in microseconds.
    pub took_us: u64,
}

/// Failed attempts from one source in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptCount {
    /// Start of the minute.
    #[serde(with = "time::serde::rfc3339")]
    pub minute: OffsetDateTime,
    /// The source.
    pub address: IpAddr,
    /// Attempts whose source address is proven.
    pub proven: u32,
    /// Attempts whose source address may be forged.
    pub unproven: u32,
}

/// One event of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReportEvent {
    /// A ban.
    Detected(DetectedBan),
    /// Attempts.
    Attempts(AttemptCount),
}

/// What is reported together, and stored once however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportBatch {
    /// Made by the agent.
    pub id: BatchId,
    /// At most [`MAX_BATCH_EVENTS`].
    pub events: Vec<ReportEvent>,
}

//! What an agent reports about attacks.

use policy::blocked_ips::{EvidenceEvent, MAX_BAN_SECONDS, REASON_MAX_CHARS};
use policy::detection::MAX_EVIDENCE;
use policy::ids::{BanId, BatchId};
use policy::net;
use policy::reports::{AttemptCount, DetectedBan, MAX_BATCH_EVENTS, ReportBatch, ReportEvent};
use time::Duration;

use super::{WireError, fields};
use crate::pb;

/// Longest account name kept.
const ACCOUNT_MAX_CHARS: usize = 80;
/// Longest name of an event, transport or service.
const NAME_MAX_CHARS: usize = 40;

/// The server has stored a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReportAck {
    /// Which.
    pub batch_id: BatchId,
    /// A ban of the batch that isn't in the set of bans with this number has been lifted or refused.
    pub ban_seq: i64,
}

impl From<ReportAck> for pb::ReportAck {
    fn from(ack: ReportAck) -> Self {
        Self { batch_id: ack.batch_id.0.as_bytes().to_vec(), ban_seq: ack.ban_seq }
    }
}

impl TryFrom<pb::ReportAck> for ReportAck {
    type Error = WireError;

    fn try_from(wire: pb::ReportAck) -> Result<Self, WireError> {
        Ok(Self {
            batch_id: BatchId(fields::uuid("report_ack.batch_id", &wire.batch_id)?),
            ban_seq: fields::number("report_ack.ban_seq", wire.ban_seq)?,
        })
    }
}

impl From<&ReportBatch> for pb::Report {
    fn from(batch: &ReportBatch) -> Self {
        Self { batch_id: batch.id.0.as_bytes().to_vec(), events: batch.events.iter().map(Into::into).collect() }
    }
}

impl TryFrom<pb::Report> for ReportBatch {
    type Error = WireError;

    fn try_from(wire: pb::Report) -> Result<Self, WireError> {
        fields::at_most("report.events", wire.events.len(), MAX_BATCH_EVENTS)?;
        Ok(Self {
            id: BatchId(fields::uuid("report.batch_id", &wire.batch_id)?),
            events: wire.events.into_iter().map(ReportEvent::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&ReportEvent> for pb::Event {
    fn from(event: &ReportEvent) -> Self {
        let event = match event {
            ReportEvent::Detected(ban) => pb::event::Event::Detected(ban.into()),
            ReportEvent::Attempts(count) => pb::event::Event::Attempts(count.into()),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<pb::Event> for ReportEvent {
    type Error = WireError;

    fn try_from(wire: pb::Event) -> Result<Self, WireError> {
        match wire.event.ok_or_else(|| WireError::new("event.event", "missing"))? {
            pb::event::Event::Detected(ban) => ban.try_into().map(Self::Detected),
            pb::event::Event::Attempts(count) => count.try_into().map(Self::Attempts),
        }
    }
}

impl From<&DetectedBan> for pb::Detected {
    fn from(ban: &DetectedBan) -> Self {
        Self {
            ban_id: ban.id.0.as_bytes().to_vec(),
            net: ban.net.to_string(),
            at_ms: fields::to_ms(ban.at),
            expires_at: ban.expires_at.unix_timestamp(),
            reason: fields::clean(&ban.reason, REASON_MAX_CHARS),
            account: fields::clean(&ban.account, ACCOUNT_MAX_CHARS),
            times_banned: ban.times_banned,
            evidence: ban.evidence.iter().take(MAX_EVIDENCE).map(Into::into).collect(),
            took_us: ban.took_us,
        }
    }
}

impl TryFrom<pb::Detected> for DetectedBan {
    type Error = WireError;

    fn try_from(wire: pb::Detected) -> Result<Self, WireError> {
        fields::at_most("detected.evidence", wire.evidence.len(), MAX_EVIDENCE)?;
        let at = fields::instant_ms("detected.at_ms", wire.at_ms)?;
        let expires_at = fields::instant("detected.expires_at", wire.expires_at)?;
        // Whole seconds may cut up to one off a ban.
        if expires_at + Duration::SECOND < at || expires_at - at > Duration::seconds(MAX_BAN_SECONDS) {
            return Err(WireError::new("detected.expires_at", "not within a year after at_ms"));
        }
        Ok(Self {
            id: BanId(fields::uuid("detected.ban_id", &wire.ban_id)?),
            net: fields::net("detected.net", &wire.net)?,
            at,
            expires_at,
            reason: fields::text("detected.reason", wire.reason, REASON_MAX_CHARS)?,
            account: fields::text("detected.account", wire.account, ACCOUNT_MAX_CHARS)?,
            times_banned: fields::within("detected.times_banned", wire.times_banned, 1..=i32::MAX.unsigned_abs())?,
            evidence: wire.evidence.into_iter().map(EvidenceEvent::try_from).collect::<Result<_, _>>()?,
            took_us: wire.took_us,
        })
    }
}

impl From<&EvidenceEvent> for pb::Evidence {
    fn from(event: &EvidenceEvent) -> Self {
        Self {
            at_ms: fields::to_ms(event.at),
            kind: fields::clean(&event.kind, NAME_MAX_CHARS),
            transport: fields::clean(&event.transport, NAME_MAX_CHARS),
            account: fields::clean(&event.account, ACCOUNT_MAX_CHARS),
            service: fields::clean(&event.service, NAME_MAX_CHARS),
        }
    }
}

impl TryFrom<pb::Evidence> for EvidenceEvent {
    type Error = WireError;

    fn try_from(wire: pb::Evidence) -> Result<Self, WireError> {
        Ok(Self {
            at: fields::instant_ms("evidence.at_ms", wire.at_ms)?,
            kind: fields::text("evidence.kind", wire.kind, NAME_MAX_CHARS)?,
            transport: fields::text("evidence.transport", wire.transport, NAME_MAX_CHARS)?,
            account: fields::text("evidence.account", wire.account, ACCOUNT_MAX_CHARS)?,
            service: fields::text("evidence.service", wire.service, NAME_MAX_CHARS)?,
        })
    }
}

impl From<&AttemptCount> for pb::Attempts {
    fn from(count: &AttemptCount) -> Self {
        Self {
            minute: count.minute.unix_timestamp(),
            address: count.address.to_string(),
            proven: count.proven,
            unproven: count.unproven,
        }
    }
}

impl TryFrom<pb::Attempts> for AttemptCount {
    type Error = WireError;

    fn try_from(wire: pb::Attempts) -> Result<Self, WireError> {
        if wire.minute % 60 != 0 {
            return Err(WireError::new("attempts.minute", "not the start of a minute"));
        }
        let address = net::parse_addr(&wire.address).map_err(|problem| WireError::new("attempts.address", problem))?;
        if address.to_string() != wire.address {
            return Err(WireError::new("attempts.address", "not canonical"));
        }
        // Charts and counters add these up in 64 bits.
        Ok(Self {
            minute: fields::instant("attempts.minute", wire.minute)?,
            address,
            proven: fields::within("attempts.proven", wire.proven, 0..=i32::MAX.unsigned_abs())?,
            unproven: fields::within("attempts.unproven", wire.unproven, 0..=i32::MAX.unsigned_abs())?,
        })
    }
}

//! Whole messages of the link, checked, as each side reads them.

use policy::bans::BanDigest;
use policy::reports::ReportBatch;
use policy::safety::{Drift, Withheld};
use policy::snapshot::PolicySnapshot;
use prost::Message as _;
use time::OffsetDateTime;

use super::{BanDelta, BanSnapshotPart, ReportAck, WireError, bans, fields, withheld};
use crate::pb;

/// Longest version text.
const VERSION_MAX_CHARS: usize = 80;
/// Longest host name (RFC 1123).
const HOSTNAME_MAX_CHARS: usize = 253;
/// Longest certificate and certificate request, in bytes.
const PEM_MAX: usize = 8_192;
/// Longest reason for a refusal.
const REFUSAL_MAX_CHARS: usize = 500;

/// What an agent may say.
#[derive(Debug, Clone, PartialEq)]
pub enum FromAgent {
    /// First message of a stream.
    Hello(Hello),
    /// Still there.
    Heartbeat(pb::Heartbeat),
    /// A policy is in the kernel.
    PolicyApplied(PolicyApplied),
    /// A policy could not be applied.
    PolicyRefused(PolicyRefused),
    /// Bans are in the kernel, or a snapshot is needed.
    BansApplied(BansApplied),
    /// Attacks.
    Report(ReportBatch),
    /// All that it does not enforce, lest it be cut off.
    Withheld(Vec<Withheld>),
    /// It wants a new certificate for this request, PEM; bounded, no more.
    Renew(String),
    /// Something in the firewall wasn't as it should be.
    Drift(Drift),
}

/// What the server may say.
#[derive(Debug, Clone, PartialEq)]
pub enum FromServer {
    /// Answer to hello.
    Welcome(Welcome),
    /// Still there.
    Heartbeat(pb::Heartbeat),
    /// The whole policy.
    Policy(PolicySnapshot),
    /// A part of the whole set of bans.
    BanSnapshot(BanSnapshotPart),
    /// Changes of the set of bans.
    BanDelta(BanDelta),
    /// A batch is stored.
    ReportAck(ReportAck),
    /// The new certificate, PEM.
    Renewed(String),
}

/// Who an agent is and what it has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the agent.
    pub agent_version: String,
    /// Host name of the machine.
    pub hostname: String,
    /// `asterisk` or `simulated`.
    pub pbx_kind: String,
    /// Version of the PBX, as it says; empty while it isn't reached.
    pub pbx_version: String,
    /// `nftables` or `memory`.
    pub firewall: String,
    /// Revision and digest of the policy that it has applied, if any.
    pub policy: Option<(i64, [u8; 32])>,
    /// Number and digest of the set of bans that it has applied, if any.
    pub bans: Option<(i64, BanDigest)>,
    /// What it does not enforce, lest it be cut off.
    pub withheld: Vec<Withheld>,
}

/// The server's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Seconds between heartbeats.
    pub heartbeat_seconds: u32,
    /// The server's clock.
    pub server_time: OffsetDateTime,
    /// The name of the PBX in the portal.
    pub pbx_name: String,
}

/// A policy is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyApplied {
    /// Its revision.
    pub revision: i64,
    /// Its digest.
    pub digest: [u8; 32],
    /// From receiving it to the kernel's answer, in microseconds.
    pub took_us: u64,
}

/// A policy could not be applied; the agent stays on the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRefused {
    /// Its revision.
    pub revision: i64,
    /// Why.
    pub reason: String,
}

/// Where an agent is with the bans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BansApplied {
    /// The number of the last change in the kernel.
    pub seq: i64,
    /// Digest of the set.
    pub digest: BanDigest,
    /// From receiving to the kernel's answer, in microseconds.
    pub took_us: u64,
    /// A snapshot is needed.
    pub resync: bool,
}

/// A checked request for enrolment. Token and certificate request are bounded, no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The one-time token.
    pub token: String,
    /// PKCS#10 certificate request, PEM.
    pub csr_pem: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Host name of the machine.
    pub hostname: String,
}

/// Decodes and checks the bytes of an agent's message.
///
/// # Errors
/// The field that is wrong.
pub fn agent_message(bytes: &[u8]) -> Result<FromAgent, WireError> {
    pb::AgentMessage::decode(bytes).map_err(|error| WireError::new("message", error.to_string()))?.try_into()
}

/// Decodes and checks the bytes of a message of the server.
///
/// # Errors
/// The field that is wrong.
pub fn server_message(bytes: &[u8]) -> Result<FromServer, WireError> {
    pb::ServerMessage::decode(bytes).map_err(|error| WireError::new("message", error.to_string()))?.try_into()
}

impl TryFrom<pb::AgentMessage> for FromAgent {
    type Error = WireError;

    fn try_from(wire: pb::AgentMessage) -> Result<Self, WireError> {
        use pb::agent_message::Message;
        Ok(match wire.message.ok_or_else(|| WireError::new("message", "missing or not known to this version"))? {
            Message::Hello(hello) => Self::Hello(hello.try_into()?),
            Message::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat),
            Message::PolicyApplied(applied) => Self::PolicyApplied(PolicyApplied {
                revision: fields::number("policy_applied.revision", applied.revision)?,
                digest: fields::bytes("policy_applied.digest", &applied.digest)?,
                took_us: applied.took_us,
            }),
            Message::PolicyRefused(refused) => Self::PolicyRefused(PolicyRefused {
                revision: fields::number("policy_refused.revision", refused.revision)?,
                reason: fields::text("policy_refused.reason", refused.reason, REFUSAL_MAX_CHARS)?,
            }),
            Message::BansApplied(applied) => Self::BansApplied(BansApplied {
                seq: fields::number("bans_applied.seq", applied.seq)?,
                digest: bans::digest("bans_applied.digest", &applied.digest)?,
                took_us: applied.took_us,
                resync: applied.resync,
            }),
            Message::Report(report) => Self::Report(report.try_into()?),
            Message::Withheld(changes) => Self::Withheld(withheld::all(changes)?),
            Message::Drift(drift) => Self::Drift(drift.try_into()?),
            Message::Renew(renew) => Self::Renew(fields::short("renew.csr_pem", renew.csr_pem, PEM_MAX)?),
        })
    }
}

impl From<&FromAgent> for pb::AgentMessage {
    fn from(message: &FromAgent) -> Self {
        use pb::agent_message::Message;
        let message = match message {
            FromAgent::Hello(hello) => Message::Hello(hello.into()),
            FromAgent::Heartbeat(heartbeat) => Message::Heartbeat(*heartbeat),
            FromAgent::PolicyApplied(applied) => Message::PolicyApplied(pb::PolicyApplied {
                revision: applied.revision,
                digest: applied.digest.to_vec(),
                took_us: applied.took_us,
            }),
            FromAgent::PolicyRefused(refused) => Message::PolicyRefused(pb::PolicyRefused {
                revision: refused.revision,
                reason: fields::clean(&refused.reason, REFUSAL_MAX_CHARS),
            }),
            FromAgent::BansApplied(applied) => Message::BansApplied(pb::BansApplied {
                seq: applied.seq,
                digest: applied.digest.to_bytes().to_vec(),
                took_us: applied.took_us,
                resync: applied.resync,
            }),
            FromAgent::Report(batch) => Message::Report(batch.into()),
            FromAgent::Drift(drift) => Message::Drift(drift.into()),
            FromAgent::Renew(csr_pem) => Message::Renew(pb::Renew { csr_pem: csr_pem.clone() }),
            FromAgent::Withheld(changes) => Message::Withheld(withheld::to_wire(changes)),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::ServerMessage> for FromServer {
    type Error = WireError;

    fn try_from(wire: pb::ServerMessage) -> Result<Self, WireError> {
        use pb::server_message::Message;
        Ok(match wire.message.ok_or_else(|| WireError::new("message", "missing or not known to this version"))? {
            Message::Welcome(welcome) => Self::Welcome(Welcome {
                heartbeat_seconds: fields::within("welcome.heartbeat_seconds", welcome.heartbeat_seconds, 1..=3600)?,
                server_time: fields::instant_ms("welcome.server_time_ms", welcome.server_time_ms)?,
                pbx_name: fields::text("welcome.pbx_name", welcome.pbx_name, HOSTNAME_MAX_CHARS)?,
            }),
            Message::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat),
            Message::Policy(policy) => Self::Policy(policy.try_into()?),
            Message::BanSnapshot(part) => Self::BanSnapshot(part.try_into()?),
            Message::BanDelta(delta) => Self::BanDelta(delta.try_into()?),
            Message::ReportAck(ack) => Self::ReportAck(ack.try_into()?),
            Message::Renewed(renewed) => {
                Self::Renewed(fields::short("renewed.certificate_pem", renewed.certificate_pem, PEM_MAX)?)
            }
        })
    }
}

impl From<&FromServer> for pb::ServerMessage {
    fn from(message: &FromServer) -> Self {
        use pb::server_message::Message;
        let message = match message {
            FromServer::Welcome(welcome) => Message::Welcome(pb::Welcome {
                heartbeat_seconds: welcome.heartbeat_seconds,
                server_time_ms: fields::to_ms(welcome.server_time),
                pbx_name: fields::clean(&welcome.pbx_name, HOSTNAME_MAX_CHARS),
            }),
            FromServer::Heartbeat(heartbeat) => Message::Heartbeat(*heartbeat),
            FromServer::Policy(policy) => Message::Policy(policy.into()),
            FromServer::BanSnapshot(part) => Message::BanSnapshot(part.into()),
            FromServer::BanDelta(delta) => Message::BanDelta(delta.into()),
            FromServer::ReportAck(ack) => Message::ReportAck((*ack).into()),
            FromServer::Renewed(certificate_pem) => {
                Message::Renewed(pb::Renewed { certificate_pem: certificate_pem.clone() })
            }
        };
        Self { message: Some(message) }
    }
}

impl From<&Hello> for pb::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            agent_version: fields::clean(&hello.agent_version, VERSION_MAX_CHARS),
            hostname: fields::clean(&hello.hostname, HOSTNAME_MAX_CHARS),
            pbx_kind: hello.pbx_kind.clone(),
            pbx_version: fields::clean(&hello.pbx_version, VERSION_MAX_CHARS),
            firewall: hello.firewall.clone(),
            policy_revision: hello.policy.map_or(0, |(revision, _)| revision),
            policy_digest: hello.policy.map_or_else(Vec::new, |(_, digest)| digest.to_vec()),
            ban_seq: hello.bans.map_or(0, |(seq, _)| seq),
            ban_digest: hello.bans.map_or_else(Vec::new, |(_, digest)| digest.to_bytes().to_vec()),
            withheld: Some(withheld::to_wire(&hello.withheld)),
        }
    }
}

impl TryFrom<pb::Hello> for Hello {
    type Error = WireError;

    fn try_from(wire: pb::Hello) -> Result<Self, WireError> {
        let revision = fields::number("hello.policy_revision", wire.policy_revision)?;
        let seq = fields::number("hello.ban_seq", wire.ban_seq)?;
        Ok(Self {
            agent_version: fields::text("hello.agent_version", wire.agent_version, VERSION_MAX_CHARS)?,
            hostname: fields::text("hello.hostname", wire.hostname, HOSTNAME_MAX_CHARS)?,
            pbx_kind: one_of("hello.pbx_kind", wire.pbx_kind, &["asterisk", "simulated"])?,
            pbx_version: fields::text("hello.pbx_version", wire.pbx_version, VERSION_MAX_CHARS)?,
            firewall: one_of("hello.firewall", wire.firewall, &["nftables", "memory"])?,
            policy: fields::optional_bytes("hello.policy_digest", &wire.policy_digest)?
                .map(|digest| (revision, digest)),
            bans: fields::optional_bytes("hello.ban_digest", &wire.ban_digest)?
                .map(|digest| (seq, BanDigest::from_bytes(digest))),
            withheld: withheld::all(wire.withheld.unwrap_or_default())?,
        })
    }
}

impl TryFrom<pb::EnrolRequest> for Enrolment {
    type Error = WireError;

    fn try_from(wire: pb::EnrolRequest) -> Result<Self, WireError> {
        Ok(Self {
            token: fields::short("enrol.token", wire.token, 4096)?,
            csr_pem: fields::short("enrol.csr_pem", wire.csr_pem, PEM_MAX)?,
            agent_version: fields::text("enrol.agent_version", wire.agent_version, VERSION_MAX_CHARS)?,
            hostname: fields::text("enrol.hostname", wire.hostname, HOSTNAME_MAX_CHARS)?,
        })
    }
}

fn one_of(field: &'static str, text: String, names: &[&str]) -> Result<String, WireError> {
    if names.contains(&text.as_str()) {
        Ok(text)
    } else {
        Err(WireError::new(field, format!("not one of {}", names.join(", "))))
    }
}

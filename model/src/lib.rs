//! The protocol between server and agent as a model: every order in which streams, nodes, agents and people may act is gone through,
//! within bounds. What holds the agent's bans (`agent::bans::BanBook`), what the journal says of them, and what decides the server's
//! next message (`policy::sync`) is the real code; around it [`server`] and [`agent`] do what `server::rpc` and `agent::engine` do,
//! over a database and a disk that are plain values. `docs/ARCHITECTURE.md` says what is covered and what isn't.

pub mod agent;
pub mod server;
mod world;

use policy::bans::BanEntry;
use policy::ids::{BanId, BatchId};
use policy::reports::DetectedBan;
use policy::sync::PolicyMark;
use proto::convert::{BanDelta, BanSnapshotPart, ReportAck};
use time::OffsetDateTime;
use uuid::Uuid;

pub use world::*;

/// How much may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// The permission is granted or revoked.
    pub edits: u8,
    /// Somebody blocks a source by hand.
    pub blocks: u8,
    /// Somebody lifts the ban of a source.
    pub lifts: u8,
    /// An agent detects an attack.
    pub detections: u8,
    /// A stream breaks.
    pub breaks: u8,
    /// An agent is killed.
    pub agent_kills: u8,
    /// The power of an agent's machine is cut.
    pub power_cuts: u8,
    /// A node is killed.
    pub node_kills: u8,
}

/// How the protocol may be done wrong; the model must find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// The policy that an agent says it holds is taken for the newest.
    TrustsHello,
    /// That an agent has a newer policy than its node has read tells the node nothing.
    SendsOldReading,
    /// What a node has read before a change is sent on streams that begin after the node has heard of the change.
    KeepsOldReadings,
    /// An agent says what it holds before it has worked off what came on the stream before.
    SaysHelloTooEarly,
    /// A stream stays that the database knows as nobody's.
    KeepsUnnotedStreams,
    /// What a stream says counts after another one of the same PBX has begun.
    HearsOldStreams,
    /// A policy is acknowledged before it is on disk.
    AcknowledgesBeforeKeeping,
    /// An acknowledged report says nothing about the set of bans.
    AcknowledgesWithoutNumber,
    /// A report counts as stored once it was sent.
    ForgetsWhatItSent,
    /// What was in a batch that is gone isn't reported again.
    ForgetsLostBatches,
    /// A batch that comes again is stored again.
    StoresAgain,
    /// A gap in the kept changes isn't noticed.
    SkipsOverGaps,
    /// A gap in the kept changes isn't noticed, and that an agent asks for the whole set isn't heard.
    SkipsOverGapsAndIgnoresResync,
}

/// What is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Agents of the tenant.
    pub agents: u8,
    /// Nodes of the portal.
    pub nodes: u8,
    /// What may happen.
    pub budget: Budget,
    /// What is done wrong.
    pub flaw: Option<Flaw>,
}

impl Setup {
    /// Whether that is done wrong.
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Whether bans are exchanged: where there are none it would only multiply the states.
    pub(crate) fn with_bans(&self) -> bool {
        self.budget.detections + self.budget.blocks > 0
    }

    /// Whether the policy is: where only bans change it doesn't matter.
    pub(crate) fn with_policy(&self) -> bool {
        self.budget.edits > 0 || !self.with_bans()
    }
}

/// A tenant's policy: one permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Policy {
    /// Rises with every edit.
    pub revision: i64,
    /// Whether the permission is granted.
    pub granted: bool,
}

impl Policy {
    /// Its revision and a digest of its content.
    pub fn mark(self) -> PolicyMark {
        (self.revision, [u8::from(self.granted); 32])
    }
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToServer {
    /// First on a stream: what it holds.
    Hello(Option<PolicyMark>, Option<policy::sync::BanMark>),
    /// It has applied a policy.
    PolicyApplied(PolicyMark),
    /// Where it is with the bans, and whether it needs all of them.
    BansApplied(policy::sync::BanMark, bool),
    /// A batch with these bans.
    Report(BatchId, Vec<DetectedBan>),
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToAgent {
    /// Hello was heard.
    Welcome,
    /// The policy.
    Policy(Policy),
    /// The bans.
    Snapshot(BanSnapshotPart),
    /// Changes of the bans.
    Delta(BanDelta),
    /// A batch is stored.
    Ack(ReportAck),
}

/// A source of attacks.
pub(crate) fn source(number: u8) -> BanEntry {
    let net = std::net::IpAddr::from([203, 0, 113, number]).into();
    BanEntry { net, expires_at: None }
}

/// A ban that an agent makes by itself. Nothing ends by itself here: what is to expire is lifted.
pub(crate) fn detected(number: u8, source: u8) -> DetectedBan {
    DetectedBan {
        id: BanId(Uuid::from_u128(number.into())),
        net: self::source(source).net,
        at: OffsetDateTime::UNIX_EPOCH,
        expires_at: far_away(),
        reason: String::new(),
        account: String::new(),
        times_banned: 1,
        evidence: Vec::new(),
        took_us: 0,
    }
}

/// When the bans of agents end.
pub(crate) fn far_away() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 100)
}

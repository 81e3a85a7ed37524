//! The portal: its database, as `actions::agents` and `actions::bans` use it, what its nodes keep of it, and their streams, as
//! `server::rpc` serves them.

use std::collections::VecDeque;

use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::ids::{BanId, BatchId};
use policy::reports::DetectedBan;
use policy::sync::{BanMark, BanStep, PolicyMark, Sent, ban_step, credible};
use proto::convert::{self, BanDelta, ReportAck};

use crate::{Flaw, Policy, Setup, ToAgent, ToServer, far_away};

/// Changes that are kept, and sent as such; who misses more gets the whole set.
const KEPT: i64 = 2;
/// Messages on their way to an agent.
const IN_FLIGHT: usize = 4;

/// A ban in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ban {
    /// Its id.
    pub id: BanId,
    /// What and until when.
    pub entry: BanEntry,
    /// It was lifted or replaced.
    pub ended: bool,
}

/// What is shown of a PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pbx {
    /// Its stream.
    pub stream: Option<u8>,
    /// Revision in force.
    pub revision: Option<i64>,
    /// Number of the set of bans in force.
    pub ban_seq: Option<i64>,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Database {
    /// The tenant's policy.
    pub policy: Policy,
    /// Number of the last change of the set of bans, and its digest.
    pub set: BanMark,
    /// All changes of it.
    changes: Vec<BanChange>,
    /// All bans.
    pub bans: Vec<Ban>,
    /// Bans that were reported and not kept, since another held for the same source; with that one.
    pub held_by: Vec<(BanId, BanId)>,
    /// Batches, how often each was stored.
    pub batches: Vec<(u8, BatchId, u8)>,
    /// By the number of the agent.
    pub pbxes: Vec<Pbx>,
}

impl Database {
    pub(crate) fn new(agents: u8) -> Self {
        Self {
            policy: Policy { revision: 1, granted: true },
            set: (0, BanDigest::default()),
            changes: Vec::new(),
            bans: Vec::new(),
            held_by: Vec::new(),
            batches: Vec::new(),
            pbxes: vec![Pbx::default(); agents.into()],
        }
    }

    /// Grants or revokes the permission.
    pub fn edit(&mut self) {
        self.policy = Policy { revision: self.policy.revision + 1, granted: !self.policy.granted };
    }

    /// The set of bans.
    pub fn entries(&self) -> Vec<BanEntry> {
        self.bans.iter().filter(|ban| !ban.ended).map(|ban| ban.entry).collect()
    }

    fn holding(&mut self, entry: &BanEntry) -> Option<&mut Ban> {
        self.bans.iter_mut().find(|ban| !ban.ended && ban.entry.net == entry.net)
    }

    /// Keeps a ban; one that holds for the same source is ended and replaced.
    pub fn block(&mut self, id: BanId, entry: BanEntry) {
        if let Some(old) = self.holding(&entry) {
            old.ended = true;
            let old = old.entry;
            self.set.1.remove(&old);
        }
        self.bans.push(Ban { id, entry, ended: false });
        self.set.1.add(&entry);
        self.append(BanChange::Add(entry));
    }

    /// Ends the ban of a source; whether there was one.
    pub fn lift(&mut self, entry: &BanEntry) -> bool {
        let Some(ban) = self.holding(entry) else { return false };
        ban.ended = true;
        let ended = ban.entry;
        self.set.1.remove(&ended);
        self.append(BanChange::Remove(ended.net));
        true
    }

    fn append(&mut self, change: BanChange) {
        self.set.0 += 1;
        self.changes.push(change);
    }

    /// What a look compares.
    fn marks(&self) -> (i64, i64) {
        (self.policy.revision, self.set.0)
    }

    fn changes(&self, after: i64, to: i64) -> Vec<BanChange> {
        let at = |seq: i64| usize::try_from(seq).unwrap_or(0).min(self.changes.len());
        self.changes[at(after)..at(to)].to_vec()
    }

    /// `actions::agents::report`.
    fn report(&mut self, agent: u8, batch: BatchId, bans: Vec<DetectedBan>, setup: &Setup) -> i64 {
        match self.batches.iter_mut().find(|(of, id, _)| (*of, *id) == (agent, batch)) {
            Some(_) if !setup.has(Flaw::StoresAgain) => return self.set.0,
            Some((_, _, times)) => *times += 1,
            None => self.batches.push((agent, batch, 1)),
        }
        for ban in bans {
            self.accept(ban);
        }
        self.set.0
    }

    fn accept(&mut self, ban: DetectedBan) {
        if self.bans.iter().any(|known| known.id == ban.id) {
            return;
        }
        let entry = BanEntry { net: ban.net, expires_at: Some(far_away()) };
        if let Some(holding) = self.holding(&entry)
            && holding.entry.expires_at.is_none_or(|ends| Some(ends) >= entry.expires_at)
        {
            let by = holding.id;
            if !self.held_by.iter().any(|(id, _)| *id == ban.id) {
                self.held_by.push((ban.id, by));
            }
            return;
        }
        self.block(ban.id, entry);
    }

    /// `actions::agents::bans_since`.
    fn bans_since(&self, held: Option<BanMark>, setup: &Setup) -> (BanMark, Vec<ToAgent>) {
        let messages = match ban_step(held, self.set, if setup.skips_over_gaps() { i64::MAX } else { KEPT }) {
            BanStep::Nothing => Vec::new(),
            BanStep::Changes { after, .. } => {
                // Those before them are no longer kept.
                vec![self.delta(after, after.max(self.set.0 - KEPT), self.set)]
            }
            BanStep::All => {
                convert::snapshot_parts(self.set.0, &self.entries()).into_iter().map(ToAgent::Snapshot).collect()
            }
        };
        (self.set, messages)
    }

    fn delta(&self, after: i64, kept_after: i64, (to_seq, digest): BanMark) -> ToAgent {
        ToAgent::Delta(BanDelta { from_seq: after + 1, to_seq, digest, changes: self.changes(kept_after, to_seq) })
    }
}

impl Setup {
    fn skips_over_gaps(&self) -> bool {
        self.has(Flaw::SkipsOverGaps) || self.has(Flaw::SkipsOverGapsAndIgnoresResync)
    }
}

/// What a node has read of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Node {
    /// What it has seen at its last look.
    marks: Option<(i64, i64)>,
    policy: Reading<Policy>,
    bans: Reading<Window>,
}

/// Something as it was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Reading<T> {
    value: Option<T>,
    /// Since then the node has heard of a change.
    outdated: bool,
    /// It was read in this step.
    just_read: bool,
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self { value: None, outdated: false, just_read: false }
    }
}

impl<T: Copy> Reading<T> {
    fn read(&mut self, value: T) -> T {
        *self = Self { value: Some(value), outdated: false, just_read: true };
        value
    }

    /// Whether what was read will do.
    fn will_do(&self, due: Due, setup: &Setup) -> bool {
        self.value.is_some() && due == Due::Any && (!self.outdated || setup.has(Flaw::KeepsOldReadings))
    }
}

/// A set of bans and the last changes that led to it (`server::rpc::roll::ban_window`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Window {
    /// The changes after this one are in it.
    after: i64,
    mark: BanMark,
}

impl Node {
    /// Whether a look would find something.
    pub fn has_news(&self, db: &Database) -> bool {
        self.marks != Some(db.marks())
    }

    /// What was read in this step is newer than what streams wait for. Answers for the policy and for the bans.
    pub fn take_just_read(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.policy.just_read), std::mem::take(&mut self.bans.just_read))
    }

    /// Looks whether a notification was lost (`server::rpc::roll`); what of policy and bans has changed.
    pub fn look(&mut self, db: &Database) -> (bool, bool) {
        let (revision, seq) = db.marks();
        let before = self.marks.replace((revision, seq));
        let policy = before.is_none_or(|before| before.0 != revision);
        let bans = before.is_none_or(|before| before.1 != seq);
        self.policy.outdated |= policy;
        self.bans.outdated |= bans;
        (policy, bans)
    }

    fn read_window(&mut self, db: &Database) -> Window {
        let after = match self.bans.value {
            Some(window) if db.set.0 - window.mark.0 <= KEPT => window.after,
            _ => db.set.0,
        };
        self.bans.read(Window { after, mark: db.set })
    }
}

/// Whether the policy is to be read for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// No.
    No,
    /// Yes; what was read for another stream a moment ago will do.
    Any,
    /// Yes; what was read before it was known to have changed will not do.
    Anew,
}

/// What a node keeps for a stream after hello.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outbox {
    sent: Sent,
    policy: Due,
    bans: Due,
}

/// A stream. The agent's end and the server's are not gone at the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Rises with every stream.
    pub id: u8,
    /// Whose.
    pub agent: u8,
    /// On which node.
    pub node: u8,
    /// On their way to the server, or read later.
    pub up: VecDeque<ToServer>,
    /// On their way to the agent.
    pub down: VecDeque<ToAgent>,
    /// The agent's end is there.
    pub open: bool,
    /// After hello.
    outbox: Option<Outbox>,
}

impl Stream {
    pub(crate) fn new(id: u8, agent: u8, node: u8, hello: ToServer) -> Self {
        Self { id, agent, node, up: VecDeque::from([hello]), down: VecDeque::new(), open: true, outbox: None }
    }

    fn say(&mut self, message: ToAgent) {
        if self.open {
            self.down.push_back(message);
        }
    }

    /// The server hears a message (`server::rpc::link`).
    pub fn hear(&mut self, db: &mut Database, node: &mut Node, setup: &Setup) {
        let Some(message) = self.up.pop_front() else { return };
        let agent = usize::from(self.agent);
        match message {
            ToServer::Hello(policy, bans) => {
                db.pbxes[agent].stream = Some(self.id);
                let trusted = setup.has(Flaw::TrustsHello) && policy.is_some();
                self.outbox = Some(Outbox {
                    sent: Sent::new(policy, bans),
                    policy: if setup.with_policy() && !trusted { Due::Any } else { Due::No },
                    bans: if setup.with_bans() { Due::Any } else { Due::No },
                });
                if let Some(policy) = policy {
                    self.policy_applied(db, node, policy, setup);
                }
                if let Some(bans) = bans {
                    self.bans_applied(db, node, bans, setup);
                }
                self.say(ToAgent::Welcome);
            }
            ToServer::PolicyApplied(mark) => {
                if let Some(outbox) = &mut self.outbox
                    && outbox.sent.policy_applied(mark)
                {
                    outbox.policy = Due::Anew;
                }
                self.policy_applied(db, node, mark, setup);
            }
            ToServer::BansApplied(mark, resync) => {
                if let Some(outbox) = &mut self.outbox
                    && (resync || outbox.sent.bans_differ(mark))
                    && !setup.has(Flaw::SkipsOverGapsAndIgnoresResync)
                {
                    outbox.sent.forget_bans();
                    outbox.bans = Due::Anew;
                }
                if !resync {
                    self.bans_applied(db, node, mark, setup);
                }
            }
            ToServer::Report(batch_id, bans) => {
                let seq = db.report(self.agent, batch_id, bans, setup);
                let ban_seq = if setup.has(Flaw::AcknowledgesWithoutNumber) { 0 } else { seq };
                self.say(ToAgent::Ack(ReportAck { batch_id, ban_seq }));
                if let Some(outbox) = &mut self.outbox {
                    outbox.bans = Due::Anew;
                }
            }
        }
    }

    fn is_the_pbxes(&self, db: &Database, setup: &Setup) -> bool {
        setup.has(Flaw::HearsOldStreams) || db.pbxes[usize::from(self.agent)].stream == Some(self.id)
    }

    fn policy_applied(&self, db: &mut Database, node: &mut Node, said: PolicyMark, setup: &Setup) {
        let wanted = match node.policy.value {
            Some(kept) if kept.revision >= said.0 || setup.has(Flaw::SendsOldReading) => kept,
            _ => node.policy.read(db.policy),
        };
        if credible(said, wanted.mark()) && self.is_the_pbxes(db, setup) {
            db.pbxes[usize::from(self.agent)].revision = Some(said.0);
        }
    }

    fn bans_applied(&self, db: &mut Database, node: &mut Node, said: BanMark, setup: &Setup) {
        let window = match node.bans.value {
            Some(window) if said.0 <= window.mark.0 => window,
            _ => node.read_window(db),
        };
        if credible(said, window.mark) && self.is_the_pbxes(db, setup) {
            db.pbxes[usize::from(self.agent)].ban_seq = Some(said.0);
        }
    }

    /// Whether the server ends it, since it isn't the PBX's stream.
    pub fn is_to_end(&self, db: &Database, setup: &Setup) -> bool {
        let stream = db.pbxes[usize::from(self.agent)].stream;
        self.open
            && self.outbox.is_some()
            && stream != Some(self.id)
            && !(stream.is_none() && setup.has(Flaw::KeepsUnnotedStreams))
    }

    /// In which ways [`Self::send`] may do something: with what the node has read (`false`), and with a new reading.
    pub fn sends(&self, db: &Database, node: &Node, setup: &Setup) -> Vec<bool> {
        let Some(outbox) = self.outbox.as_ref().filter(|_| self.open && self.down.len() < IN_FLIGHT) else {
            return Vec::new();
        };
        let (will_do, is_newest) = if outbox.policy != Due::No {
            (node.policy.will_do(outbox.policy, setup), node.policy.value == Some(db.policy))
        } else if outbox.bans != Due::No {
            (node.bans.will_do(outbox.bans, setup), node.bans.value.is_some_and(|window| window.mark == db.set))
        } else {
            return Vec::new();
        };
        match (will_do, is_newest) {
            (true, true) => vec![false],
            (true, false) => vec![false, true],
            (false, _) => vec![true],
        }
    }

    /// Something has changed, or may have.
    pub fn changed(&mut self, policy: bool, bans: bool) {
        if let Some(outbox) = &mut self.outbox {
            if policy {
                outbox.policy = Due::Anew;
            }
            if bans {
                outbox.bans = Due::Anew;
            }
        }
    }

    /// The node has read since.
    pub fn was_read(&mut self, policy: bool, bans: bool) {
        if let Some(outbox) = &mut self.outbox {
            if policy {
                outbox.policy = outbox.policy.min(Due::Any);
            }
            if bans {
                outbox.bans = outbox.bans.min(Due::Any);
            }
        }
    }

    /// The server sends what is due next (`server::rpc::outbox`), out of a new reading or not.
    pub fn send(&mut self, db: &Database, node: &mut Node, anew: bool, setup: &Setup) {
        let Some(outbox) = &mut self.outbox else { return };
        if std::mem::replace(&mut outbox.policy, Due::No) != Due::No {
            let mut policy = match node.policy.value {
                Some(kept) if !anew => kept,
                _ => node.policy.read(db.policy),
            };
            if outbox.sent.is_before(policy.revision) && !setup.has(Flaw::SendsOldReading) {
                policy = node.policy.read(db.policy);
            }
            if outbox.sent.send_policy(policy.mark()) {
                self.down.push_back(ToAgent::Policy(policy));
            }
            return;
        }
        if std::mem::replace(&mut outbox.bans, Due::No) != Due::No {
            let window = match node.bans.value {
                Some(kept) if !anew => kept,
                _ => node.read_window(db),
            };
            let (mark, messages) = match outbox.sent.bans() {
                Some(held) if held == window.mark => (window.mark, Vec::new()),
                Some((seq, _)) if seq < window.mark.0 && seq >= window.after => {
                    (window.mark, vec![db.delta(seq, seq, window.mark)])
                }
                held => db.bans_since(held, setup),
            };
            if !messages.is_empty() {
                outbox.sent.send_bans(mark);
            }
            self.down.extend(messages);
        }
    }
}

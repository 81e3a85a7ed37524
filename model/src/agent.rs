//! An agent, as `agent::engine` does it: what is in memory, what is on disk, what it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agent::bans::{BanBook, Synced};
use agent::state::Record;
use policy::bans::BanDigest;
use policy::ids::{BanId, BatchId};
use policy::reports::DetectedBan;
use proto::convert::ReportAck;
use uuid::Uuid;

use crate::{Flaw, Policy, Setup, ToAgent, ToServer};

/// One write to the log of bans.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// At its end.
    Append(Record),
    /// Instead of all of it.
    Rewrite(Vec<Record>),
}

/// An agent and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Agent {
    /// In force.
    pub policy: Option<Policy>,
    /// On disk.
    pub kept_policy: Option<Policy>,
    /// In force.
    pub book: BanBook,
    /// All writes to the log since the last start; after a crash the first so many of them are on disk.
    pub log: Vec<Write>,
    /// Batches on disk. They aren't forced to it: a power cut may lose them.
    pub spool: BTreeMap<BatchId, Vec<DetectedBan>>,
    /// Bans that are in no batch yet.
    pub unreported: Vec<DetectedBan>,
    /// The stream that it has opened.
    pub stream: Option<u8>,
    /// The server has answered hello on it.
    pub up: bool,
    /// What came on a stream that is gone and isn't worked off.
    pub inbox: VecDeque<ToAgent>,
    in_flight: BTreeSet<BatchId>,
    resyncing: bool,
    batches: u8,
    /// Only to check: the newest revision that it has told to be in force.
    pub told: i64,
    /// Only to check: an older revision has replaced a newer one.
    pub went_back: bool,
    /// Only to check: what was in force at any time, a bit each revision.
    pub had: u32,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self { log: vec![Write::Rewrite(Vec::new())], ..Self::default() }
    }

    /// What it says first on a new stream.
    pub fn hello(&self) -> ToServer {
        ToServer::Hello(self.policy.map(Policy::mark), self.book.synced())
    }

    /// The stream is gone.
    pub fn down(&mut self) {
        self.stream = None;
        self.offline();
    }

    /// Nothing can be said.
    fn offline(&mut self) {
        self.up = false;
        self.in_flight.clear();
        self.resyncing = false;
    }

    /// Works off the next message of a stream that is gone: what it says to that gets nowhere. Whether there was one.
    pub fn hear_late(&mut self, setup: &Setup) -> bool {
        let Some(message) = self.inbox.pop_front() else { return false };
        let _ = self.hear(message, setup);
        self.offline();
        true
    }

    /// Works off a message; what it says to that. `None` when it gives the stream up.
    pub fn hear(&mut self, message: ToAgent, setup: &Setup) -> Option<Vec<ToServer>> {
        let mut says = Vec::new();
        match message {
            ToAgent::Welcome => {
                self.up = true;
                self.report_bans();
                self.send_reports(&mut says, setup);
            }
            ToAgent::Policy(policy) => {
                self.put_in_force(policy);
                if !setup.has(Flaw::AcknowledgesBeforeKeeping) {
                    self.kept_policy = Some(policy);
                }
                self.told = self.told.max(policy.revision);
                says.push(ToServer::PolicyApplied(policy.mark()));
            }
            ToAgent::Snapshot(part) => {
                let synced = self.book.snapshot(part);
                if matches!(synced, Synced::Broken(_)) {
                    return None;
                }
                let rewrite = matches!(synced, Synced::Applied(_)).then(|| Write::Rewrite(self.book.records()));
                self.synced(&synced, &mut says);
                self.log.extend(rewrite);
            }
            ToAgent::Delta(delta) => {
                let synced = self.book.delta(&delta);
                self.synced(&synced, &mut says);
                if matches!(synced, Synced::Applied(_)) {
                    self.log.push(Write::Append(Record::Changes { seq: delta.to_seq, changes: delta.changes }));
                }
            }
            ToAgent::Ack(ack) => {
                self.spool.remove(&ack.batch_id);
                self.acked(&ack);
                self.in_flight.remove(&ack.batch_id);
                self.send_reports(&mut says, setup);
            }
        }
        Some(says)
    }

    fn acked(&mut self, ack: &ReportAck) {
        self.book.acked(ack);
        self.book.settle();
        self.log.push(Write::Append(Record::Acked { batch: ack.batch_id, seq: ack.ban_seq }));
    }

    fn synced(&mut self, synced: &Synced, says: &mut Vec<ToServer>) {
        let broken = match synced {
            Synced::Partial => return,
            Synced::Known | Synced::Applied(_) => false,
            Synced::Broken(_) => true,
        };
        if broken && std::mem::replace(&mut self.resyncing, true) {
            return;
        }
        self.resyncing = broken;
        says.push(ToServer::BansApplied(self.book.synced().unwrap_or((0, BanDigest::default())), broken));
    }

    /// It bans a source by itself; what it says to that.
    pub fn ban(&mut self, ban: DetectedBan, setup: &Setup) -> Vec<ToServer> {
        let mut says = Vec::new();
        self.book.own(ban.clone());
        self.log.push(Write::Append(Record::Own(ban.clone())));
        self.unreported.push(ban);
        if self.up {
            self.report_bans();
            self.send_reports(&mut says, setup);
        }
        says
    }

    /// Puts what is in no batch into one.
    pub fn report_bans(&mut self) {
        if self.unreported.is_empty() {
            return;
        }
        self.batches += 1;
        let batch = BatchId(Uuid::from_u128(u128::from(self.batches)));
        let bans = std::mem::take(&mut self.unreported);
        let ids: BTreeSet<BanId> = bans.iter().map(|ban| ban.id).collect();
        self.spool.insert(batch, bans);
        self.book.batched(batch, &ids);
        self.log.push(Write::Append(Record::Batched { batch, bans: ids.into_iter().collect() }));
    }

    fn send_reports(&mut self, says: &mut Vec<ToServer>, setup: &Setup) {
        if !self.up {
            return;
        }
        for (batch, bans) in &self.spool {
            if self.in_flight.insert(*batch) {
                says.push(ToServer::Report(*batch, bans.clone()));
            }
        }
        if setup.has(Flaw::ForgetsWhatItSent) {
            self.spool.clear();
        }
    }

    /// The policy gets to the disk that was only acknowledged.
    pub fn keep_policy(&mut self) {
        self.kept_policy = self.policy;
    }

    /// It is killed and starts again with what is on disk: the first `written` writes of the log, and no batch if the power was cut.
    pub fn restart(&mut self, written: usize, power_cut: bool, setup: &Setup) {
        self.down();
        self.inbox.clear();
        self.log.truncate(written);
        let mut records = Vec::new();
        for write in &self.log {
            match write {
                Write::Append(record) => records.push(record.clone()),
                Write::Rewrite(all) => records.clone_from(all),
            }
        }
        self.log = vec![Write::Rewrite(records.clone())];
        self.book = BanBook::replay(records);
        if power_cut {
            self.spool.clear();
        }
        let held = |batch: BatchId| self.spool.contains_key(&batch) || setup.has(Flaw::ForgetsLostBatches);
        self.unreported = self
            .book
            .pending()
            .iter()
            .filter(|pending| pending.release_at.is_none() && pending.batch.is_none_or(|batch| !held(batch)))
            .map(|pending| pending.ban.clone())
            .collect();
        self.policy = None;
        if let Some(kept) = self.kept_policy {
            self.put_in_force(kept);
        }
        self.went_back |= self.policy.map_or(0, |policy| policy.revision) < self.told;
    }

    fn put_in_force(&mut self, policy: Policy) {
        self.went_back |= self.policy.is_some_and(|before| policy.revision < before.revision);
        self.policy = Some(policy);
        self.had |= 1 << policy.revision;
    }
}

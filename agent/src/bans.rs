//! Which bans hold on this machine: the server's set at a number, and those of our own that the server hasn't taken over yet.
//! Pure: what it answers goes to the kernel and to disk elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::ids::{BanId, BatchId};
use policy::net;
use policy::reports::DetectedBan;
use proto::convert::{BanDelta, BanSnapshotPart, ReportAck};
use time::OffsetDateTime;

use crate::state::Record;

type Expiry = Option<OffsetDateTime>;

/// A ban of our own that the server hasn't taken over yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pending {
    /// The ban.
    pub ban: DetectedBan,
    /// The batch that reports it.
    pub batch: Option<BatchId>,
    /// It is the server's once its set has this number.
    pub release_at: Option<i64>,
}

/// What a message about bans did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Synced {
    /// The set is the server's as of its number; the kernel has these changes to make.
    Applied(Vec<BanChange>),
    /// Wait for the next part.
    Partial,
    /// What arrived was known already.
    Known,
    /// A gap, or the digest doesn't fit: a snapshot is needed. The changes hold all the same.
    Broken(Vec<BanChange>),
}

/// All bans of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct BanBook {
    server: BTreeMap<IpNet, Expiry>,
    digest: BanDigest,
    /// The number of the server's last change that is in here; `None` before the first snapshot.
    seq: Option<i64>,
    pending: Vec<Pending>,
    repeaters: BTreeMap<IpNet, (u32, OffsetDateTime)>,
    /// Bans of the server that aren't enforced, lest this machine be cut off. One that is lifted or made anew is forgotten here.
    held: BTreeSet<IpNet>,
    parts: Vec<BanEntry>,
    next_part: u32,
}

impl BanBook {
    /// What the log of an earlier run says.
    pub fn replay(records: Vec<Record>) -> Self {
        let mut book = Self::default();
        for record in records {
            match record {
                Record::Set { seq, bans } => book.replace(seq, bans),
                Record::Changes { seq, changes } => {
                    for change in &changes {
                        book.change(change);
                    }
                    book.seq = Some(seq);
                }
                Record::Own(ban) => {
                    book.own(ban);
                }
                Record::Batched { batch, bans } => book.batched(batch, &bans.into_iter().collect()),
                Record::Acked { batch, seq } => book.acked(&ReportAck { batch_id: batch, ban_seq: seq }),
                Record::Repeater { net, times, last } => {
                    book.repeaters.insert(net, (times, last));
                }
            }
        }
        book.release();
        book
    }

    /// Records that say all of it anew.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self
            .repeaters
            .iter()
            .map(|(net, (times, last))| Record::Repeater { net: *net, times: *times, last: *last })
            .collect();
        if let Some(seq) = self.seq {
            records.push(Record::Set { seq, bans: self.server_entries().collect() });
        }
        for Pending { ban, batch, release_at } in &self.pending {
            records.push(Record::Own(ban.clone()));
            if let Some(batch) = *batch {
                records.push(Record::Batched { batch, bans: vec![ban.id] });
                records.extend(release_at.map(|seq| Record::Acked { batch, seq }));
            }
        }
        records
    }

    /// Number and digest of the server's set; `None` before the first snapshot.
    pub fn synced(&self) -> Option<(i64, BanDigest)> {
        self.seq.map(|seq| (seq, self.digest))
    }

    /// Everything that is to be in the kernel, in order.
    pub fn entries(&self) -> Vec<BanEntry> {
        let mut all: Vec<BanEntry> = self.each().collect();
        all.sort_unstable_by_key(|entry| entry.net);
        all
    }

    /// Everything that is to be in the kernel, each network once. Copies none of the server's set, which may be large: this is gone
    /// through every second.
    pub fn each(&self) -> impl Iterator<Item = BanEntry> {
        // In one pass: while the server is away there may be as many pending ones as there are others.
        let mut own: BTreeMap<IpNet, Expiry> = BTreeMap::new();
        for Pending { ban, .. } in &self.pending {
            let end = own.entry(ban.net).or_insert(Some(ban.expires_at));
            *end = longer(*end, Some(ban.expires_at));
        }
        let held = &self.held;
        let enforced = move |net: &IpNet| !held.contains(net);
        let only_own: Vec<BanEntry> = own
            .iter()
            .filter(|(net, _)| !(self.server.contains_key(net) && enforced(net)))
            .map(|(net, end)| BanEntry { net: *net, expires_at: *end })
            .collect();
        let server = self.server_entries().filter(move |entry| enforced(&entry.net)).map(move |mut entry| {
            if let Some(end) = own.get(&entry.net) {
                entry.expires_at = longer(entry.expires_at, *end);
            }
            entry
        });
        server.chain(only_own)
    }

    /// How many bans hold at `now`.
    pub fn count(&self, now: OffsetDateTime) -> usize {
        self.each().filter(|entry| entry.holds(now)).count()
    }

    /// Whether the source that `addr` counts as, or the address itself, is banned at `now`.
    pub fn holds(&self, addr: IpAddr, now: OffsetDateTime) -> bool {
        [net::source_key(addr), IpNet::from(addr.to_canonical())]
            .into_iter()
            .filter_map(|net| self.effective(net))
            .any(|entry| entry.holds(now))
    }

    /// Whether any ban covers `addr` at `now`, a whole network's too. Goes through all of them.
    pub fn blocks(&self, addr: IpAddr, now: OffsetDateTime) -> bool {
        self.holds(addr, now) || self.each().any(|entry| entry.net.contains(&addr) && entry.holds(now))
    }

    /// Stops enforcing bans of the server; the changes for the kernel.
    pub fn hold(&mut self, nets: &BTreeSet<IpNet>) -> Vec<BanChange> {
        let before = self.before(nets.iter().copied());
        self.held.extend(nets.iter().filter(|net| self.server.contains_key(net)));
        self.changes_since(before)
    }

    /// Enforces bans again that were held; the changes for the kernel.
    pub fn let_go(&mut self, nets: &BTreeSet<IpNet>) -> Vec<BanChange> {
        let before = self.before(nets.iter().copied());
        self.held.retain(|net| !nets.contains(net));
        self.changes_since(before)
    }

    /// Bans of the server that aren't enforced.
    pub fn held(&self) -> &BTreeSet<IpNet> {
        &self.held
    }

    /// What the kernel must do for `net` to be as it should be.
    pub fn wanted(&self, net: IpNet) -> BanChange {
        self.effective(net).map_or(BanChange::Remove(net), BanChange::Add)
    }

    /// Sources that were banned before, how often, and when last.
    pub fn repeaters(&self) -> impl Iterator<Item = (IpNet, u32, OffsetDateTime)> {
        self.repeaters.iter().map(|(net, (times, last))| (*net, *times, *last))
    }

    /// Bans that the server hasn't taken over yet.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// A ban that this agent decided; the change for the kernel.
    pub fn own(&mut self, ban: DetectedBan) -> BanChange {
        let net = ban.net;
        self.repeaters.insert(net, (ban.times_banned, ban.at));
        self.pending.push(Pending { ban, batch: None, release_at: None });
        self.wanted(net)
    }

    /// How long an own ban took to be in the kernel.
    pub fn set_took(&mut self, id: BanId, took_us: u64) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.ban.id == id) {
            pending.ban.took_us = took_us;
        }
    }

    /// These bans are reported in that batch.
    pub fn batched(&mut self, batch: BatchId, bans: &BTreeSet<BanId>) {
        for pending in self.pending.iter_mut().filter(|pending| bans.contains(&pending.ban.id)) {
            pending.batch = Some(batch);
        }
    }

    /// The server has stored a batch. Its bans stay until the server's set is far enough to hold them; see [`Self::settle`].
    pub fn acked(&mut self, ack: &ReportAck) {
        for pending in self.pending.iter_mut().filter(|pending| pending.batch == Some(ack.batch_id)) {
            pending.release_at = Some(ack.ban_seq);
        }
    }

    /// Hands acknowledged bans over to the server where its set is far enough; the changes for the kernel.
    pub fn settle(&mut self) -> Vec<BanChange> {
        let before = self.before(self.pending.iter().map(|pending| pending.ban.net));
        self.release();
        self.changes_since(before)
    }

    /// Forgets own bans that have ended and been reported, and repeaters that are long gone.
    pub fn forget(&mut self, now: OffsetDateTime, repeaters_before: OffsetDateTime) {
        self.pending.retain(|pending| pending.batch.is_none() || pending.ban.expires_at > now);
        self.repeaters.retain(|_, (_, last)| *last >= repeaters_before);
    }

    /// A part of the server's whole set.
    pub fn snapshot(&mut self, part: BanSnapshotPart) -> Synced {
        if part.part == 0 {
            self.parts.clear();
        } else if part.part != self.next_part {
            return Synced::Broken(Vec::new());
        }
        self.next_part = part.part + 1;
        self.parts.extend(part.bans);
        if self.next_part < part.parts {
            return Synced::Partial;
        }
        self.next_part = 0;
        let bans = std::mem::take(&mut self.parts);
        if BanDigest::of(&bans) != part.digest {
            return Synced::Broken(Vec::new());
        }
        let nets = self.server.keys().copied().chain(bans.iter().map(|entry| entry.net)).chain(self.pending_nets());
        let before = self.before(nets.collect::<BTreeSet<_>>());
        self.replace(part.seq, bans);
        self.release();
        Synced::Applied(self.changes_since(before))
    }

    /// Changes of the server's set.
    pub fn delta(&mut self, delta: &BanDelta) -> Synced {
        match self.seq {
            Some(seq) if delta.to_seq <= seq => return Synced::Known,
            Some(seq) if delta.from_seq == seq + 1 => {}
            _ => return Synced::Broken(Vec::new()),
        }
        let nets = delta.changes.iter().map(|change| match change {
            BanChange::Add(entry) => entry.net,
            BanChange::Remove(net) => *net,
        });
        let before = self.before(nets.chain(self.pending_nets()).collect::<BTreeSet<_>>());
        for change in &delta.changes {
            self.change(change);
        }
        let fits = self.digest == delta.digest;
        if fits {
            self.seq = Some(delta.to_seq);
            self.release();
        }
        let changes = self.changes_since(before);
        if fits { Synced::Applied(changes) } else { Synced::Broken(changes) }
    }

    fn server_entries(&self) -> impl Iterator<Item = BanEntry> {
        self.server.iter().map(|(net, expires_at)| BanEntry { net: *net, expires_at: *expires_at })
    }

    fn pending_nets(&self) -> Vec<IpNet> {
        self.pending.iter().map(|pending| pending.ban.net).collect()
    }

    /// Until when a network is banned, by whoever bans it longest.
    fn effective(&self, net: IpNet) -> Option<BanEntry> {
        let own =
            self.pending.iter().filter(|pending| pending.ban.net == net).map(|pending| Some(pending.ban.expires_at));
        own.chain(self.server.get(&net).filter(|_| !self.held.contains(&net)).copied())
            .reduce(longer)
            .map(|expires_at| BanEntry { net, expires_at })
    }

    fn before(&self, nets: impl IntoIterator<Item = IpNet>) -> BTreeMap<IpNet, Option<BanEntry>> {
        nets.into_iter().map(|net| (net, self.effective(net))).collect()
    }

    fn changes_since(&self, before: BTreeMap<IpNet, Option<BanEntry>>) -> Vec<BanChange> {
        before
            .into_iter()
            .filter_map(|(net, before)| match (before, self.effective(net)) {
                (before, after) if before == after => None,
                (_, Some(entry)) => Some(BanChange::Add(entry)),
                (_, None) => Some(BanChange::Remove(net)),
            })
            .collect()
    }

    fn replace(&mut self, seq: i64, bans: Vec<BanEntry>) {
        self.server = bans.into_iter().map(|entry| (entry.net, entry.expires_at)).collect();
        self.digest = BanDigest::of(&self.server_entries().collect::<Vec<_>>());
        self.seq = Some(seq);
        self.held.retain(|net| self.server.contains_key(net));
    }

    fn change(&mut self, change: &BanChange) {
        let (net, added) = match change {
            BanChange::Add(entry) => (entry.net, Some(entry)),
            BanChange::Remove(net) => (*net, None),
        };
        self.held.remove(&net);
        if let Some(expires_at) = self.server.remove(&net) {
            self.digest.remove(&BanEntry { net, expires_at });
        }
        if let Some(entry) = added {
            self.server.insert(net, entry.expires_at);
            self.digest.add(entry);
        }
    }

    fn release(&mut self) {
        let seq = self.seq;
        self.pending.retain(|pending| pending.release_at.is_none_or(|due| seq.is_none_or(|seq| seq < due)));
    }
}

/// The later of two ends; `None` is for ever.
fn longer(a: Expiry, b: Expiry) -> Expiry {
    a.zip(b).map(|(a, b)| a.max(b))
}

#[cfg(test)]
mod tests;

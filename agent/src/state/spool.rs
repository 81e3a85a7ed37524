//! Reports that the server hasn't stored yet, one file each. Bounded: attempts go first, detections last, and what went is counted.
//!
//! Files aren't forced to disk: after a power cut a ban is reported anew out of the journal, and a minute of attempts is no loss.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use policy::ids::BatchId;
use policy::reports::{ReportBatch, ReportEvent};
use prost::Message as _;
use proto::pb;
use tracing::{error, warn};

use super::StateDir;

/// Most batches kept.
const BATCHES_MAX: usize = 4_000;
/// Most bytes kept.
const BYTES_MAX: u64 = 64 << 20;
/// Most bytes that wait in memory because the disk did not take them.
const MEMORY_MAX: usize = 4 << 20;

/// The waiting reports.
#[derive(Debug)]
pub struct Spool {
    state: StateDir,
    /// By id, which is by age.
    waiting: BTreeMap<BatchId, Waiting>,
    /// Those of them that the disk did not take.
    unwritten: BTreeMap<BatchId, Vec<u8>>,
    bytes: u64,
    /// Events dropped since start.
    dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    detections: bool,
    events: u64,
    bytes: u64,
}

impl Spool {
    /// Finds what waits from before.
    pub fn open(state: &StateDir) -> io::Result<Self> {
        let folder = state.file("spool");
        fs::create_dir_all(&folder)?;
        let mut spool =
            Self { state: state.clone(), waiting: BTreeMap::new(), unwritten: BTreeMap::new(), bytes: 0, dropped: 0 };
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".batch").and_then(|id| id.parse::<BatchId>().ok()) else {
                // Half a file that a crash left.
                if name.strip_suffix(".part").is_some() {
                    let _ = fs::remove_file(folder.join(&name));
                }
                continue;
            };
            if let Some((batch, bytes)) = spool.load(id) {
                spool.count(&batch, bytes);
            }
        }
        Ok(spool)
    }

    /// Keeps a batch until it is stored, in memory where the disk is full; an error means that it waits nowhere.
    pub fn keep(&mut self, batch: &ReportBatch) -> io::Result<()> {
        let content = pb::Report::from(batch).encode_to_vec();
        let length = content.len();
        if let Err(error) = self.state.write_unsynced(&name(batch.id), &content) {
            if self.unwritten.values().map(Vec::len).sum::<usize>() + length > MEMORY_MAX {
                return Err(error);
            }
            if self.unwritten.is_empty() {
                warn!(%error, "A report could not be kept on disk; it waits in memory");
            }
            self.unwritten.insert(batch.id, content);
        }
        self.count(batch, length as u64);
        while self.waiting.len() > BATCHES_MAX || self.bytes > BYTES_MAX {
            let oldest =
                self.waiting.iter().find(|(_, waiting)| !waiting.detections).or_else(|| self.waiting.iter().next());
            let Some((id, waiting)) = oldest.map(|(id, waiting)| (*id, *waiting)) else { break };
            self.dropped += waiting.events;
            warn!(events = waiting.events, "Too many reports wait for the server; the oldest are dropped");
            self.stored(id);
        }
        Ok(())
    }

    /// Writes what the disk did not take when it was to.
    pub fn catch_up(&mut self) {
        while let Some(entry) = self.unwritten.first_entry() {
            if self.state.write_unsynced(&name(*entry.key()), entry.get()).is_err() {
                return;
            }
            entry.remove();
        }
    }

    /// Counts events that could not even be kept.
    pub fn lost(&mut self, events: u64) {
        self.dropped += events;
    }

    /// The server has stored a batch.
    pub fn stored(&mut self, id: BatchId) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.bytes = self.bytes.saturating_sub(waiting.bytes);
            if self.unwritten.remove(&id).is_some() {
                return;
            }
            if let Err(error) = fs::remove_file(self.state.file(&name(id))) {
                error!(%error, batch = %id, "A stored report could not be deleted; it will be sent again after a restart");
            }
        }
    }

    /// The oldest batches after `after`, at most `count`.
    pub fn next(&mut self, after: Option<BatchId>, count: usize) -> Vec<ReportBatch> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let ids: Vec<BatchId> =
            self.waiting.range((from, std::ops::Bound::Unbounded)).map(|(id, _)| *id).take(count).collect();
        ids.into_iter().filter_map(|id| self.load(id).map(|(batch, _)| batch)).collect()
    }

    /// Whether a batch waits.
    pub fn holds(&self, id: BatchId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Batches that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Events dropped since start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn count(&mut self, batch: &ReportBatch, bytes: u64) {
        let detections = batch.events.iter().any(|event| matches!(event, ReportEvent::Detected(_)));
        self.waiting.insert(batch.id, Waiting { detections, events: batch.events.len() as u64, bytes });
        self.bytes += bytes;
    }

    fn load(&mut self, id: BatchId) -> Option<(ReportBatch, u64)> {
        let path = self.state.file(&name(id));
        let read = self.unwritten.get(&id).map_or_else(|| fs::read(&path), |content| Ok(content.clone()));
        let read = read.map_err(|error| error.to_string()).and_then(|bytes| {
            let wire = pb::Report::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
            let batch = ReportBatch::try_from(wire).map_err(|error| error.to_string())?;
            if batch.id == id { Ok((batch, bytes.len() as u64)) } else { Err("another batch's content".to_owned()) }
        });
        read.map_err(|why| {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.bytes = self.bytes.saturating_sub(waiting.bytes);
                self.dropped += waiting.events;
            }
            self.state.set_aside(&name(id), &why);
        })
        .ok()
    }
}

fn name(id: BatchId) -> String {
    format!("spool/{id}.batch")
}

#[cfg(test)]
mod tests {
    use policy::reports::AttemptCount;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn batch() -> ReportBatch {
        let count = AttemptCount {
            minute: OffsetDateTime::from_unix_timestamp(60).unwrap(),
            address: "203.0.113.9".parse().unwrap(),
            proven: 1,
            unproven: 0,
        };
        ReportBatch { id: BatchId(Uuid::now_v7()), events: vec![ReportEvent::Attempts(count)] }
    }

    #[test]
    fn survives_a_restart_and_damage() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let mut spool = Spool::open(&state).unwrap();
        let (first, second) = (batch(), batch());
        spool.keep(&first).unwrap();
        spool.keep(&second).unwrap();
        fs::write(state.file(&name(first.id)), b"damaged").unwrap();
        let mut spool = Spool::open(&state).unwrap();
        assert_eq!(spool.next(None, 10), std::slice::from_ref(&second));
        assert!(spool.next(Some(second.id), 10).is_empty());
        spool.stored(second.id);
        assert!(Spool::open(&state).unwrap().is_empty());
    }

    #[test]
    fn what_the_disk_does_not_take_waits_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let mut spool = Spool::open(&state).unwrap();
        // No file can be made in a folder that isn't there.
        fs::remove_dir(state.file("spool")).unwrap();
        let (first, second) = (batch(), batch());
        spool.keep(&first).unwrap();
        spool.keep(&second).unwrap();
        spool.catch_up();
        assert_eq!(spool.next(None, 10), [first.clone(), second.clone()]);
        spool.stored(first.id);
        fs::create_dir(state.file("spool")).unwrap();
        spool.catch_up();
        assert_eq!(Spool::open(&state).unwrap().next(None, 10), [second]);
    }

    #[test]
    fn bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let first = batch();
        spool.keep(&first).unwrap();
        for _ in 0..BATCHES_MAX {
            spool.keep(&batch()).unwrap();
        }
        assert_eq!((spool.len(), spool.dropped(), spool.holds(first.id)), (BATCHES_MAX, 1, false));
    }
}

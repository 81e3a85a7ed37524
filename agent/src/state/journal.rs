//! The set of bans on disk: a log of what happened to it, appended and forced to disk off the hot path, rewritten when it has grown
//! long. A ban is in the kernel first and here right after.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use ipnet::IpNet;
use policy::bans::{BanChange, BanEntry};
use policy::ids::{BanId, BatchId};
use policy::reports::DetectedBan;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::{error, warn};

use super::StateDir;

const NAME: &str = "bans.log";
/// A log shorter than this is never rewritten.
const REWRITE_FROM: u64 = 1 << 20;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The whole set of the server, as of this number.
    Set {
        /// Number of the last change.
        seq: i64,
        /// The set.
        bans: Vec<BanEntry>,
    },
    /// Changes of the server's set up to this number.
    Changes {
        /// Number of the last change.
        seq: i64,
        /// In order.
        changes: Vec<BanChange>,
    },
    /// A ban of this agent.
    Own(DetectedBan),
    /// Bans of this agent went into a batch.
    Batched {
        /// The batch.
        batch: BatchId,
        /// The bans.
        bans: Vec<BanId>,
    },
    /// The server has stored a batch; its bans are the server's once its set has this number.
    Acked {
        /// The batch.
        batch: BatchId,
        /// The number.
        seq: i64,
    },
    /// A source was banned this often.
    Repeater {
        /// The source.
        net: IpNet,
        /// How often.
        times: u32,
        /// The last time.
        #[serde(with = "time::serde::rfc3339")]
        last: OffsetDateTime,
    },
}

/// Writes the log in a thread of its own.
#[derive(Debug)]
pub struct Journal {
    commands: Option<Sender<Command>>,
    length: Arc<AtomicU64>,
    /// Length after the last rewriting.
    base: u64,
    writer: Option<JoinHandle<()>>,
}

enum Command {
    Append(Vec<Record>),
    Rewrite(Vec<Record>),
}

impl Journal {
    /// Reads the log, in order, and goes on appending. A torn last line is what a power cut leaves, and is dropped; any other
    /// damage sets the log aside: the server sends the set again.
    pub fn open(state: &StateDir) -> io::Result<(Self, Vec<Record>)> {
        let text = state.read(NAME).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            warn!("The log of bans ends in a torn line, which is dropped");
        }
        let records: Vec<Record> = match text[..whole].lines().map(serde_json::from_str).collect() {
            Ok(records) => records,
            Err(error) => {
                state.set_aside(NAME, &error.to_string());
                Vec::new()
            }
        };
        // Starts from a clean file: without the torn line, without lines of a version that knew more.
        rewrite(state, &records)?;
        let file = append(state)?;
        let length = Arc::new(AtomicU64::new(file.metadata()?.len()));
        let base = length.load(Ordering::Relaxed);
        let (commands, receiver) = mpsc::channel();
        let writer = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let (state, length) = (state.clone(), Arc::clone(&length));
            move || write_all(&state, file, &length, &receiver)
        })?;
        Ok((Self { commands: Some(commands), length, base, writer: Some(writer) }, records))
    }

    /// Appends records.
    pub fn append(&self, records: Vec<Record>) {
        self.send(Command::Append(records));
    }

    /// Whether the log has grown so long that it should be rewritten.
    pub fn wants_rewriting(&self) -> bool {
        self.length.load(Ordering::Relaxed) > REWRITE_FROM.max(self.base.saturating_mul(2))
    }

    /// Replaces the log by records that say the same.
    pub fn rewrite(&mut self, records: Vec<Record>) {
        // Until the writer has counted: not again at once.
        self.base = self.length.load(Ordering::Relaxed);
        self.send(Command::Rewrite(records));
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands
            && commands.send(command).is_err()
        {
            error!("The log of bans is not written any more");
        }
    }
}

impl Drop for Journal {
    /// Waits until everything is on disk.
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(state: &StateDir, mut file: File, length: &AtomicU64, commands: &Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        // What has queued up meanwhile is forced to disk together.
        let mut lines = Vec::new();
        for command in std::iter::once(first).chain(commands.try_iter()) {
            let done = match command {
                Command::Append(records) => records.iter().try_for_each(|record| line(&mut lines, record)),
                Command::Rewrite(records) => {
                    lines.clear();
                    rewrite(state, &records).and_then(|()| append(state)).map(|new| file = new)
                }
            };
            if let Err(error) = done {
                error!(%error, "The log of bans could not be written");
            }
        }
        if let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data()) {
            error!(%error, "The log of bans could not be written");
        }
        length.store(file.metadata().map_or(0, |about| about.len()), Ordering::Relaxed);
    }
}

fn append(state: &StateDir) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(state.file(NAME))
}

fn rewrite(state: &StateDir, records: &[Record]) -> io::Result<()> {
    let mut lines = Vec::new();
    records.iter().try_for_each(|record| line(&mut lines, record))?;
    state.write(NAME, &lines)
}

fn line(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(seq: i64) -> Record {
        Record::Changes { seq, changes: vec![BanChange::Remove("203.0.113.9/32".parse().unwrap())] }
    }

    #[test]
    fn replays_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (journal, records) = Journal::open(&state).unwrap();
        assert_eq!(records, []);
        journal.append(vec![changes(1), changes(2)]);
        drop(journal);
        let torn = std::fs::read(state.file(NAME)).unwrap();
        std::fs::write(state.file(NAME), &torn[..torn.len() - 5]).unwrap();
        let (mut journal, records) = Journal::open(&state).unwrap();
        assert_eq!(records, [changes(1)]);
        journal.rewrite(vec![changes(9)]);
        journal.append(vec![changes(10)]);
        drop(journal);
        assert_eq!(Journal::open(&state).unwrap().1, [changes(9), changes(10)]);
    }

    #[test]
    fn damage_in_the_middle_sets_it_aside() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        std::fs::write(state.file(NAME), "{}\n{\"Acked\":1}\n").unwrap();
        assert_eq!(Journal::open(&state).unwrap().1, []);
        assert!(state.file("bans.log.damaged").exists());
    }
}

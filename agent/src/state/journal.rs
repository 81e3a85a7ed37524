//! The set of bans on disk: a log of what happened to it, appended and forced to disk off the hot path, rewritten when it has grown
//! long. A ban is in the kernel first and here right after.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

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
/// What a full disk did not take is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    lengths: Arc<Lengths>,
    writer: Option<JoinHandle<()>>,
}

/// Bytes of the log.
#[derive(Debug, Default)]
struct Lengths {
    now: AtomicU64,
    /// After the last rewriting; as long as one is under way, no other is wanted.
    base: AtomicU64,
}

enum Command {
    Append(Vec<Record>),
    Rewrite(Vec<Record>),
}

impl Journal {
    /// Reads the log, in order, and goes on appending. A torn last line is what a power cut leaves, and is dropped; any other
    /// damage sets the log aside: the server sends the set again.
    pub fn open(state: &StateDir) -> io::Result<(Self, Vec<Record>)> {
        let bytes = match std::fs::read(state.file(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        // Cut before it is read as text: a tear may go through a character.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            warn!("The log of bans ends in a torn line, which is dropped");
        }
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records: Vec<Record> = match lines.map(serde_json::from_slice).collect() {
            Ok(records) => records,
            Err(error) => {
                state.set_aside(NAME, &error.to_string());
                Vec::new()
            }
        };
        // Starts from a clean file: without the torn line, without lines of a version that knew more.
        let rewritten = rewrite(state, &records);
        let file = append(state)?;
        if let Err(error) = rewritten {
            warn!(%error, "There is no room to write the log of bans anew; it goes on as it is");
            if file.metadata()?.len() > 0 {
                file.set_len(whole as u64)?;
            }
        }
        let length = file.metadata()?.len();
        let lengths = Arc::new(Lengths { now: length.into(), base: length.into() });
        let (commands, receiver) = mpsc::channel();
        let writer = std::thread::Builder::new().name("journal".to_owned()).spawn({
            let mut log =
                Log { state: state.clone(), file, lengths: Arc::clone(&lengths), unwritten: Vec::new(), instead: None };
            move || log.write_all(&receiver)
        })?;
        Ok((Self { commands: Some(commands), lengths, writer: Some(writer) }, records))
    }

    /// Appends records.
    pub fn append(&self, records: Vec<Record>) {
        self.send(Command::Append(records));
    }

    /// Whether the log has grown so long that it should be rewritten.
    pub fn wants_rewriting(&self) -> bool {
        let Lengths { now, base } = &*self.lengths;
        now.load(Ordering::Relaxed) > REWRITE_FROM.max(base.load(Ordering::Relaxed).saturating_mul(2))
    }

    /// Replaces the log by records that say the same.
    pub fn rewrite(&self, records: Vec<Record>) {
        self.lengths.base.store(u64::MAX, Ordering::Relaxed);
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

/// The log in the hands of its writer.
struct Log {
    state: StateDir,
    file: File,
    lengths: Arc<Lengths>,
    /// Lines that the disk did not take.
    unwritten: Vec<u8>,
    /// What is to replace the whole log, when the disk did not take that.
    instead: Option<Vec<u8>>,
}

impl Log {
    fn write_all(&mut self, commands: &Receiver<Command>) {
        let mut behind = false;
        loop {
            let first = if behind { commands.recv_timeout(AGAIN) } else { commands.recv().map_err(Into::into) };
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            // What has queued up meanwhile is forced to disk together.
            for command in first.into_iter().chain(commands.try_iter()) {
                match command {
                    Command::Append(records) => {
                        let lines = self.instead.as_mut().unwrap_or(&mut self.unwritten);
                        lines.extend(text(&records));
                    }
                    // What was still to be written is in the records.
                    Command::Rewrite(records) => {
                        self.unwritten.clear();
                        self.instead = Some(text(&records));
                    }
                }
            }
            let written = self.replace().and_then(|()| self.write());
            if let Err(error) = &written
                && !behind
            {
                error!(%error, "The log of bans could not be written; trying again every second");
            }
            behind = written.is_err();
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        let Some(lines) = &self.instead else { return Ok(()) };
        let replaced = self.state.write(NAME, lines).and_then(|()| append(&self.state));
        let replaced = replaced.map(|file| {
            self.file = file;
            self.instead = None;
        });
        let length = self.file.metadata().map_or(0, |about| about.len());
        self.lengths.base.store(length, Ordering::Relaxed);
        self.lengths.now.store(length, Ordering::Relaxed);
        replaced
    }

    fn write(&mut self) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&self.unwritten).and_then(|()| self.file.sync_data()) {
            // A full disk takes half a line; what came behind it would be lost with it.
            let _ = self.file.set_len(before);
            return Err(error);
        }
        self.lengths.now.store(before + self.unwritten.len() as u64, Ordering::Relaxed);
        self.unwritten.clear();
        Ok(())
    }
}

fn append(state: &StateDir) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(state.file(NAME))
}

fn rewrite(state: &StateDir, records: &[Record]) -> io::Result<()> {
    state.write(NAME, &text(records))
}

fn text(records: &[Record]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        // Memory is written to: nothing to fail but what can't be text, and all of it can.
        let _ = serde_json::to_writer(&mut lines, record);
        lines.push(b'\n');
    }
    lines
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
        std::fs::write(state.file(NAME), [&torn[..torn.len() - 5], "ü".as_bytes().split_last().unwrap().1].concat())
            .unwrap();
        let (journal, records) = Journal::open(&state).unwrap();
        assert_eq!(records, [changes(1)]);
        journal.rewrite(vec![changes(9)]);
        journal.append(vec![changes(10)]);
        drop(journal);
        assert_eq!(Journal::open(&state).unwrap().1, [changes(9), changes(10)]);
    }

    #[test]
    fn it_stays_short_however_much_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (journal, _) = Journal::open(&state).unwrap();
        let length = || journal.lengths.now.load(Ordering::Relaxed);
        let (mut longest, mut rewritten) = (0, 0);
        for seq in 0..60 {
            let before = length();
            journal.append((0..1_000).map(|_| changes(seq)).collect());
            while length() == before {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            longest = longest.max(length());
            if journal.wants_rewriting() {
                let before = length();
                journal.rewrite(vec![changes(seq)]);
                assert!(!journal.wants_rewriting(), "one is under way");
                while length() == before {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                rewritten += 1;
            }
        }
        assert!(rewritten >= 2 && longest < 3 * REWRITE_FROM, "{rewritten} times, {longest} bytes");
    }

    #[test]
    fn what_a_full_disk_did_not_take_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        drop(Journal::open(&state).unwrap());
        // Everything written to it fails as on a full disk.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut log =
            Log { state: state.clone(), file: full, lengths: Arc::default(), unwritten: Vec::new(), instead: None };
        log.unwritten = text(&[changes(1)]);
        assert!(log.write().is_err());
        log.file = append(&state).unwrap();
        log.unwritten.extend(text(&[changes(2)]));
        log.write().unwrap();
        assert_eq!(Journal::open(&state).unwrap().1, [changes(1), changes(2)]);
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

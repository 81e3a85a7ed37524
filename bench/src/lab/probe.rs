//! When an attacker is shut out: it sends a numbered datagram every half millisecond, and the PBX's machine sends each back. The first that
//! doesn't come back, nor any after it, is the first that was dropped.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use tokio::time::{Duration, Instant};

const EVERY: Duration = Duration::from_micros(500);
/// No answer for so long, on a machine that is busy, too, is no delay.
const SILENCE: Duration = Duration::from_millis(150);
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// A stream of datagrams, in a thread of its own.
pub(super) struct Probe {
    thread: JoinHandle<anyhow::Result<Option<Instant>>>,
    given_up: Arc<AtomicBool>,
}

impl Probe {
    /// Starts, and waits until an answer has come.
    pub(super) fn start(socket: UdpSocket) -> anyhow::Result<Self> {
        socket.set_nonblocking(true)?;
        let (answered, first) = std::sync::mpsc::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&given_up);
        let thread = std::thread::spawn(move || probe(&socket, || answered.send(()).is_ok(), &until));
        // An attacker whom something shuts out already never gets one.
        first.recv_timeout(FIRST_ANSWER).context("no way to the PBX")?;
        Ok(Self { thread, given_up })
    }

    /// When the first dropped datagram was sent; `None` when none was within `patience`.
    pub(super) fn dropped(self, patience: Duration) -> anyhow::Result<Option<Instant>> {
        let until = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() > until {
                self.given_up.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?
    }
}

fn probe(
    socket: &UdpSocket,
    mut first: impl FnMut() -> bool,
    given_up: &AtomicBool,
) -> anyhow::Result<Option<Instant>> {
    let mut sent: Vec<Instant> = Vec::new();
    let mut answered = None::<usize>;
    let mut due = Instant::now();
    let mut buffer = [0; 16];
    while !given_up.load(Ordering::Relaxed) {
        let number = u64::try_from(sent.len())?.to_be_bytes();
        sent.push(Instant::now());
        // Where the firewall answers with a refusal the call after it fails, without sending.
        if let Err(error) = socket.send(&number) {
            ensure!(error.kind() == ErrorKind::ConnectionRefused, error);
            let _ = socket.send(&number);
        }
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        loop {
            match socket.recv(&mut buffer) {
                Ok(8) => {
                    let number = buffer.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    let number = usize::try_from(number)?;
                    if answered.is_none() {
                        first();
                    }
                    answered = answered.max(Some(number));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        if let Some(lost) = answered.and_then(|last| sent.get(last + 1))
            && lost.elapsed() > SILENCE
        {
            return Ok(Some(*lost));
        }
    }
    Ok(None)
}

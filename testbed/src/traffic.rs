//! A source that sends numbered packets all the time, and counts which of them are answered.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::namespaces::Namespaces;

const EVERY: Duration = Duration::from_millis(5);
/// Whatever isn't answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Traffic of one source, until it is dropped.
pub struct Traffic {
    source: String,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    pause: AtomicBool,
    paused: AtomicBool,
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Traffic {
    /// Begins to send.
    pub fn start(namespaces: &Namespaces, source: &str) -> Self {
        let socket = namespaces.flow(source).into_socket();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(EVERY)).unwrap();
        let state = Arc::new(State::default());
        let thread = std::thread::spawn({
            let state = Arc::clone(&state);
            move || state.send_all(&socket)
        });
        Self { source: source.to_owned(), state, thread: Some(thread) }
    }

    /// How many packets have been answered.
    pub fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::Relaxed)
    }

    /// Nothing is sent until [`Self::resume`]; what was sent has been answered or is lost.
    pub fn pause(&self) {
        self.state.pause.store(true, Ordering::Relaxed);
        while !self.state.paused.load(Ordering::Relaxed) {
            std::thread::sleep(EVERY);
        }
    }

    /// Sends again.
    pub fn resume(&self) {
        self.state.paused.store(false, Ordering::Relaxed);
        self.state.pause.store(false, Ordering::Relaxed);
    }

    /// All that was sent so far was answered.
    pub fn assert_nothing_lost(&self) {
        self.pause();
        let (sent, lost) = (self.state.sent.load(Ordering::Relaxed), self.state.lost.load(Ordering::Relaxed));
        assert!(sent > 100, "{} sent only {sent} packets", self.source);
        assert_eq!(lost, 0, "{} lost packets of {sent}", self.source);
        self.resume();
    }

    /// Nothing of what was sent was answered.
    pub fn assert_nothing_got_through(&self) {
        let sent = || self.state.sent.load(Ordering::Relaxed);
        // It may have begun a moment ago.
        while sent() < 20 {
            std::thread::sleep(EVERY);
        }
        let (sent, answered) = (sent(), self.answered());
        assert_eq!(answered, 0, "packets of {} got through, of {sent}", self.source);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn send_all(&self, socket: &UdpSocket) {
        let mut waiting = BTreeSet::new();
        let mut patience = Duration::ZERO;
        let mut number = 0u64;
        while !self.stop.load(Ordering::Relaxed) {
            if self.pause.load(Ordering::Relaxed) {
                if waiting.is_empty() || patience > PATIENCE {
                    self.lost.fetch_add(waiting.len() as u64, Ordering::Relaxed);
                    waiting.clear();
                    self.paused.store(true, Ordering::Relaxed);
                }
                patience += EVERY;
            } else {
                patience = Duration::ZERO;
                number += 1;
                if socket.send(&number.to_be_bytes()).is_ok() {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    waiting.insert(number);
                } else {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.receive(socket, &mut waiting);
        }
    }

    /// Takes answers for as long as it is until the next packet.
    fn receive(&self, socket: &UdpSocket, waiting: &mut BTreeSet<u64>) {
        let mut buffer = [0; 8];
        // The first may be there already; then there is no waiting, and the next round is early, which does no harm.
        while let Ok(8) = socket.recv(&mut buffer) {
            if waiting.remove(&u64::from_be_bytes(buffer)) {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

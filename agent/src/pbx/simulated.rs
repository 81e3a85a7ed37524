//! A phone system under attack that isn't there, for the demonstration. Its attackers live in the ranges reserved for documentation and
//! benchmarks (RFC 5737, RFC 3849, RFC 2544), so that nobody's real network is accused.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use policy::detection::{SecurityEvent, SecurityEventKind};
use policy::safety::Phones;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Pbx, PbxEvent};
use crate::clock::SharedClock;

/// A source does not come back sooner than this many others: a banned one could not.
const REMEMBERED: usize = 4_000;
const ACCOUNTS: [&str; 14] =
    ["100", "101", "200", "1000", "1001", "1007", "2000", "8000", "admin", "sip", "test", "phone", "trunk", "voip"];

/// What one attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Guesses passwords of one account.
    Guesser,
    /// Tries many accounts.
    Scanner,
    /// Gives up before the limit.
    Timid,
    /// Sends packets with forged sources that prove nothing.
    Forger,
}

/// A simulated phone system.
pub struct Simulated {
    rng: StdRng,
    clock: SharedClock,
    seen: VecDeque<IpAddr>,
    sessions: u64,
}

impl Simulated {
    /// One whose attacks depend on `seed` alone; 0 is another each time.
    pub fn new(seed: u64, clock: SharedClock) -> Self {
        let rng = if seed == 0 { rand::make_rng() } else { StdRng::seed_from_u64(seed) };
        Self { rng, clock, seen: VecDeque::new(), sessions: 0 }
    }

    /// The next attacker: how it works, from where, how long after the one before.
    fn attacker(&mut self) -> (Style, IpAddr, Duration) {
        let style = match self.rng.random_range(0..20) {
            0..9 => Style::Guesser,
            9..14 => Style::Scanner,
            14..18 => Style::Timid,
            _ => Style::Forger,
        };
        // Now and then nothing happens for a while.
        let pause = if self.rng.random_range(0..25) == 0 {
            self.rng.random_range(45_000..90_000)
        } else {
            self.rng.random_range(1_500..8_000)
        };
        (style, self.source(), Duration::from_millis(pause))
    }

    fn source(&mut self) -> IpAddr {
        for _ in 0..50 {
            let host = self.rng.random_range(1..=254);
            let addr = match self.rng.random_range(0..10) {
                0..3 => IpAddr::from(Ipv4Addr::new(203, 0, 113, host)),
                3..6 => IpAddr::from(Ipv4Addr::new(198, 51, 100, host)),
                6..7 => IpAddr::from(Ipv4Addr::new(192, 0, 2, host)),
                7..9 => IpAddr::from(Ipv4Addr::new(198, self.rng.random_range(18..=19), self.rng.random(), host)),
                _ => IpAddr::from(Ipv6Addr::new(
                    0x2001,
                    0xdb8,
                    self.rng.random(),
                    self.rng.random(),
                    0,
                    0,
                    0,
                    u16::from(host),
                )),
            };
            if !self.seen.contains(&addr) {
                self.seen.push_back(addr);
                if self.seen.len() > REMEMBERED {
                    self.seen.pop_front();
                }
                return addr;
            }
        }
        // All taken: the least recent comes again.
        self.seen.rotate_left(1);
        self.seen.back().copied().unwrap_or(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)))
    }

    /// One attempt: the events that Asterisk would raise.
    fn attempt(&mut self, style: Style, remote: IpAddr, account: &str) -> Vec<SecurityEvent> {
        self.sessions += 1;
        let session = format!("{:016x}-{}", self.rng.random::<u64>(), self.sessions);
        let challenge = format!("{:016x}", self.rng.random::<u64>());
        let transport = if self.rng.random_range(0..5) == 0 { "TCP" } else { "UDP" };
        let event = |kind, challenge: Option<&str>| SecurityEvent {
            at: self.clock.now(),
            kind,
            account: account.to_owned(),
            session: session.clone(),
            remote,
            transport: if style == Style::Forger { "UDP" } else { transport }.to_owned(),
            service: "PJSIP".to_owned(),
            challenge: challenge.map(ToOwned::to_owned),
        };
        match style {
            Style::Forger => vec![event(SecurityEventKind::ChallengeResponseFailed, Some("made-up"))],
            Style::Guesser | Style::Scanner | Style::Timid => vec![
                event(SecurityEventKind::ChallengeSent, Some(&challenge)),
                event(SecurityEventKind::ChallengeResponseFailed, Some(&challenge)),
            ],
        }
    }

    async fn attack(&mut self, events: &mpsc::Sender<PbxEvent>) -> Result<(), mpsc::error::SendError<PbxEvent>> {
        let (style, remote, pause) = self.attacker();
        tokio::time::sleep(pause).await;
        let attempts = match style {
            Style::Timid => self.rng.random_range(1..=3),
            Style::Forger => self.rng.random_range(4..=12),
            // Those that get banned are not heard again: their packets don't arrive.
            Style::Guesser | Style::Scanner => 5,
        };
        let mut account = ACCOUNTS[self.rng.random_range(0..ACCOUNTS.len())];
        for _ in 0..attempts {
            if style == Style::Scanner {
                account = ACCOUNTS[self.rng.random_range(0..ACCOUNTS.len())];
            }
            for event in self.attempt(style, remote, account) {
                events.send(PbxEvent::Security(event, Instant::now())).await?;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(150..900))).await;
        }
        let registered = self.rng.random_range(21..=24);
        events.send(PbxEvent::Registered(registered, Phones::new())).await
    }
}

#[async_trait]
impl Pbx for Simulated {
    fn kind(&self) -> &'static str {
        "simulated"
    }

    async fn run(mut self: Box<Self>, events: mpsc::Sender<PbxEvent>, _closely: watch::Receiver<bool>) {
        for first in [PbxEvent::Up("simulated".to_owned()), PbxEvent::Registered(23, Phones::new())] {
            if events.send(first).await.is_err() {
                return;
            }
        }
        while self.attack(&events).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use policy::detection::{DetectionRule, Detector};

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn bans_keep_coming() {
        let (events, mut told) = mpsc::channel(64);
        let pbx = tokio::spawn(Box::new(Simulated::new(7, Arc::new(SystemClock))).run(events, watch::channel(false).1));
        let mut detector = Detector::new(DetectionRule::default());
        let (mut bans, start) = (0, Instant::now());
        while start.elapsed() < Duration::from_mins(10) {
            if let Some(PbxEvent::Security(event, _)) = told.recv().await {
                assert!(policy::net::unusable(&policy::net::source_key(event.remote)).is_none());
                bans += usize::from(detector.observe(&event, |_| false).ban.is_some());
            }
        }
        pbx.abort();
        assert!((25..=90).contains(&bans), "{bans} bans in ten minutes");
    }
}

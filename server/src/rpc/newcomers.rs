//! Peers that have not shown yet whose they are: handshakes under way, and those without a certificate, who have come to
//! enrol. Few at a time for each source, and when there are too many altogether the oldest has to go, if it has had its time: an agent
//! is through within milliseconds, so that who dawdles keeps nobody out, and a whole fleet that comes back at once isn't sent away
//! half-way, over and over, but waits outside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::connections::{Connections, Most, Place};

/// Nobody is sent away sooner than this: two round trips to the other side of the world, and a machine that is as busy as a fleet that
/// comes back makes it.
const TIME: Duration = Duration::from_secs(1);

/// The newcomers of a port.
#[derive(Debug)]
pub(super) struct Newcomers {
    places: Connections,
    line: Arc<SyncMutex<Line>>,
    left: Arc<Notify>,
    turn: Mutex<()>,
    most: usize,
}

/// Those that are there, the oldest first.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Newcomers {
    /// At most so many at a time; of `all`, more are let in, and others go for them.
    pub(super) fn new(most: Most) -> Self {
        let places = Connections::new(Most { all: usize::MAX, ..most }, &[]);
        Self { places, line: Arc::default(), left: Arc::default(), turn: Mutex::default(), most: most.all }
    }

    /// Lets one more in as soon as there is room, or the oldest has had its time; one after the other, so that each looks again.
    pub(super) async fn admit_in_turn(&self, peer: IpAddr) -> Option<Newcomer> {
        let _turn = self.turn.lock().await;
        self.room().await;
        self.admit(peer)
    }

    async fn room(&self) {
        loop {
            let left = self.left.notified();
            let until = {
                let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
                match line.waiting.first_key_value() {
                    Some((_, (since, _))) if line.waiting.len() >= self.most && since.elapsed() < TIME => *since + TIME,
                    _ => return,
                }
            };
            let _ = timeout_at(until, left).await;
        }
    }

    /// Lets one more in, for as long as what is given is kept; `None` when its source has all that it may have.
    fn admit(&self, peer: IpAddr) -> Option<Newcomer> {
        let place = self.places.admit(peer)?;
        let sent_away = CancellationToken::new();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        while line.waiting.len() >= self.most
            && let Some((_, (_, oldest))) = line.waiting.pop_first()
        {
            oldest.cancel();
        }
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, (Instant::now(), sent_away.clone()));
        let (line, left) = (Arc::clone(&self.line), Arc::clone(&self.left));
        Some(Newcomer { number, sent_away, line, left, _place: place })
    }
}

/// One of them. Dropped when it has shown whose it is, or is gone.
#[derive(Debug)]
pub(super) struct Newcomer {
    number: u64,
    sent_away: CancellationToken,
    line: Arc<SyncMutex<Line>>,
    left: Arc<Notify>,
    _place: Place,
}

impl Newcomer {
    /// Ends when it has to go.
    pub(super) fn sent_away(&self) -> WaitForCancellationFutureOwned {
        self.sent_away.clone().cancelled_owned()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.number);
        self.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { source: 2, site: 3, all: 3 };

    fn admit(newcomers: &Newcomers, peer: &str) -> Option<Newcomer> {
        newcomers.admit(peer.parse().unwrap())
    }

    #[test]
    fn one_source_fills_its_own_places_only() {
        let newcomers = Newcomers::new(MOST);
        let first = admit(&newcomers, "203.0.113.9").unwrap();
        let _second = admit(&newcomers, "203.0.113.9").unwrap();
        assert!(admit(&newcomers, "203.0.113.9").is_none());
        assert!(!first.sent_away.is_cancelled(), "a source that has too many sends nobody away");
        drop(first);
        assert!(admit(&newcomers, "203.0.113.9").is_some());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let newcomers = Newcomers::new(MOST);
        let mut there: Vec<_> = (1..=3).map(|n| admit(&newcomers, &format!("203.0.113.{n}")).unwrap()).collect();
        // One that is through no longer counts, and is not sent away.
        drop(there.remove(0));
        there.push(admit(&newcomers, "203.0.113.4").unwrap());
        assert!(there.iter().all(|newcomer| !newcomer.sent_away.is_cancelled()));
        there.push(admit(&newcomers, "203.0.113.5").unwrap());
        let gone: Vec<_> = there.iter().map(|newcomer| newcomer.sent_away.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_sent_away_before_his_time() {
        let newcomers = Newcomers::new(MOST);
        let mut there: Vec<_> = (1..=3).map(|n| admit(&newcomers, &format!("203.0.113.{n}")).unwrap()).collect();
        let begun = Instant::now();
        newcomers.room().await;
        assert_eq!(begun.elapsed(), TIME, "all are new");
        there.push(admit(&newcomers, "203.0.113.4").unwrap());
        assert!(there[0].sent_away.is_cancelled() && !there[1].sent_away.is_cancelled());
        drop(there.remove(1));
        newcomers.room().await;
        assert_eq!(begun.elapsed(), TIME, "there is room, nobody waits");
        // A crowd through one door: each looks again, and sends nobody away who has come a moment ago.
        let addresses: Vec<IpAddr> = (5..=8).map(|n| format!("203.0.113.{n}").parse().unwrap()).collect();
        let crowd = addresses.iter().map(|peer| newcomers.admit_in_turn(*peer));
        let crowd = futures::future::join_all(crowd).await;
        assert!(crowd.iter().all(Option::is_some));
        // The third of the places was free and two had had their time; for the fourth one of the crowd itself had to have his.
        assert_eq!(begun.elapsed(), TIME * 2);
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let newcomers = Newcomers::new(MOST);
        let there: Vec<_> = (1..=9).map(|n| admit(&newcomers, &format!("203.0.113.{n}")).unwrap()).collect();
        assert_eq!(newcomers.line.lock().unwrap().waiting.len(), 3);
        drop(there);
        assert!(newcomers.line.lock().unwrap().waiting.is_empty());
    }
}

//! Where time comes from. The only place that reads the wall clock.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

/// A wall clock; tests have their own.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> OffsetDateTime;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock to share.
pub type SharedClock = Arc<dyn Clock>;

/// The server's time: what it said last, and what has passed since, whatever is done to this machine's clock meanwhile. All that ends, ends
/// by it: the server and its other agents count by it, too. Until the server was heard it is this machine's.
pub struct ServerClock {
    machine: SharedClock,
    said: Option<(OffsetDateTime, Instant)>,
}

impl ServerClock {
    /// Nothing was heard yet.
    pub fn new(machine: SharedClock) -> Self {
        Self { machine, said: None }
    }

    /// The server has said what time it was when its message arrived; answers how far this clock was behind it.
    pub fn hear(&mut self, time: OffsetDateTime, arrived: Instant) -> Duration {
        let behind = time - self.at(arrived);
        self.said = Some((time, arrived));
        behind
    }

    /// Whether the server was heard.
    pub fn is_set(&self) -> bool {
        self.said.is_some()
    }

    /// The present moment.
    pub fn now(&self) -> OffsetDateTime {
        self.at(Instant::now())
    }

    /// What time it was a moment ago.
    pub fn at(&self, moment: Instant) -> OffsetDateTime {
        match self.said {
            Some((time, arrived)) => time + signed(moment, arrived),
            None => self.machine.now() - signed(Instant::now(), moment),
        }
    }

    /// How far it is ahead of this machine's clock.
    pub fn ahead(&self) -> Duration {
        self.now() - self.machine.now()
    }
}

/// From `earlier` to `later`, which may be the other way round.
fn signed(later: Instant, earlier: Instant) -> Duration {
    let seconds = |duration: std::time::Duration| Duration::try_from(duration).unwrap_or(Duration::MAX);
    if later >= earlier { seconds(later - earlier) } else { -seconds(earlier - later) }
}

/// Milliseconds since 1970.
pub fn unix_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Microseconds since `start`, for reports.
pub fn micros_since(start: tokio::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// A machine's clock that can be moved.
    struct Moved(AtomicI64);

    impl Clock for Moved {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH + Duration::seconds(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn moving_the_machines_clock_moves_nothing() {
        let machine = Arc::new(Moved(AtomicI64::new(7_200)));
        let mut clock = ServerClock::new(Arc::clone(&machine) as SharedClock);
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        assert_eq!((clock.now(), clock.ahead()), (at(7_200), Duration::ZERO));
        assert_eq!(clock.hear(at(3_600), Instant::now()), Duration::seconds(-3_600));
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        machine.0.store(7_205, Ordering::Relaxed);
        assert_eq!((clock.now(), clock.ahead()), (at(3_605), Duration::HOUR * -1));
        machine.0.store(0, Ordering::Relaxed);
        assert_eq!((clock.now(), clock.ahead()), (at(3_605), Duration::seconds(3_605)));
        assert_eq!(clock.hear(at(3_605), Instant::now()), Duration::ZERO);
    }
}

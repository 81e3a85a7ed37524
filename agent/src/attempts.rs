//! Failed attempts, added up per minute and source until they are reported.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::detection::Attempt;
use policy::reports::AttemptCount;
use time::OffsetDateTime;

/// Most sources between two reports.
const MAX: usize = 20_000;

/// The counters.
#[derive(Debug, Default)]
pub struct Attempts {
    counts: BTreeMap<(i64, IpAddr), (u32, u32)>,
    lost: u64,
}

impl Attempts {
    /// Counts one.
    pub fn add(&mut self, attempt: &Attempt) {
        let key = (attempt.at.unix_timestamp().div_euclid(60), attempt.remote);
        if self.counts.len() >= MAX && !self.counts.contains_key(&key) {
            self.lost += 1;
            return;
        }
        let (proven, unproven) = self.counts.entry(key).or_default();
        if attempt.upgrade {
            // It was counted before; when that has been reported already, it stays counted there.
            *unproven = unproven.saturating_sub(1);
        }
        let count = if attempt.proven { proven } else { unproven };
        *count = count.saturating_add(1).min(i32::MAX.unsigned_abs());
    }

    /// What was counted since the last call, and how many found no room.
    pub fn take(&mut self) -> (Vec<AttemptCount>, u64) {
        let counts =
            std::mem::take(&mut self.counts).into_iter().filter_map(|((minute, address), (proven, unproven))| {
                let minute = OffsetDateTime::from_unix_timestamp(minute * 60).ok()?;
                Some(AttemptCount { minute, address, proven, unproven })
            });
        (counts.collect(), std::mem::take(&mut self.lost))
    }
}

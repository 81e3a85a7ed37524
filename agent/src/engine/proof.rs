//! Allowed means never blocked, and it is proven against the live kernel, not against what was meant to be there: what is in force is
//! read back after each policy and every minute. A difference is repaired, and told with what was found.

use policy::bans::BanEntry;
use policy::metrics::AGENT_PROOFS;
use policy::ruleset::{Coverage, Span};
use policy::safety::Drift;
use proto::convert::FromAgent;
use tracing::{error, warn};

use super::Engine;
use crate::firewall::{Inspection, element_count};

/// Most ranges that are named one by one.
const NAMED: usize = 5;

impl Engine {
    /// Reads the kernel back; repairs and tells what isn't as it should be.
    pub(super) async fn prove(&mut self) {
        let now = self.clock.now();
        let found = match self.firewall.inspect(now).await {
            Ok(inspection) => self.differences(&inspection),
            Err(refused) => Differences {
                repairable: vec![format!("the firewall could not be read back: {refused}")],
                ..Differences::default()
            },
        };
        if found.repairable.is_empty() && found.ahead.is_empty() {
            self.proven = Some((now, self.coverage.spans().len()));
            self.drift = None;
            self.metrics.add(&AGENT_PROOFS, "as_it_should_be", 1);
            return;
        }
        self.proven = None;
        self.metrics.add(&AGENT_PROOFS, "drift", 1);
        let mut repaired = true;
        if !found.repairable.is_empty() {
            error!(found = found.repairable.join("; "), "The firewall isn't as it should be; repairing it");
            repaired = self.reload().await.is_ok();
            if repaired && found.ahead.is_empty() {
                let again = self.firewall.inspect(self.clock.now()).await;
                repaired = again.is_ok_and(|inspection| self.differences(&inspection).repairable.is_empty());
                self.proven = repaired.then(|| (self.clock.now(), self.coverage.spans().len()));
            }
        }
        // What others put before us stays until they take it away: told once.
        let told = [found.repairable.as_slice(), found.ahead.as_slice()].concat();
        if self.drift.as_ref() != Some(&told) {
            warn!(found = told.join("; "), repaired, "Telling the server what was found in the firewall");
            self.uplink.send(&FromAgent::Drift(Drift {
                at: now,
                repaired: repaired && found.ahead.is_empty(),
                found: told.clone(),
            }));
            self.drift = Some(told).filter(|_| !found.ahead.is_empty());
        }
    }

    fn differences(&self, inspection: &Inspection) -> Differences {
        let now = self.clock.now();
        // What is about to run out may have done so already.
        let soon = now + time::Duration::seconds(2);
        let surely = |entry: &BanEntry| entry.holds(soon);
        let mut repairable = inspection.problems.clone();
        let allowed = Coverage::of(self.allowed.iter().filter(|entry| surely(entry)));
        let missing: Vec<&Span> = allowed.spans().iter().filter(|span| !inspection.allows(span)).collect();
        repairable.extend(missing.iter().take(NAMED).map(|span| {
            if span.first == span.last {
                format!("{} could have been blocked", span.first)
            } else {
                format!("{} to {} could have been blocked", span.first, span.last)
            }
        }));
        if missing.len() > NAMED {
            repairable.push(format!("and {} more", missing.len() - NAMED));
        }
        let bans = element_count(self.book.each().filter(surely));
        if inspection.problems.is_empty() && inspection.bans < bans {
            repairable.push(format!("{} of {bans} bans were gone", bans - inspection.bans));
        }
        Differences { repairable, ahead: inspection.ahead.clone() }
    }
}

/// What isn't as it should be, in words.
#[derive(Debug, Default)]
struct Differences {
    /// Loading everything anew puts it right.
    repairable: Vec<String>,
    /// Others did it elsewhere.
    ahead: Vec<String>,
}

//! How fast hints of others make this node look. Whoever is on the NATS servers may say anything as often as he likes: the same hint comes
//! through once a turn, and so many different ones; what waits too long is dropped, since everybody looks by himself by then.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use actions::bus::Change;

/// How long a turn takes.
pub(super) const TURN: Duration = Duration::from_millis(100);
/// Hints that come through in a turn: a thousand a second.
const IN_A_TURN: usize = 100;
/// Hints that wait: what comes through in the five seconds after which everybody has looked.
const WAITING: usize = 50 * IN_A_TURN;

/// Lets hints through.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Those of this turn.
    through: HashSet<Change>,
    /// Those of later ones, the oldest first, each once.
    waiting: VecDeque<Change>,
    known: HashSet<Change>,
}

impl Pace {
    /// Whether a hint comes through at once.
    pub(super) fn admit(&mut self, change: Change) -> bool {
        if self.through.len() < IN_A_TURN && self.waiting.is_empty() && self.through.insert(change) {
            return true;
        }
        if self.waiting.len() < WAITING && self.known.insert(change) {
            self.waiting.push_back(change);
        }
        false
    }

    /// Whether there are turns to come.
    pub(super) fn is_busy(&self) -> bool {
        !self.through.is_empty() || !self.waiting.is_empty()
    }

    /// A new turn, and what comes through in it.
    pub(super) fn turn(&mut self) -> Vec<Change> {
        let count = self.waiting.len().min(IN_A_TURN);
        let turn: Vec<Change> = self.waiting.drain(..count).collect();
        for change in &turn {
            self.known.remove(change);
        }
        self.through = turn.iter().copied().collect();
        turn
    }
}

#[cfg(test)]
mod tests {
    use actions::bus::Topic;
    use policy::ids::TenantId;
    use uuid::Uuid;

    use super::*;

    fn change(tenant: u128) -> Change {
        Change { tenant_id: Some(TenantId(Uuid::from_u128(tenant))), topic: Topic::Bans }
    }

    #[test]
    fn one_comes_through_at_once_and_the_same_again_only_with_the_next_turn() {
        let mut pace = Pace::default();
        assert!(pace.admit(change(1)));
        for _ in 0..1_000 {
            assert!(!pace.admit(change(1)));
        }
        assert_eq!(pace.turn(), [change(1)], "what changed after the first must be seen, too");
        assert_eq!(pace.turn(), []);
        assert!(!pace.is_busy());
        assert!(pace.admit(change(1)));
    }

    #[test]
    fn a_flood_comes_through_at_the_pace_and_is_not_kept() {
        let mut pace = Pace::default();
        let at_once = (0..1_000_000).filter(|tenant| pace.admit(change(*tenant))).count();
        assert_eq!(at_once, IN_A_TURN);
        let mut later = 0;
        while pace.is_busy() {
            let turn = pace.turn();
            assert!(turn.len() <= IN_A_TURN);
            later += turn.len();
        }
        assert_eq!(later, WAITING);
        assert!(pace.known.is_empty());
    }
}

//! What the server sends to an agent next, given what the agent says it has. Decisions alone: the server makes them over its database
//! and a stream, the model of the protocol over both ends and everything that may happen between them.

use crate::bans::BanDigest;

/// Revision and digest of a policy.
pub type PolicyMark = (i64, [u8; 32]);
/// Number of the last change of a set of bans, and the set's digest.
pub type BanMark = (i64, BanDigest);

/// What an agent needs to hold the set of bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanStep {
    /// Nothing.
    Nothing,
    /// So many changes after that number, if all of them are kept; else the whole set.
    Changes {
        /// The number that it has.
        after: i64,
        /// How many it misses.
        count: i64,
    },
    /// The whole set.
    All,
}

/// What an agent that holds `held` needs to hold `set`; `most` changes are sent as such.
pub fn ban_step(held: Option<BanMark>, set: BanMark, most: i64) -> BanStep {
    let Some((after, digest)) = held else { return BanStep::All };
    // `after` is what somebody else says: it may be anything.
    let count = set.0.saturating_sub(after);
    if count == 0 && digest == set.1 {
        BanStep::Nothing
    } else if (1..=most).contains(&count) {
        BanStep::Changes { after, count }
    } else {
        BanStep::All
    }
}

/// Whether somebody may be believed who says to have applied something: it is no newer than what there is, and under the newest
/// number it is the same.
pub fn credible<D: PartialEq>(said: (i64, D), newest: (i64, D)) -> bool {
    said.0 < newest.0 || said == newest
}

/// What an agent has once it has applied all that was sent; at first what it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    policy: Option<PolicyMark>,
    bans: Option<BanMark>,
}

impl Sent {
    /// To an agent that says which policy and which set of bans it holds.
    pub fn new(policy: Option<PolicyMark>, bans: Option<BanMark>) -> Self {
        Self { policy, bans }
    }

    /// Which policy.
    pub fn policy(&self) -> Option<PolicyMark> {
        self.policy
    }

    /// Which set of bans; `None` when that isn't known.
    pub fn bans(&self) -> Option<BanMark> {
        self.bans
    }

    /// Whether a policy with this revision was read before one that the agent has: it must be read anew.
    pub fn is_before(&self, revision: i64) -> bool {
        self.policy.is_some_and(|(sent, _)| revision < sent)
    }

    /// Whether a policy must be sent; then it counts as sent.
    pub fn send_policy(&mut self, mark: PolicyMark) -> bool {
        self.policy.replace(mark) != Some(mark)
    }

    /// The agent says which policy is in force. Whether it has another content than was sent under that revision: it gets it again.
    pub fn policy_applied(&mut self, applied: PolicyMark) -> bool {
        let differs = self.policy.is_some_and(|sent| sent.0 == applied.0 && sent.1 != applied.1);
        if differs {
            self.policy = None;
        }
        differs
    }

    /// Whether this is the revision that was sent last.
    pub fn is_policy(&self, revision: i64) -> bool {
        self.policy.is_some_and(|(sent, _)| sent == revision)
    }

    /// The policy is sent again, whatever was sent.
    pub fn forget_policy(&mut self) {
        self.policy = None;
    }

    /// A set of bans counts as sent.
    pub fn send_bans(&mut self, mark: BanMark) {
        self.bans = Some(mark);
    }

    /// Whether the agent, where it says it is, has another set of bans than was sent under that number.
    pub fn bans_differ(&self, (seq, digest): BanMark) -> bool {
        self.bans.is_some_and(|(sent, expected)| sent == seq && expected != digest)
    }

    /// The whole set of bans is sent, whatever was sent.
    pub fn forget_bans(&mut self) {
        self.bans = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_little_behind_gets_changes() {
        let (old, set) = (BanDigest::default(), (7, BanDigest::from_bytes([1; 16])));
        assert_eq!(ban_step(None, set, 3), BanStep::All);
        assert_eq!(ban_step(Some(set), set, 3), BanStep::Nothing);
        assert_eq!(ban_step(Some((7, old)), set, 3), BanStep::All, "another set");
        assert_eq!(ban_step(Some((6, old)), set, 3), BanStep::Changes { after: 6, count: 1 });
        assert_eq!(ban_step(Some((4, old)), set, 3), BanStep::Changes { after: 4, count: 3 });
        assert_eq!(ban_step(Some((3, old)), set, 3), BanStep::All, "too far behind");
        assert_eq!(ban_step(Some((8, old)), set, 3), BanStep::All, "ahead of the set");
        assert_eq!(ban_step(Some((i64::MIN, old)), set, 3), BanStep::All);
    }

    #[test]
    fn nobody_is_ahead_of_what_there_is() {
        assert!(credible((6, 'x'), (7, 'a')) && credible((7, 'a'), (7, 'a')));
        assert!(!credible((7, 'x'), (7, 'a')) && !credible((8, 'a'), (7, 'a')));
    }

    #[test]
    fn what_was_read_before_what_the_agent_has_is_old() {
        let mut sent = Sent::new(Some((3, [1; 32])), None);
        assert!(sent.is_before(2) && !sent.is_before(3) && !sent.is_before(4));
        assert!(!sent.send_policy((3, [1; 32])) && sent.send_policy((4, [1; 32])) && sent.is_before(3));
        assert!(!Sent::new(None, None).is_before(1));
    }
}

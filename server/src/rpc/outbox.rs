//! What is to be sent to one agent. Policies never queue behind each other: that one changed is noted, and when the
//! stream has room the newest is read and sent. An agent that is slow gets the newest next; none is dropped.

use std::collections::VecDeque;

use actions::agents::{self, Agent, BanSync};
use actions::{ActError, Ctx};
use policy::bans::BanDigest;
use policy::snapshot::PolicySnapshot;
use proto::convert::{self, BanDelta, FromServer};

/// What one agent has been sent and what it is still to get.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Answers and the parts of one snapshot, in order.
    queue: VecDeque<FromServer>,
    policy_changed: bool,
    /// Revision and digest sent last.
    policy: Option<(i64, [u8; 32])>,
    bans_changed: bool,
    /// Number and digest of the set of bans that the agent has once it has applied all that was sent; `None` when unknown.
    bans: Option<(i64, BanDigest)>,
}

impl Outbox {
    /// For an agent that says which set of bans it holds. The policy it gets anyway.
    pub(super) fn new(bans: Option<(i64, BanDigest)>) -> Self {
        Self { queue: VecDeque::new(), policy_changed: true, policy: None, bans_changed: true, bans }
    }

    pub(super) fn push(&mut self, message: FromServer) {
        self.queue.push_back(message);
    }

    pub(super) fn policy_changed(&mut self) {
        self.policy_changed = true;
    }

    pub(super) fn bans_changed(&mut self) {
        self.bans_changed = true;
    }

    /// How many messages wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether [`Self::next`] may have something.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty() || self.policy_changed || self.bans_changed
    }

    /// The agent says that it has applied a policy; another content under the same revision is sent again.
    pub(super) fn policy_applied(&mut self, revision: i64, digest: [u8; 32]) {
        if self.policy.is_some_and(|(sent, expected)| sent == revision && expected != digest) {
            tracing::warn!(revision, "an agent applied something else than was sent; sending it again");
            self.policy = None;
            self.policy_changed = true;
        }
    }

    /// The agent says where it is with the bans, or that it needs all of them.
    pub(super) fn bans_applied(&mut self, seq: i64, digest: BanDigest, resync: bool) {
        let differs = self.bans.is_some_and(|(sent, expected)| sent == seq && expected != digest);
        if resync || differs {
            tracing::info!(seq, "an agent needs the whole set of bans");
            self.bans = None;
            self.bans_changed = true;
        }
    }

    /// Looks for changes whose notification was lost.
    pub(super) async fn look(&mut self, ctx: &Ctx, agent: &Agent) -> Result<(), ActError> {
        let revision = agents::revision(ctx, agent).await?;
        self.policy_changed |= self.policy.is_none_or(|(sent, _)| sent != revision);
        self.bans_changed = true;
        Ok(())
    }

    /// The next message, read at this moment.
    pub(super) async fn next(&mut self, ctx: &Ctx, agent: &Agent) -> Result<Option<FromServer>, ActError> {
        if self.queue.is_empty() && self.policy_changed {
            self.policy_changed = false;
            let policy = self.newest_policy(ctx, agent).await?;
            self.queue.extend(policy.map(FromServer::Policy));
        }
        if self.queue.is_empty() && self.bans_changed {
            self.bans_changed = false;
            self.read_bans(ctx, agent).await?;
        }
        Ok(self.queue.pop_front())
    }

    async fn newest_policy(&mut self, ctx: &Ctx, agent: &Agent) -> Result<Option<PolicySnapshot>, ActError> {
        let policy = agents::policy(ctx, agent).await?;
        let mark = (policy.revision, policy.digest());
        if self.policy == Some(mark) {
            return Ok(None);
        }
        self.policy = Some(mark);
        Ok(Some(policy))
    }

    async fn read_bans(&mut self, ctx: &Ctx, agent: &Agent) -> Result<(), ActError> {
        let (seq, digest) = self.bans.map_or((0, None), |(seq, digest)| (seq, Some(digest)));
        match agents::bans_since(ctx, agent, seq, digest).await? {
            BanSync::Current { .. } => {}
            BanSync::Delta { from_seq, to_seq, digest, changes } => {
                self.bans = Some((to_seq, digest));
                self.queue.push_back(FromServer::BanDelta(BanDelta { from_seq, to_seq, digest, changes }));
            }
            BanSync::Snapshot { seq, digest, bans } => {
                if BanDigest::of(&bans) != digest {
                    tracing::error!(seq, "the digest of a tenant's bans does not fit the bans");
                }
                self.bans = Some((seq, digest));
                self.queue.extend(convert::snapshot_parts(seq, &bans).into_iter().map(FromServer::BanSnapshot));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled() -> Outbox {
        let mut outbox = Outbox::new(Some((7, BanDigest::default())));
        outbox.policy = Some((3, [1; 32]));
        (outbox.policy_changed, outbox.bans_changed) = (false, false);
        outbox
    }

    #[test]
    fn what_fits_sends_nothing() {
        let mut outbox = settled();
        outbox.policy_applied(3, [1; 32]);
        outbox.bans_applied(7, BanDigest::default(), false);
        assert!(!outbox.wants_to_send());
    }

    #[test]
    fn what_differs_is_sent_again() {
        let mut outbox = settled();
        outbox.policy_applied(3, [2; 32]);
        assert!(outbox.wants_to_send() && outbox.policy.is_none());
        let mut outbox = settled();
        outbox.bans_applied(7, BanDigest::from_bytes([1; 16]), false);
        assert!(outbox.wants_to_send() && outbox.bans.is_none());
        let mut outbox = settled();
        outbox.bans_applied(2, BanDigest::default(), true);
        assert!(outbox.bans.is_none());
    }

    #[test]
    fn an_answer_to_something_older_changes_nothing() {
        let mut outbox = settled();
        outbox.policy_applied(2, [2; 32]);
        outbox.bans_applied(6, BanDigest::from_bytes([1; 16]), false);
        assert!(!outbox.wants_to_send());
    }
}

//! What is to be sent to one agent. Policies never queue behind each other: that one changed is noted, and when the
//! stream has room the newest is read and sent. An agent that is slow gets the newest next; none is dropped.

use std::collections::VecDeque;
use std::time::Duration;

use actions::agents::{Agent, BanSync};
use actions::{ActError, Ctx};
use policy::bans::BanDigest;
use policy::metrics::{self as metric, BAN_DELTAS, BAN_SNAPSHOTS};
use policy::snapshot::PolicySnapshot;
use policy::sync::{BanMark, PolicyMark, Sent};
use proto::convert::{self, BanDelta, FromServer};
use tokio::time::Instant;
use tracing::Span;

use super::roll::Place;
use crate::observe::agents::Push;

/// What one agent has been sent and what it is still to get.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Answers and the parts of one snapshot, in order.
    queue: VecDeque<FromServer>,
    /// When the policy may have changed since it was sent.
    policy_changed: Option<Instant>,
    /// When the bans may have changed since they were sent.
    bans_changed: Option<Instant>,
    sent: Sent,
    /// How often the whole set may be asked for at the moment, when that was counted, and whether it is asked for.
    resyncs: u32,
    counted: Instant,
    resync: bool,
    /// When a refused policy is offered again.
    offer_again: Option<Instant>,
    /// The policy that was sent and isn't answered.
    push: Option<Push>,
}

/// One agent may ask for the whole set of bans so often at once, and once more after each such time: reading it costs much, asking
/// nothing.
const RESYNCS: u32 = 3;
const RESYNC_EVERY: Duration = Duration::from_secs(10);
/// A refusal may have had a passing reason.
const OFFER_AGAIN: Duration = Duration::from_secs(30);

impl Outbox {
    /// For an agent that says which policy and which set of bans it holds: it gets what differs.
    pub(super) fn new(policy: Option<PolicyMark>, bans: Option<BanMark>) -> Self {
        // What was read a moment ago for another agent of the tenant will do: whatever has changed since is hinted at or looked for.
        let a_moment_ago = Instant::now().checked_sub(Duration::from_secs(1)).or_else(|| Some(Instant::now()));
        Self {
            queue: VecDeque::new(),
            policy_changed: a_moment_ago,
            bans_changed: a_moment_ago,
            sent: Sent::new(policy, bans),
            resyncs: RESYNCS,
            counted: Instant::now(),
            resync: false,
            offer_again: None,
            push: None,
        }
    }

    pub(super) fn push(&mut self, message: FromServer) {
        self.queue.push_back(message);
    }

    /// It may have, at that moment.
    pub(super) fn policy_changed(&mut self, at: Instant) {
        self.policy_changed = self.policy_changed.max(Some(at));
    }

    /// They may have, at that moment.
    pub(super) fn bans_changed(&mut self, at: Instant) {
        self.bans_changed = self.bans_changed.max(Some(at));
    }

    /// How many messages wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether [`Self::next`] may have something.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty() || self.policy_changed.is_some() || self.bans_changed.is_some()
    }

    /// The agent says that it has applied a policy; another content under the same revision is sent again. Answers the span of the push.
    pub(super) fn policy_applied(&mut self, revision: i64, digest: [u8; 32]) -> Span {
        if self.sent.policy_applied((revision, digest)) {
            tracing::warn!(revision, "an agent applied something else than was sent; sending it again");
            self.policy_changed(Instant::now());
        }
        self.push.take_if(|push| push.is(revision)).map_or_else(Span::none, Push::applied)
    }

    /// The agent says where it is with the bans, or that it needs all of them.
    pub(super) fn bans_applied(&mut self, seq: i64, digest: BanDigest, resync: bool) {
        if resync || self.sent.bans_differ((seq, digest)) {
            tracing::info!(seq, "an agent needs the whole set of bans");
            metrics::counter!(metric::RESYNCS.name).increment(1);
            self.resync = true;
            self.grant_resync();
        }
    }

    fn grant_resync(&mut self) {
        if self.counted.elapsed() >= RESYNC_EVERY {
            self.counted = Instant::now();
            self.resyncs = RESYNCS.min(self.resyncs + 1);
        }
        if self.resync && self.resyncs > 0 {
            self.resyncs -= 1;
            self.resync = false;
            self.sent.forget_bans();
            self.bans_changed(Instant::now());
        }
    }

    /// The agent says that it can't apply a policy: later it may.
    pub(super) fn policy_refused(&mut self, revision: i64) {
        if self.sent.is_policy(revision) {
            self.offer_again = Some(Instant::now() + OFFER_AGAIN);
        }
    }

    /// Every few seconds: what was put off may be due.
    pub(super) fn tick(&mut self) {
        self.grant_resync();
        if self.offer_again.is_some_and(|due| due <= Instant::now()) {
            self.offer_again = None;
            self.sent.forget_policy();
            self.policy_changed(Instant::now());
        }
    }

    /// The next message, read at this moment.
    pub(super) async fn next(
        &mut self,
        ctx: &Ctx,
        agent: &Agent,
        place: &Place,
    ) -> Result<Option<FromServer>, ActError> {
        if self.queue.is_empty()
            && let Some(since) = self.policy_changed.take()
        {
            let policy = self.newest_policy(ctx, place, since).await?;
            if let Some(mut policy) = policy {
                self.push = Some(Push::begin(&mut policy, agent));
                self.queue.push_back(FromServer::Policy(policy));
            }
        }
        if self.queue.is_empty()
            && let Some(since) = self.bans_changed.take()
        {
            self.read_bans(ctx, place, since).await?;
        }
        Ok(self.queue.pop_front())
    }

    async fn newest_policy(
        &mut self,
        ctx: &Ctx,
        place: &Place,
        since: Instant,
    ) -> Result<Option<PolicySnapshot>, ActError> {
        let mut policy = place.policy(ctx, since).await?;
        if self.sent.is_before(policy.revision) {
            // The agent has it from another node, and this one hasn't heard of it.
            policy = place.policy(ctx, Instant::now()).await?;
        }
        if !self.sent.send_policy((policy.revision, policy.digest())) {
            return Ok(None);
        }
        self.offer_again = None;
        Ok(Some(PolicySnapshot::clone(&policy)))
    }

    async fn read_bans(&mut self, ctx: &Ctx, place: &Place, since: Instant) -> Result<(), ActError> {
        let (seq, digest) = self.sent.bans().map_or((0, None), |(seq, digest)| (seq, Some(digest)));
        match place.bans_since(ctx, since, seq, digest).await? {
            BanSync::Current { .. } => {}
            BanSync::Delta { from_seq, to_seq, digest, changes } => {
                metrics::counter!(BAN_DELTAS.name).increment(1);
                self.sent.send_bans((to_seq, digest));
                self.queue.push_back(FromServer::BanDelta(BanDelta { from_seq, to_seq, digest, changes }));
            }
            BanSync::Snapshot { seq, digest, bans } => {
                metrics::counter!(BAN_SNAPSHOTS.name).increment(1);
                self.sent.send_bans((seq, digest));
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
        let mut outbox = Outbox::new(Some((3, [1; 32])), Some((7, BanDigest::default())));
        (outbox.policy_changed, outbox.bans_changed) = (None, None);
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
        assert!(outbox.wants_to_send() && outbox.sent.policy().is_none());
        let mut outbox = settled();
        outbox.bans_applied(7, BanDigest::from_bytes([1; 16]), false);
        assert!(outbox.wants_to_send() && outbox.sent.bans().is_none());
        let mut outbox = settled();
        outbox.bans_applied(2, BanDigest::default(), true);
        assert!(outbox.sent.bans().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn asking_again_and_again_brings_no_more_snapshots() {
        let mut outbox = settled();
        let mut sent = 0;
        for ms in 0..60_000 {
            outbox.bans_applied(2, BanDigest::default(), true);
            if outbox.bans_changed.take().is_some() {
                sent += 1;
            }
            if ms % 1_000 == 0 {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        assert!((RESYNCS..=RESYNCS + 7).contains(&sent), "{sent} in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_policy_is_due_again_later() {
        let mut outbox = settled();
        outbox.policy_refused(2);
        assert_eq!(outbox.offer_again, None, "another revision");
        outbox.policy_refused(3);
        assert!(outbox.offer_again.is_some_and(|due| due > Instant::now()));
        assert!(!outbox.wants_to_send());
    }

    #[test]
    fn an_answer_to_something_older_changes_nothing() {
        let mut outbox = settled();
        outbox.policy_applied(2, [2; 32]);
        outbox.bans_applied(6, BanDigest::from_bytes([1; 16]), false);
        assert!(!outbox.wants_to_send());
    }
}

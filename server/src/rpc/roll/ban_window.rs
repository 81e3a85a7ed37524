//! Where a tenant's set of bans stands and the last changes of it, read once for all its agents. Agents that are further behind ask the
//! database.

use std::collections::VecDeque;

use actions::agents::{self, BanChanges, BanSync};
use actions::{ActError, Ctx};
use policy::bans::{BanChange, BanDigest};
use policy::ids::TenantId;
use policy::sync::credible;
use tokio::time::Instant;

/// Changes kept in memory for one tenant.
const KEPT: usize = 500;

#[derive(Debug, Default)]
pub(super) struct BanWindow {
    /// When it was read; `None` before the first time.
    read: Option<Instant>,
    seq: i64,
    digest: BanDigest,
    /// The last changes, up to `seq`.
    changes: VecDeque<BanChange>,
}

impl BanWindow {
    /// Reads what is new, unless it was read after `since`.
    pub(super) async fn refresh(&mut self, ctx: &Ctx, tenant: TenantId, since: Instant) -> Result<(), ActError> {
        if self.read.is_some_and(|read| read > since) {
            return Ok(());
        }
        let begun = Instant::now();
        let news = agents::ban_changes_after(ctx, tenant, self.seq).await?;
        self.take(news);
        self.read = Some(begun);
        Ok(())
    }

    fn take(&mut self, news: BanChanges) {
        match news.changes {
            // Nothing can be said of what led to the number that it begins with.
            Some(changes) if self.read.is_some() => self.changes.extend(changes),
            _ => self.changes.clear(),
        }
        let beyond = self.changes.len().saturating_sub(KEPT);
        self.changes.drain(..beyond);
        (self.seq, self.digest) = (news.seq, news.digest);
    }

    /// What an agent that holds the set as of `seq`, with this digest, needs; `None` when it takes a look into the database.
    pub(super) fn since(&self, seq: i64, digest: Option<BanDigest>) -> Option<BanSync> {
        let digest = digest?;
        if seq == self.seq {
            return (digest == self.digest).then_some(BanSync::Current { seq });
        }
        let behind = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        let from = self.changes.len().checked_sub(behind)?;
        Some(BanSync::Delta {
            from_seq: seq + 1,
            to_seq: self.seq,
            digest: self.digest,
            changes: self.changes.range(from..).copied().collect(),
        })
    }

    /// Whether the set is known to have come as far as `seq`.
    pub(super) fn knows(&self, seq: i64) -> bool {
        self.read.is_some() && seq <= self.seq
    }

    /// Whether the set can have had this digest after change `seq`; of older numbers the digests are not kept.
    pub(super) fn fits(&self, seq: i64, digest: BanDigest) -> bool {
        credible((seq, digest), (self.seq, self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(host: i64) -> BanChange {
        BanChange::Remove(format!("203.0.113.{host}/32").parse().unwrap())
    }

    fn digest(of: u8) -> BanDigest {
        BanDigest::from_bytes([of; 16])
    }

    /// Read at 7, then at 9.
    fn window() -> BanWindow {
        let mut window = BanWindow::default();
        window.take(BanChanges { seq: 7, digest: digest(7), changes: Some(vec![net(6), net(7)]) });
        window.read = Some(Instant::now());
        window.take(BanChanges { seq: 9, digest: digest(9), changes: Some(vec![net(8), net(9)]) });
        window
    }

    #[test]
    fn who_is_a_little_behind_gets_what_is_missing() {
        let window = window();
        assert!(matches!(window.since(9, Some(digest(9))), Some(BanSync::Current { seq: 9 })));
        let Some(BanSync::Delta { from_seq, to_seq, digest: after, changes }) = window.since(8, Some(digest(8))) else {
            panic!("a delta")
        };
        assert_eq!((from_seq, to_seq, after, changes), (9, 9, digest(9), vec![net(9)]));
        assert!(matches!(window.since(7, Some(digest(7))), Some(BanSync::Delta { from_seq: 8, .. })));
    }

    #[test]
    fn who_is_elsewhere_asks_the_database() {
        let window = window();
        for (seq, has) in [
            (9, Some(digest(1))),
            (9, None),
            (8, None),
            (6, Some(digest(6))),
            (10, Some(digest(9))),
            (i64::MIN, Some(digest(0))),
        ] {
            assert!(window.since(seq, has).is_none(), "{seq}");
        }
    }

    #[test]
    fn after_a_gap_nothing_older_is_known() {
        let mut window = window();
        window.take(BanChanges { seq: 20_000, digest: digest(2), changes: None });
        assert!(window.since(9, Some(digest(9))).is_none());
        assert!(matches!(window.since(20_000, Some(digest(2))), Some(BanSync::Current { .. })));
        window.take(BanChanges { seq: 20_001, digest: digest(3), changes: Some(vec![net(1)]) });
        assert!(matches!(window.since(20_000, Some(digest(2))), Some(BanSync::Delta { from_seq: 20_001, .. })));
    }

    #[test]
    fn it_keeps_a_bounded_number() {
        let mut window = window();
        let many = i64::try_from(KEPT).unwrap() + 50;
        window.take(BanChanges {
            seq: 9 + many,
            digest: digest(4),
            changes: Some((0..many).map(|_| net(1)).collect()),
        });
        assert_eq!(window.changes.len(), KEPT);
        assert!(window.since(9, Some(digest(9))).is_none());
        assert!(window.since(9 + 50, Some(digest(9))).is_some());
    }
}

//! What agents must hold: the policy, and the numbered set of bans.

use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::ids::TenantId;
use policy::snapshot::PolicySnapshot;
use policy::sync::{BanStep, ban_step};
use store::ban_set::BanSet;

use crate::ctx::Ctx;
use crate::error::ActError;
use crate::trace;

/// Changes sent as deltas; who is further behind gets the whole set.
pub(super) const MAX_DELTA: i64 = 5_000;

/// The policy that the agents of a tenant must enforce.
pub async fn policy(ctx: &Ctx, tenant: TenantId) -> Result<PolicySnapshot, ActError> {
    let now = ctx.now();
    let mut tx = ctx.store().tenant_as_of_now(tenant).await?;
    let (revision, detection, phone_loss_limit) = store::tenants::policy(&mut tx).await?.ok_or(ActError::NotFound)?;
    let allowed = store::allowed_ips::entries(&mut tx, now).await?;
    let trace_parent = if trace::is_on() { store::tenants::policy_trace(&mut tx).await? } else { None };
    tx.commit().await?;
    Ok(PolicySnapshot { revision, allowed, detection, phone_loss_limit, trace_parent })
}

/// Where a tenant's set of bans stands, and the changes that led there.
#[derive(Debug, Clone)]
pub struct BanChanges {
    /// Number of the last change.
    pub seq: i64,
    /// Digest after it.
    pub digest: BanDigest,
    /// The changes since the one that was asked from, in order; `None` when they are too many, or no longer kept.
    pub changes: Option<Vec<BanChange>>,
}

/// The changes of a tenant's bans after `seq`.
pub async fn ban_changes_after(ctx: &Ctx, tenant: TenantId, seq: i64) -> Result<BanChanges, ActError> {
    let mut tx = ctx.store().tenant_as_of_now(tenant).await?;
    let set = store::ban_set::read(&mut tx).await?;
    let changes = changes_between(&mut tx, seq, &set).await?;
    tx.commit().await?;
    Ok(BanChanges { seq: set.seq, digest: set.digest, changes })
}

async fn changes_between(tx: &mut store::TenantTx, seq: i64, set: &BanSet) -> Result<Option<Vec<BanChange>>, ActError> {
    // `seq` may be what somebody else says: anything.
    let behind = set.seq.saturating_sub(seq);
    if behind == 0 {
        return Ok(Some(Vec::new()));
    }
    if !(1..=MAX_DELTA).contains(&behind) {
        return Ok(None);
    }
    let changes = store::ban_set::changes_after(tx, seq, MAX_DELTA).await?;
    Ok(changes.filter(|changes| i64::try_from(changes.len()) == Ok(behind)))
}

/// What an agent needs to hold the tenant's set of bans.
#[derive(Debug, Clone)]
pub enum BanSync {
    /// Nothing.
    Current {
        /// Number of the last change.
        seq: i64,
    },
    /// The changes that it missed.
    Delta {
        /// Number of the first.
        from_seq: i64,
        /// Number of the last.
        to_seq: i64,
        /// Digest after the last.
        digest: BanDigest,
        /// In order.
        changes: Vec<BanChange>,
    },
    /// All of it.
    Snapshot {
        /// Number of the last change.
        seq: i64,
        /// Digest of the set.
        digest: BanDigest,
        /// The set.
        bans: Vec<BanEntry>,
    },
}

/// What an agent that holds the set as of `seq` needs. `digest` is the one it has; `None` asks for the whole set.
pub async fn bans_since(ctx: &Ctx, tenant: TenantId, seq: i64, digest: Option<BanDigest>) -> Result<BanSync, ActError> {
    let mut tx = ctx.store().tenant_as_of_now(tenant).await?;
    let set = store::ban_set::read(&mut tx).await?;
    let held = digest.map(|digest| (seq, digest));
    let changes = match ban_step(held, (set.seq, set.digest), MAX_DELTA) {
        BanStep::Nothing => {
            tx.commit().await?;
            return Ok(BanSync::Current { seq });
        }
        BanStep::Changes { .. } => changes_between(&mut tx, seq, &set).await?,
        BanStep::All => None,
    };
    if let Some(changes) = changes {
        tx.commit().await?;
        return Ok(BanSync::Delta { from_seq: seq + 1, to_seq: set.seq, digest: set.digest, changes });
    }
    let bans = store::blocked_ips::entries(&mut tx).await?;
    tx.commit().await?;
    let digest = BanDigest::of(&bans);
    if digest != set.digest {
        // Never by us. Agents that hold what the rows say must not be taken for wrong, over and over.
        tracing::error!(tenant.id = %tenant, seq = set.seq, "the kept digest of a tenant's bans does not fit the bans; it is set right");
        return repair_digest(ctx, tenant).await;
    }
    Ok(BanSync::Snapshot { seq: set.seq, digest, bans })
}

async fn repair_digest(ctx: &Ctx, tenant: TenantId) -> Result<BanSync, ActError> {
    let mut tx = ctx.store().tenant(tenant).await?;
    let set = store::ban_set::lock(&mut tx).await?;
    let bans = store::blocked_ips::entries(&mut tx).await?;
    let digest = BanDigest::of(&bans);
    store::ban_set::append(&mut tx, &set, &[], digest).await?;
    tx.commit().await?;
    Ok(BanSync::Snapshot { seq: set.seq, digest, bans })
}

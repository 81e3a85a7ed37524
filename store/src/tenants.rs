//! Tenants: their row, and the revision of their policy.

use policy::detection::DetectionRule;
use policy::safety::PhoneLossLimit;
use policy::trace_parent::TraceParent;
use time::OffsetDateTime;

use crate::db::{StoreError, TenantTx};

/// Makes the tenant of this transaction. A short name that is taken conflicts with `tenants_slug_key`.
pub async fn insert(tx: &mut TenantTx, name: &str, slug: &str, now: OffsetDateTime) -> Result<(), StoreError> {
    let id = tx.tenant().0;
    sqlx::query!("INSERT INTO tenants (id, name, slug, created_at) VALUES ($1, $2, $3, $4)", id, name, slug, now)
        .execute(tx.conn())
        .await?;
    sqlx::query!("INSERT INTO slugs (slug) VALUES ($1)", slug).execute(tx.conn()).await?;
    Ok(())
}

/// The tenant's name; `None` when there is no such tenant.
pub async fn name(tx: &mut TenantTx) -> Result<Option<String>, StoreError> {
    let id = tx.tenant().0;
    Ok(sqlx::query_scalar!("SELECT name FROM tenants WHERE id = $1", id).fetch_optional(tx.conn()).await?)
}

/// Raises the revision of the tenant's policy and answers the new one. `trace` is what it belongs to, if that is traced.
pub async fn raise_revision(tx: &mut TenantTx, trace: Option<&TraceParent>) -> Result<i64, StoreError> {
    let id = tx.tenant().0;
    Ok(sqlx::query_scalar!(
        "UPDATE tenants SET policy_revision = policy_revision + 1, policy_trace = $2 WHERE id = $1 RETURNING policy_revision",
        id,
        trace.map(TraceParent::as_str)
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Says that a stream of the tenant's agents may have to end. Call it before rows of PBXes are changed, see [`crate::ban_set::lock`].
pub async fn raise_roster(tx: &mut TenantTx) -> Result<(), StoreError> {
    let id = tx.tenant().0;
    sqlx::query!("UPDATE tenants SET roster = roster + 1 WHERE id = $1", id).execute(tx.conn()).await?;
    Ok(())
}

/// The trace that the revision of the tenant's policy belongs to.
pub async fn policy_trace(tx: &mut TenantTx) -> Result<Option<TraceParent>, StoreError> {
    let id = tx.tenant().0;
    let trace = sqlx::query_scalar!("SELECT policy_trace FROM tenants WHERE id = $1", id).fetch_one(tx.conn()).await?;
    Ok(trace.as_deref().and_then(TraceParent::parse))
}

/// Sets how many phones a change may cost before PBXes take it back; answers what it was.
pub async fn set_phone_loss_limit(tx: &mut TenantTx, limit: PhoneLossLimit) -> Result<PhoneLossLimit, StoreError> {
    let id = tx.tenant().0;
    let before = sqlx::query_scalar!(
        "UPDATE tenants SET phone_loss_limit_percent = $2 FROM (SELECT id, phone_loss_limit_percent FROM tenants WHERE id = $1 FOR NO KEY UPDATE) AS before WHERE tenants.id = before.id RETURNING before.phone_loss_limit_percent",
        id,
        limit.percent().cast_signed(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(phone_loss_limit(before))
}

/// The column's check lets no other numbers in.
fn phone_loss_limit(percent: i32) -> PhoneLossLimit {
    PhoneLossLimit::try_from(percent.unsigned_abs()).unwrap_or_default()
}

/// The revision of the tenant's policy and its detection rule; `None` when there is no such tenant.
pub async fn policy(tx: &mut TenantTx) -> Result<Option<(i64, DetectionRule, PhoneLossLimit)>, StoreError> {
    let id = tx.tenant().0;
    let row = sqlx::query!(
        "SELECT policy_revision, detect_failures, detect_window_seconds, detect_ban_seconds, detect_max_ban_seconds, phone_loss_limit_percent FROM tenants WHERE id = $1",
        id
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let rule = DetectionRule {
            failures: row.detect_failures.unsigned_abs(),
            window_seconds: row.detect_window_seconds.unsigned_abs(),
            ban_seconds: row.detect_ban_seconds.unsigned_abs(),
            max_ban_seconds: row.detect_max_ban_seconds.unsigned_abs(),
        };
        (row.policy_revision, rule, phone_loss_limit(row.phone_loss_limit_percent))
    }))
}

/// Where a tenant stands: what differs has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Revision of the policy; every change of the allowed entries raises it.
    pub policy_revision: i64,
    /// Number of the last change of the set of bans.
    pub ban_seq: i64,
    /// Number of the last row of the audit log.
    pub audit_seq: i64,
    /// Digest of the PBXes without what changes with every heartbeat.
    pub pbxes: String,
}

/// Where the tenant stands; `None` when there is no such tenant.
pub async fn standing(tx: &mut TenantTx) -> Result<Option<Standing>, StoreError> {
    let id = tx.tenant().0;
    Ok(sqlx::query_as!(
        Standing,
        r#"SELECT t.policy_revision, t.ban_seq,
                  COALESCE((SELECT h.seq FROM audit_heads h WHERE h.tenant_id = t.id), 0) AS "audit_seq!",
                  COALESCE((SELECT md5(string_agg((to_jsonb(p)
                                - ARRAY['last_seen_at', 'bans', 'registered', 'dropped', 'proven_at', 'proven_ranges', 'clock_ahead_ms'])::text, '' ORDER BY p.id))
                            FROM pbxes p WHERE p.tenant_id = t.id), '') AS "pbxes!"
           FROM tenants t WHERE t.id = $1"#,
        id
    )
    .fetch_optional(tx.conn())
    .await?)
}

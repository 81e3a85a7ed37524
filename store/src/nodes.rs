//! The server nodes that are alive, and what a node looks at every few seconds.

use policy::ids::TenantId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Store, StoreError};

/// The node is alive.
pub async fn beat(store: &Store, node: Uuid, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    tx.may_be_lost().await?;
    sqlx::query!(
        "INSERT INTO nodes (id, seen_at) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET seen_at = $2",
        node,
        now
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// The node stops.
pub async fn leave(store: &Store, node: Uuid) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    sqlx::query!("DELETE FROM nodes WHERE id = $1", node).execute(tx.conn()).await?;
    tx.commit().await
}

/// Where a tenant stands: whatever of it concerns its agents raises one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The revision of its policy.
    pub policy_revision: i64,
    /// The number of the last change of its bans.
    pub ban_seq: i64,
    /// How often something happened that may end a stream.
    pub roster: i64,
}

/// Where these tenants stand.
pub async fn marks(store: &Store, tenants: &[TenantId]) -> Result<Vec<Marks>, StoreError> {
    let ids: Vec<Uuid> = tenants.iter().map(|id| id.0).collect();
    let mut tx = store.system().await?;
    let rows = sqlx::query!("SELECT id, policy_revision, ban_seq, roster FROM tenants WHERE id = ANY ($1)", &ids)
        .fetch_all(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(rows
        .into_iter()
        .map(|row| Marks {
            tenant_id: TenantId(row.id),
            policy_revision: row.policy_revision,
            ban_seq: row.ban_seq,
            roster: row.roster,
        })
        .collect())
}

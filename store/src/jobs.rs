//! What the named jobs ask across tenants: which tenants have something due, and nothing more.

use policy::ids::TenantId;
use time::{Duration, OffsetDateTime};

use crate::db::{Store, StoreError};

/// Tenants that hold bans or allowed entries whose time is over.
pub async fn tenants_with_expired(store: &Store, now: OffsetDateTime) -> Result<Vec<TenantId>, StoreError> {
    let mut tx = store.system().await?;
    let ids = sqlx::query_scalar!(
        r#"SELECT tenant_id AS "id!" FROM blocked_ips WHERE ended_at IS NULL AND expires_at <= $1
           UNION SELECT tenant_id FROM allowed_ips WHERE expires_at <= $1"#,
        now
    )
    .fetch_all(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// All tenants, the installation's own included.
pub async fn all_tenants(store: &Store) -> Result<Vec<TenantId>, StoreError> {
    let mut tx = store.system().await?;
    let ids = sqlx::query_scalar!("SELECT id FROM tenants ORDER BY id").fetch_all(tx.conn()).await?;
    tx.commit().await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// Deletes what is of no use any more: ended sessions, unfollowed links, sent mail, old guesses.
pub async fn sweep_platform(store: &Store, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    sqlx::query!("DELETE FROM sessions WHERE expires_at <= $1", now).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM sign_ups WHERE expires_at <= $1", now).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM password_resets WHERE expires_at <= $1", now).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM nodes WHERE seen_at <= $1", now - Duration::days(1)).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM mails WHERE created_at <= $1", now - Duration::days(7)).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM guesses WHERE last_at <= $1", now - Duration::days(1)).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM login_failures WHERE last_at <= $1", now - Duration::days(1)).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM login_waits WHERE until <= $1", now).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM login_passes WHERE expires_at <= $1", now).execute(tx.conn()).await?;
    tx.commit().await
}

/// Deletes, of one tenant, batches and rollups older than charts and agents' spools reach.
pub async fn sweep_tenant(store: &Store, tenant: TenantId, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut tx = store.tenant(tenant).await?;
    sqlx::query!("DELETE FROM report_batches WHERE received_at <= $1", now - Duration::days(35))
        .execute(tx.conn())
        .await?;
    sqlx::query!("DELETE FROM invitations WHERE expires_at <= $1", now - Duration::days(30)).execute(tx.conn()).await?;
    sqlx::query!("DELETE FROM attack_rollups WHERE bucket <= $1", now - Duration::days(90)).execute(tx.conn()).await?;
    tx.commit().await
}

//! PBXes as their agents report themselves.

use policy::ids::{BatchId, PbxId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{StoreError, TenantTx};

/// What an agent says of itself when it connects.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// Version of the agent.
    pub agent_version: String,
    /// Host name.
    pub hostname: String,
    /// Kind of PBX.
    pub pbx_kind: String,
    /// Version of the PBX.
    pub pbx_version: String,
    /// Kind of firewall.
    pub firewall: String,
}

/// Keeps the certificate of a PBX and revokes those before it.
pub async fn insert_certificate(
    tx: &mut TenantTx,
    pbx: PbxId,
    fingerprint: &[u8],
    issued_at: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "UPDATE pbx_certificates SET revoked_at = $2 WHERE pbx_id = $1 AND revoked_at IS NULL",
        pbx.0,
        issued_at
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO pbx_certificates (tenant_id, fingerprint, pbx_id, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        tenant,
        fingerprint,
        pbx.0,
        issued_at,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The PBX of a certificate that holds: known, not expired, not revoked.
pub async fn by_certificate(
    tx: &mut TenantTx,
    fingerprint: &[u8],
    now: OffsetDateTime,
) -> Result<Option<(PbxId, String)>, StoreError> {
    let row = sqlx::query!(
        "SELECT p.id, p.name FROM pbx_certificates c JOIN pbxes p ON p.tenant_id = c.tenant_id AND p.id = c.pbx_id
         WHERE c.fingerprint = $1 AND c.expires_at > $2 AND c.revoked_at IS NULL AND p.revoked_at IS NULL",
        fingerprint,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| (row.id.into(), row.name)))
}

/// An agent's stream begins; it replaces an older one.
pub async fn connected(
    tx: &mut TenantTx,
    pbx: PbxId,
    link_id: Uuid,
    described: &Described,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET link_id = $2, last_seen_at = $3, agent_version = $4, hostname = $5, pbx_kind = $6, pbx_version = $7, firewall = $8
         WHERE id = $1 AND revoked_at IS NULL",
        pbx.0,
        link_id,
        now,
        described.agent_version,
        described.hostname,
        described.pbx_kind,
        described.pbx_version,
        described.firewall
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An agent's stream ended; changes nothing when a newer one has begun.
pub async fn disconnected(tx: &mut TenantTx, pbx: PbxId, link_id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query!("UPDATE pbxes SET link_id = NULL WHERE id = $1 AND link_id = $2", pbx.0, link_id)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// An agent is alive; `false` when the stream is no longer the PBX's, or the PBX was revoked or removed.
pub async fn heard(
    tx: &mut TenantTx,
    pbx: PbxId,
    link_id: Uuid,
    bans: i64,
    registered: i32,
    dropped: i64,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET last_seen_at = $3, bans = $4, registered = $5, dropped = $6 WHERE id = $1 AND link_id = $2 AND revoked_at IS NULL",
        pbx.0,
        link_id,
        now,
        bans,
        registered,
        dropped
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The agent has applied a policy.
pub async fn policy_applied(
    tx: &mut TenantTx,
    pbx: PbxId,
    revision: i64,
    digest: &[u8],
    took_us: i64,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE pbxes SET applied_revision = $2, applied_digest = $3, applied_took_us = $4, last_refusal = '' WHERE id = $1",
        pbx.0,
        revision,
        digest,
        took_us
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The agent has refused a policy; answers whether that reason is new.
pub async fn policy_refused(tx: &mut TenantTx, pbx: PbxId, reason: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!("UPDATE pbxes SET last_refusal = $2 WHERE id = $1 AND last_refusal <> $2", pbx.0, reason)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The agent holds the set of bans as of a change; `None` leaves the time that its last apply took.
pub async fn bans_applied(tx: &mut TenantTx, pbx: PbxId, seq: i64, took_us: Option<i64>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE pbxes SET applied_ban_seq = $2, applied_took_us = COALESCE($3, applied_took_us) WHERE id = $1",
        pbx.0,
        seq,
        took_us
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Marks a batch of reports as stored; `false` when it was before.
pub async fn insert_batch(
    tx: &mut TenantTx,
    pbx: PbxId,
    batch: BatchId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant().0;
    let done = sqlx::query!(
        "INSERT INTO report_batches (tenant_id, id, pbx_id, received_at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, id) DO NOTHING",
        tenant,
        batch.0,
        pbx.0,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

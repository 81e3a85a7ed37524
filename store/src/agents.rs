//! PBXes as their agents report themselves.

use std::collections::HashMap;

use policy::ids::{BatchId, PbxId};
use policy::safety::{Drift, Withheld};
use sqlx::types::Json;
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

/// Revokes the certificates of a PBX, but for `kept`.
pub async fn revoke_certificates(
    tx: &mut TenantTx,
    pbx: PbxId,
    kept: Option<&[u8]>,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbx_certificates SET revoked_at = $3
         WHERE pbx_id = $1 AND revoked_at IS NULL AND fingerprint IS DISTINCT FROM $2",
        pbx.0,
        kept,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the certificate of a PBX.
pub async fn insert_certificate(
    tx: &mut TenantTx,
    pbx: PbxId,
    fingerprint: &[u8],
    issued_at: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
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

/// A PBX whose certificate holds.
#[derive(Debug, Clone)]
pub struct Certified {
    /// Which.
    pub id: PbxId,
    /// Its name.
    pub name: String,
    /// Its running stream.
    pub link_id: Option<Uuid>,
    /// When the certificate was issued.
    pub issued_at: OffsetDateTime,
    /// Until when it holds.
    pub expires_at: OffsetDateTime,
}

/// The certificates of the tenant that hold, by their fingerprints.
pub async fn certificates(tx: &mut TenantTx, now: OffsetDateTime) -> Result<HashMap<Vec<u8>, Certified>, StoreError> {
    let rows = sqlx::query!(
        "SELECT c.fingerprint, p.id, p.name, p.link_id, c.issued_at, c.expires_at
         FROM pbx_certificates c JOIN pbxes p ON p.tenant_id = c.tenant_id AND p.id = c.pbx_id
         WHERE c.expires_at > $1 AND c.revoked_at IS NULL AND p.revoked_at IS NULL",
        now
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let certified = Certified {
                id: row.id.into(),
                name: row.name,
                link_id: row.link_id,
                issued_at: row.issued_at,
                expires_at: row.expires_at,
            };
            (row.fingerprint, certified)
        })
        .collect())
}

/// The PBX of a certificate that holds: known, not expired, not revoked.
pub async fn by_certificate(
    tx: &mut TenantTx,
    fingerprint: &[u8],
    now: OffsetDateTime,
) -> Result<Option<Certified>, StoreError> {
    let row = sqlx::query!(
        "SELECT p.id, p.name, p.link_id, c.issued_at, c.expires_at FROM pbx_certificates c JOIN pbxes p ON p.tenant_id = c.tenant_id AND p.id = c.pbx_id
         WHERE c.fingerprint = $1 AND c.expires_at > $2 AND c.revoked_at IS NULL AND p.revoked_at IS NULL",
        fingerprint,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Certified {
        id: row.id.into(),
        name: row.name,
        link_id: row.link_id,
        issued_at: row.issued_at,
        expires_at: row.expires_at,
    }))
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

/// How an agent is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    /// Bans in its kernel.
    pub bans: i64,
    /// Phones registered.
    pub registered: i32,
    /// Reports dropped.
    pub dropped: i64,
    /// When all that is never to be blocked was last found in its kernel.
    pub proven_at: Option<OffsetDateTime>,
    /// How many ranges that was.
    pub proven_ranges: i32,
}

/// Agents are alive. Changes nothing where a stream is no longer its PBX's, or the PBX was revoked or removed.
pub async fn heard(tx: &mut TenantTx, beats: &[(PbxId, Uuid, Health)], now: OffsetDateTime) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = beats.iter().map(|(pbx, ..)| pbx.0).collect();
    let links: Vec<Uuid> = beats.iter().map(|(_, link, _)| *link).collect();
    let bans: Vec<i64> = beats.iter().map(|(.., health)| health.bans).collect();
    let registered: Vec<i32> = beats.iter().map(|(.., health)| health.registered).collect();
    let dropped: Vec<i64> = beats.iter().map(|(.., health)| health.dropped).collect();
    let proven_at: Vec<Option<OffsetDateTime>> = beats.iter().map(|(.., health)| health.proven_at).collect();
    let proven_ranges: Vec<i32> = beats.iter().map(|(.., health)| health.proven_ranges).collect();
    let done = sqlx::query!(
        "UPDATE pbxes AS p SET last_seen_at = $1, bans = b.bans, registered = b.registered, dropped = b.dropped,
                proven_at = b.proven_at, proven_ranges = b.proven_ranges
         FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::integer[], $6::bigint[], $7::timestamptz[], $8::integer[])
              AS b (id, link_id, bans, registered, dropped, proven_at, proven_ranges)
         WHERE p.id = b.id AND p.link_id = b.link_id AND p.revoked_at IS NULL",
        now,
        &ids,
        &links,
        &bans,
        &registered,
        &dropped,
        &proven_at as &[Option<OffsetDateTime>],
        &proven_ranges
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// What the agent found in its firewall that wasn't as it should be.
pub async fn drifted(tx: &mut TenantTx, pbx: PbxId, drift: &Drift) -> Result<(), StoreError> {
    sqlx::query!("UPDATE pbxes SET drift = $2 WHERE id = $1", pbx.0, Json(drift) as _).execute(tx.conn()).await?;
    Ok(())
}

/// The agent has applied a policy; `None` leaves the time that its last apply took.
pub async fn policy_applied(
    tx: &mut TenantTx,
    pbx: PbxId,
    revision: i64,
    digest: &[u8],
    took_us: Option<i64>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE pbxes SET applied_revision = $2, applied_digest = $3, applied_took_us = COALESCE($4, applied_took_us), last_refusal = '' WHERE id = $1",
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

/// What the agent withholds; answers whether that is other than before.
pub async fn withheld(tx: &mut TenantTx, pbx: PbxId, withheld: &[Withheld]) -> Result<bool, StoreError> {
    let done =
        sqlx::query!("UPDATE pbxes SET withheld = $2 WHERE id = $1 AND withheld <> $2", pbx.0, Json(withheld) as _)
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

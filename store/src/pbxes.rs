//! PBXes as people manage them.

use policy::ids::PbxId;
use policy::pbxes::{OFFLINE_AFTER_SECONDS, Pbx, PbxState};
use policy::safety::{Drift, Withheld};
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::db::{StoreError, TenantTx};

/// All PBXes of the tenant by name, with their state at `now`.
pub async fn list(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<Pbx>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT p.*, p.withheld AS "withheld_changes: Json<Vec<Withheld>>",
                  p.drift AS "found: Json<Drift>", t.policy_revision, t.ban_seq, n.seen_at AS "node_seen_at?"
           FROM pbxes p JOIN tenants t ON t.id = p.tenant_id LEFT JOIN nodes n ON n.id = p.node_id AND p.link_id IS NOT NULL
           ORDER BY lower(p.name), p.id"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let alive = row.node_seen_at.is_some_and(|at| now - at < Duration::seconds(OFFLINE_AFTER_SECONDS));
            let state = if row.revoked_at.is_some() {
                PbxState::Revoked
            } else if row.enrolled_at.is_none() {
                PbxState::WaitingForAgent
            } else if alive {
                PbxState::Online
            } else {
                PbxState::Offline
            };
            Pbx {
                id: row.id.into(),
                name: row.name,
                state,
                created_at: row.created_at,
                last_seen_at: row.last_seen_at.max(row.node_seen_at),
                token_expires_at: row.token_id.and(row.token_expires_at).filter(|at| *at > now),
                agent_version: row.agent_version,
                hostname: row.hostname,
                pbx_kind: row.pbx_kind,
                pbx_version: row.pbx_version,
                firewall: row.firewall,
                wanted_revision: row.policy_revision,
                applied_revision: row.applied_revision,
                applied_digest: hex(&row.applied_digest),
                wanted_ban_seq: row.ban_seq,
                applied_ban_seq: row.applied_ban_seq,
                applied_took_us: row.applied_took_us,
                last_refusal: row.last_refusal,
                withheld: row.withheld_changes.0,
                proven_at: row.proven_at,
                proven_ranges: row.proven_ranges,
                drift: row.found.map(|found| found.0),
                bans: row.bans,
                registered: row.registered,
                dropped: row.dropped,
                clock_ahead_ms: row.clock_ahead_ms,
            }
        })
        .collect())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The name of a PBX.
pub async fn name(tx: &mut TenantTx, id: PbxId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!("SELECT name FROM pbxes WHERE id = $1", id.0).fetch_optional(tx.conn()).await?)
}

/// Adds a PBX. A name that is taken conflicts with `pbxes_name_key`.
pub async fn insert(tx: &mut TenantTx, id: PbxId, name: &str, now: OffsetDateTime) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "INSERT INTO pbxes (tenant_id, id, name, created_at) VALUES ($1, $2, $3, $4)",
        tenant,
        id.0,
        name,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Makes `token_id` the only enrolment token of a PBX that isn't revoked; answers whether there is such a PBX.
pub async fn set_token(
    tx: &mut TenantTx,
    id: PbxId,
    token_id: Uuid,
    expires_at: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET token_id = $2, token_expires_at = $3 WHERE id = $1 AND revoked_at IS NULL",
        id.0,
        token_id,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Uses a token up; `false` when it isn't the PBX's, has expired or was used.
pub async fn use_token(tx: &mut TenantTx, id: PbxId, token_id: Uuid, now: OffsetDateTime) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET token_id = NULL, token_expires_at = NULL, enrolled_at = $3
         WHERE id = $1 AND token_id = $2 AND token_expires_at > $3 AND revoked_at IS NULL",
        id.0,
        token_id,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Renames a PBX and answers its old name.
pub async fn rename(tx: &mut TenantTx, id: PbxId, new_name: &str) -> Result<Option<String>, StoreError> {
    let Some(old) = name(tx, id).await? else { return Ok(None) };
    sqlx::query!("UPDATE pbxes SET name = $2 WHERE id = $1", id.0, new_name).execute(tx.conn()).await?;
    Ok(Some(old))
}

/// Revokes a PBX and all its certificates for good; `false` when there is no such PBX or it was revoked before.
pub async fn revoke(tx: &mut TenantTx, id: PbxId, now: OffsetDateTime) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET revoked_at = $2, token_id = NULL, token_expires_at = NULL, link_id = NULL WHERE id = $1 AND revoked_at IS NULL",
        id.0,
        now
    )
    .execute(tx.conn())
    .await?;
    crate::agents::revoke_certificates(tx, id, None, now).await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a PBX with its certificates and figures; bans that it detected stay.
pub async fn remove(tx: &mut TenantTx, id: PbxId) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM pbxes WHERE id = $1", id.0).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

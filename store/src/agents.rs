//! PBXes as their agents report themselves.

use std::collections::{HashMap, HashSet};

use policy::ids::{BatchId, PbxId};
use policy::pbxes::OFFLINE_AFTER_SECONDS;
use policy::safety::{Drift, Withheld};
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
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

/// What a stream of a PBX found that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The node that serves an older stream, if there is one that is alive.
    pub older_on: Option<Uuid>,
    /// What is written down of what its agent has in force.
    pub written: Told,
    /// It withheld something when it was last heard.
    pub withheld_before: bool,
    /// More than one certificate of it holds.
    pub several_certificates: bool,
}

/// An agent's stream begins on a node; it replaces an older one. Answers what was there before; `None` when there is no such PBX, or it
/// was revoked.
pub async fn connected(
    tx: &mut TenantTx,
    pbx: PbxId,
    (link_id, node_id): (Uuid, Uuid),
    described: &Described,
    now: OffsetDateTime,
) -> Result<Option<Arrival>, StoreError> {
    let row = sqlx::query!(
        r#"UPDATE pbxes AS p SET link_id = $2, node_id = $3, last_seen_at = $4, agent_version = $5, hostname = $6, pbx_kind = $7,
                pbx_version = $8, firewall = $9
         FROM (SELECT id, link_id, node_id FROM pbxes WHERE id = $1 FOR NO KEY UPDATE) AS before
         WHERE p.id = before.id AND p.revoked_at IS NULL
         RETURNING (SELECT n.id FROM nodes n WHERE n.id = before.node_id AND before.link_id IS NOT NULL AND n.seen_at > $10) AS "older_on?",
                p.applied_revision, p.applied_digest, p.applied_ban_seq, p.last_refusal, p.withheld <> '[]' AS "withheld!",
                (SELECT count(*) > 1 FROM pbx_certificates c WHERE c.pbx_id = p.id AND c.revoked_at IS NULL) AS "certificates!""#,
        pbx.0,
        link_id,
        node_id,
        now,
        described.agent_version,
        described.hostname,
        described.pbx_kind,
        described.pbx_version,
        described.firewall,
        now - Duration::seconds(OFFLINE_AFTER_SECONDS)
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| Arrival {
        older_on: row.older_on,
        written: Told {
            health: None,
            // None was applied yet, or one was refused since: then it has to be written down, whatever it is.
            policy: <[u8; 32]>::try_from(row.applied_digest)
                .ok()
                .filter(|_| row.last_refusal.is_empty())
                .map(|digest| AppliedPolicy { revision: row.applied_revision, digest, took_us: None }),
            bans: Some(AppliedBans { seq: row.applied_ban_seq, took_us: None }),
        },
        withheld_before: row.withheld,
        several_certificates: row.certificates,
    }))
}

/// An agent's stream ended; changes nothing when a newer one has begun.
pub async fn disconnected(
    tx: &mut TenantTx,
    pbx: PbxId,
    link_id: Uuid,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE pbxes SET link_id = NULL, last_seen_at = $3 WHERE id = $1 AND link_id = $2",
        pbx.0,
        link_id,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How an agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// How far the server's clock is ahead of its own, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
}

/// A policy that an agent has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedPolicy {
    /// Its revision.
    pub revision: i64,
    /// Its digest.
    pub digest: [u8; 32],
    /// How long that took; `None` when the agent held it before.
    pub took_us: Option<i64>,
}

/// A set of bans that an agent has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedBans {
    /// The number of the last change in it.
    pub seq: i64,
    /// How long that took; `None` when the agent held it before.
    pub took_us: Option<i64>,
}

/// What an agent says of itself while it works. What is `None` stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// How it is.
    pub health: Option<Health>,
    /// The policy in force.
    pub policy: Option<AppliedPolicy>,
    /// The bans in force.
    pub bans: Option<AppliedBans>,
}

/// Writes down what agents have told, each on which stream. Changes nothing where a stream is no longer its PBX's, or the PBX was
/// revoked or removed.
pub async fn told(tx: &mut TenantTx, told: &[(PbxId, Uuid, Told)]) -> Result<u64, StoreError> {
    let ids: Vec<Uuid> = told.iter().map(|(pbx, ..)| pbx.0).collect();
    let links: Vec<Uuid> = told.iter().map(|(_, link, _)| *link).collect();
    let health =
        |of: fn(Health) -> i64| -> Vec<Option<i64>> { told.iter().map(|(.., told)| told.health.map(of)).collect() };
    let proven_at: Vec<Option<OffsetDateTime>> =
        told.iter().map(|(.., told)| told.health.and_then(|health| health.proven_at)).collect();
    let clocks: Vec<Option<i64>> =
        told.iter().map(|(.., told)| told.health.and_then(|health| health.clock_ahead_ms)).collect();
    let revisions: Vec<Option<i64>> = told.iter().map(|(.., told)| told.policy.map(|policy| policy.revision)).collect();
    let digests: Vec<Option<Vec<u8>>> =
        told.iter().map(|(.., told)| told.policy.map(|policy| policy.digest.to_vec())).collect();
    let seqs: Vec<Option<i64>> = told.iter().map(|(.., told)| told.bans.map(|bans| bans.seq)).collect();
    let took =
        |told: &Told| told.policy.and_then(|policy| policy.took_us).or_else(|| told.bans.and_then(|bans| bans.took_us));
    let took: Vec<Option<i64>> = told.iter().map(|(.., told)| took(told)).collect();
    let done = sqlx::query!(
        "UPDATE pbxes AS p SET
             bans = COALESCE(t.bans, p.bans), registered = COALESCE(t.registered::integer, p.registered),
             dropped = COALESCE(t.dropped, p.dropped),
             proven_at = CASE WHEN t.bans IS NULL THEN p.proven_at ELSE t.proven_at END,
             proven_ranges = COALESCE(t.proven_ranges::integer, p.proven_ranges),
             clock_ahead_ms = COALESCE(t.clock_ahead_ms, p.clock_ahead_ms),
             applied_revision = COALESCE(t.revision, p.applied_revision), applied_digest = COALESCE(t.digest, p.applied_digest),
             last_refusal = CASE WHEN t.revision IS NULL THEN p.last_refusal ELSE '' END,
             applied_ban_seq = COALESCE(t.seq, p.applied_ban_seq), applied_took_us = COALESCE(t.took_us, p.applied_took_us)
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[], $8::bigint[],
                     $9::bigint[], $10::bytea[], $11::bigint[], $12::bigint[])
              AS t (id, link_id, bans, registered, dropped, proven_at, proven_ranges, clock_ahead_ms, revision, digest, seq, took_us)
         WHERE p.id = t.id AND p.link_id = t.link_id AND p.revoked_at IS NULL",
        &ids,
        &links,
        &health(|health| health.bans) as &[Option<i64>],
        &health(|health| health.registered.into()) as &[Option<i64>],
        &health(|health| health.dropped) as &[Option<i64>],
        &proven_at as &[Option<OffsetDateTime>],
        &health(|health| health.proven_ranges.into()) as &[Option<i64>],
        &clocks as &[Option<i64>],
        &revisions as &[Option<i64>],
        &digests as &[Option<Vec<u8>>],
        &seqs as &[Option<i64>],
        &took as &[Option<i64>]
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

/// Marks batches of reports as stored; answers those that weren't before.
pub async fn insert_batches(
    tx: &mut TenantTx,
    batches: &[(BatchId, PbxId)],
    now: OffsetDateTime,
) -> Result<HashSet<BatchId>, StoreError> {
    let tenant = tx.tenant().0;
    let ids: Vec<Uuid> = batches.iter().map(|(batch, _)| batch.0).collect();
    let pbxes: Vec<Uuid> = batches.iter().map(|(_, pbx)| pbx.0).collect();
    let new = sqlx::query_scalar!(
        "INSERT INTO report_batches (tenant_id, id, pbx_id, received_at)
         SELECT $1, b.id, b.pbx_id, $4 FROM unnest($2::uuid[], $3::uuid[]) AS b (id, pbx_id)
         ON CONFLICT (tenant_id, id) DO NOTHING RETURNING id",
        tenant,
        &ids,
        &pbxes,
        now
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(new.into_iter().map(BatchId).collect())
}

//! The numbered set of bans that a tenant's PBXes hold: its number and digest, and the last changes.

use ipnet::IpNet;
use policy::bans::{BanChange, BanDigest, BanEntry};
use time::OffsetDateTime;

use crate::db::{StoreError, TenantTx};

/// Changes kept for agents that missed a few; who missed more gets the whole set.
pub const KEPT_CHANGES: i64 = 20_000;

/// Where the set stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanSet {
    /// Number of the last change.
    pub seq: i64,
    /// Digest after it.
    pub digest: BanDigest,
}

/// Where the set stands.
pub async fn read(tx: &mut TenantTx) -> Result<BanSet, StoreError> {
    let id = tx.tenant().0;
    let row = sqlx::query!("SELECT ban_seq, ban_digest FROM tenants WHERE id = $1", id).fetch_one(tx.conn()).await?;
    Ok(BanSet { seq: row.ban_seq, digest: digest(&row.ban_digest) })
}

/// Where the set stands; until the transaction ends nobody changes it, and others may read it, too.
pub async fn hold(tx: &mut TenantTx) -> Result<BanSet, StoreError> {
    let id = tx.tenant().0;
    let row = sqlx::query!("SELECT ban_seq, ban_digest FROM tenants WHERE id = $1 FOR SHARE", id)
        .fetch_one(tx.conn())
        .await?;
    Ok(BanSet { seq: row.ban_seq, digest: digest(&row.ban_digest) })
}

/// Where the set stands; until the transaction ends nobody else changes it, nor the revision of the tenant's policy. Whoever
/// changes rows of the tenant's lists comes here first, and to the head of the audit log last: in one order nobody waits
/// for who waits for him.
pub async fn lock(tx: &mut TenantTx) -> Result<BanSet, StoreError> {
    let id = tx.tenant().0;
    // Not FOR UPDATE: every new row of the tenant asks for KEY SHARE of this one through its foreign key, such as that of the
    // audit log, which others write while they hold the log's head.
    let row = sqlx::query!("SELECT ban_seq, ban_digest FROM tenants WHERE id = $1 FOR NO KEY UPDATE", id)
        .fetch_one(tx.conn())
        .await?;
    Ok(BanSet { seq: row.ban_seq, digest: digest(&row.ban_digest) })
}

fn digest(bytes: &[u8]) -> BanDigest {
    bytes.try_into().map_or_else(|_| BanDigest::default(), BanDigest::from_bytes)
}

/// Numbers and keeps changes of a locked set. `changes` are in order; `digest` is the one after the last of them.
pub async fn append(
    tx: &mut TenantTx,
    set: &BanSet,
    changes: &[BanChange],
    digest: BanDigest,
) -> Result<BanSet, StoreError> {
    let tenant = tx.tenant().0;
    let mut seq = set.seq;
    let (mut seqs, mut nets, mut added, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        seq += 1;
        let (net, expires_at, add) = match change {
            BanChange::Add(entry) => (entry.net, entry.expires_at, true),
            BanChange::Remove(net) => (*net, None, false),
        };
        seqs.push(seq);
        nets.push(net);
        added.push(add);
        ends.push(expires_at);
    }
    sqlx::query!(
        "INSERT INTO ban_changes (tenant_id, seq, net, added, expires_at)
         SELECT $1, c.seq, c.net::cidr, c.added, c.ends FROM unnest($2::bigint[], $3::inet[], $4::bool[], $5::timestamptz[]) AS c (seq, net, added, ends)",
        tenant,
        &seqs,
        nets as Vec<IpNet>,
        &added,
        &ends as &[Option<OffsetDateTime>]
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!("DELETE FROM ban_changes WHERE tenant_id = $1 AND seq <= $2", tenant, seq - KEPT_CHANGES)
        .execute(tx.conn())
        .await?;
    sqlx::query!("UPDATE tenants SET ban_seq = $2, ban_digest = $3 WHERE id = $1", tenant, seq, &digest.to_bytes()[..])
        .execute(tx.conn())
        .await?;
    Ok(BanSet { seq, digest })
}

/// The changes after `seq`, in order; `None` when some of them are no longer kept.
pub async fn changes_after(tx: &mut TenantTx, seq: i64, limit: i64) -> Result<Option<Vec<BanChange>>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT seq, net AS "net: IpNet", added, expires_at FROM ban_changes WHERE seq > $1 ORDER BY seq LIMIT $2"#,
        seq,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    if rows.first().is_some_and(|row| row.seq != seq + 1) {
        return Ok(None);
    }
    Ok(Some(
        rows.into_iter()
            .map(|row| {
                if row.added {
                    BanChange::Add(BanEntry { net: row.net, expires_at: row.expires_at })
                } else {
                    BanChange::Remove(row.net)
                }
            })
            .collect(),
    ))
}

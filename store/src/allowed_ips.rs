//! Allowed IPs.

use ipnet::IpNet;
use policy::allowed_ips::{AllowedIp, AllowedIpDraft, AllowedTarget};
use policy::ids::AllowedIpId;
use policy::snapshot::AllowedEntry;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::escape_like;
use crate::blocked_ips::NetRange;
use crate::db::{StoreError, TenantTx};

struct Row {
    id: Uuid,
    net: Option<IpNet>,
    domain: Option<String>,
    note: String,
    expires_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    created_by: String,
}

impl Row {
    fn into_entry(self) -> Option<AllowedIp> {
        let target = self.net.map(AllowedTarget::Net).or(self.domain.map(AllowedTarget::Domain))?;
        Some(AllowedIp {
            id: self.id.into(),
            target,
            note: self.note,
            expires_at: self.expires_at,
            created_at: self.created_at,
            created_by: self.created_by,
        })
    }
}

/// Which entries a list shows.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Those that contain, or are contained in, one of these networks.
    pub range: Option<NetRange>,
    /// Those whose domain or note holds this.
    pub word: Option<String>,
}

/// Entries that were added before `before` (instant and id), newest first.
pub async fn list(
    tx: &mut TenantTx,
    search: &Search,
    before: Option<(OffsetDateTime, AllowedIpId)>,
    limit: i64,
) -> Result<Vec<AllowedIp>, StoreError> {
    let like = search.word.as_deref().map(|word| format!("%{}%", escape_like(word)));
    let (nets, low, high) = NetRange::parts(search.range.as_ref());
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, net AS "net: IpNet", domain, note, expires_at, created_at, created_by FROM allowed_ips
           WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
             AND ($3::text IS NULL OR domain ILIKE $3 OR note ILIKE $3)
             AND ($4::cidr[] IS NULL OR net = ANY ($4) OR (net >= $5::inet AND net <= $6::inet))
           ORDER BY created_at DESC, id DESC LIMIT $7"#,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        like,
        nets as Option<Vec<IpNet>>,
        low as Option<IpNet>,
        high as Option<IpNet>,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::into_entry).collect())
}

/// How many entries a search finds.
pub async fn count(tx: &mut TenantTx, search: &Search) -> Result<i64, StoreError> {
    let like = search.word.as_deref().map(|word| format!("%{}%", escape_like(word)));
    let (nets, low, high) = NetRange::parts(search.range.as_ref());
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM allowed_ips
           WHERE ($1::text IS NULL OR domain ILIKE $1 OR note ILIKE $1)
             AND ($2::cidr[] IS NULL OR net = ANY ($2) OR (net >= $3::inet AND net <= $4::inet))"#,
        like,
        nets as Option<Vec<IpNet>>,
        low as Option<IpNet>,
        high as Option<IpNet>
    )
    .fetch_one(tx.conn())
    .await?)
}

/// All entries, oldest first.
pub async fn all(tx: &mut TenantTx) -> Result<Vec<AllowedIp>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, net AS "net: IpNet", domain, note, expires_at, created_at, created_by FROM allowed_ips ORDER BY created_at, id"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::into_entry).collect())
}

/// All entries that hold at `now`, as PBXes get them.
pub async fn entries(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<AllowedEntry>, StoreError> {
    let entries = all(tx).await?.into_iter();
    Ok(entries
        .filter(|entry| entry.expires_at.is_none_or(|at| at > now))
        .map(|entry| AllowedEntry { target: entry.target, expires_at: entry.expires_at })
        .collect())
}

/// Whether a network that holds at `now` overlaps `net`; the entry found. Domain names are known to the agents only.
pub async fn overlapping(tx: &mut TenantTx, net: IpNet, now: OffsetDateTime) -> Result<Option<IpNet>, StoreError> {
    let range = NetRange::of(net);
    let (nets, low, high) = NetRange::parts(Some(&range));
    Ok(sqlx::query_scalar!(
        r#"SELECT net AS "net!: IpNet" FROM allowed_ips
           WHERE (net = ANY ($1) OR (net >= $2::inet AND net <= $3::inet)) AND (expires_at IS NULL OR expires_at > $4)
           ORDER BY net LIMIT 1"#,
        nets as Option<Vec<IpNet>>,
        low as Option<IpNet>,
        high as Option<IpNet>,
        now
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// The entry of an id.
pub async fn by_id(tx: &mut TenantTx, id: AllowedIpId) -> Result<Option<AllowedIp>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id, net AS "net: IpNet", domain, note, expires_at, created_at, created_by FROM allowed_ips WHERE id = $1"#,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(Row::into_entry))
}

fn columns(target: &AllowedTarget) -> (Option<IpNet>, Option<&str>) {
    match target {
        AllowedTarget::Net(net) => (Some(*net), None),
        AllowedTarget::Domain(domain) => (None, Some(domain)),
    }
}

/// Adds an entry. The same target twice conflicts with `allowed_ips_net_key` or `allowed_ips_domain_key`.
pub async fn insert(
    tx: &mut TenantTx,
    id: AllowedIpId,
    draft: &AllowedIpDraft,
    by: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    let (net, domain) = columns(&draft.target);
    sqlx::query!(
        "INSERT INTO allowed_ips (tenant_id, id, net, domain, note, expires_at, created_at, created_by)
         VALUES ($1, $2, $3::cidr, $4, $5, $6, $7, $8)",
        tenant,
        id.0,
        net as Option<IpNet>,
        domain,
        draft.note,
        draft.expires_at,
        now,
        by
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Changes an entry.
pub async fn update(tx: &mut TenantTx, id: AllowedIpId, draft: &AllowedIpDraft) -> Result<(), StoreError> {
    let (net, domain) = columns(&draft.target);
    sqlx::query!(
        "UPDATE allowed_ips SET net = $2::cidr, domain = $3, note = $4, expires_at = $5 WHERE id = $1",
        id.0,
        net as Option<IpNet>,
        domain,
        draft.note,
        draft.expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes entries; answers what they were.
pub async fn delete(tx: &mut TenantTx, ids: &[AllowedIpId]) -> Result<Vec<AllowedTarget>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"DELETE FROM allowed_ips WHERE id = ANY ($1)
           RETURNING id, net AS "net: IpNet", domain, note, expires_at, created_at, created_by"#,
        &ids
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::into_entry).map(|entry| entry.target).collect())
}

/// Deletes what has expired by `now`; answers what it was.
pub async fn delete_expired(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<AllowedTarget>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"DELETE FROM allowed_ips WHERE expires_at <= $1
           RETURNING id, net AS "net: IpNet", domain, note, expires_at, created_at, created_by"#,
        now
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::into_entry).map(|entry| entry.target).collect())
}

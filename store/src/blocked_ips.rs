//! Bans. Networks are compared with `=`, `<=` and `>=` only, so that row security lets an index find them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use policy::bans::BanEntry;
use policy::blocked_ips::{BanSource, BlockedIp, EvidenceEvent};
use policy::ids::{BanId, PbxId};
use policy::paging::COUNT_LIMIT;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit::escape_like;
use crate::db::{StoreError, TenantTx};

/// All networks that contain one network or are contained in it, in a form that a B-tree finds.
#[derive(Debug, Clone)]
pub struct NetRange {
    containing: Vec<IpNet>,
    low: IpNet,
    high: IpNet,
}

impl NetRange {
    /// The networks around `net`.
    pub fn of(net: IpNet) -> Self {
        let containing = std::iter::successors(Some(net), IpNet::supernet).collect();
        let last: IpAddr = match net {
            IpNet::V4(v4) => IpAddr::V4(v4.broadcast()),
            IpNet::V6(v6) => IpAddr::V6(v6.broadcast()),
        };
        // PostgreSQL orders a network before its subnets, and those by address: the last is the last address alone.
        Self { containing, low: net, high: IpNet::from(last) }
    }

    pub(crate) fn parts(range: Option<&Self>) -> (Option<Vec<IpNet>>, Option<IpNet>, Option<IpNet>) {
        (range.map(|range| range.containing.clone()), range.map(|range| range.low), range.map(|range| range.high))
    }
}

/// Which bans a list shows.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Those that contain, or are contained in, this network.
    pub range: Option<NetRange>,
    /// Those whose reason or account holds this.
    pub word: Option<String>,
    /// Those of this source.
    pub source: Option<BanSource>,
    /// Those that this PBX detected.
    pub pbx_id: Option<PbxId>,
}

/// A ban to keep.
#[derive(Debug, Clone)]
pub struct NewBan {
    /// Its id.
    pub id: BanId,
    /// What is blocked, and until when.
    pub entry: BanEntry,
    /// Where it comes from.
    pub source: BanSource,
    /// Why.
    pub reason: String,
    /// The account that was attacked.
    pub account: Option<String>,
    /// The PBX that detected it.
    pub pbx_id: Option<PbxId>,
    /// Who blocked it by hand.
    pub blocked_by: Option<String>,
    /// How often this source has been banned, this time included.
    pub times_banned: i32,
    /// The events that led to it.
    pub evidence: Vec<EvidenceEvent>,
    /// Since when.
    pub created_at: OffsetDateTime,
}

struct Row {
    id: Uuid,
    net: IpNet,
    source: String,
    reason: String,
    account: Option<String>,
    pbx_id: Option<Uuid>,
    pbx_name: Option<String>,
    blocked_by: Option<String>,
    times_banned: i32,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
}

impl From<Row> for BlockedIp {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            net: row.net,
            source: BanSource::from_name(&row.source).unwrap_or(BanSource::Manual),
            reason: row.reason,
            account: row.account,
            pbx_id: row.pbx_id.map(PbxId),
            pbx_name: row.pbx_name,
            blocked_by: row.blocked_by,
            times_banned: row.times_banned,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

/// Bans that hold and began before `before` (instant and id), newest first.
pub async fn list(
    tx: &mut TenantTx,
    search: &Search,
    before: Option<(OffsetDateTime, BanId)>,
    limit: i64,
) -> Result<Vec<BlockedIp>, StoreError> {
    let like = search.word.as_deref().map(|word| format!("%{}%", escape_like(word)));
    let (nets, low, high) = NetRange::parts(search.range.as_ref());
    // The page is found in the index alone; only its rows are then read in full.
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT b.id, b.net AS "net: IpNet", b.source, b.reason, b.account, b.pbx_id, p.name AS "pbx_name?", b.blocked_by,
                  b.times_banned, b.created_at, b.expires_at
           FROM (SELECT id FROM blocked_ips
                 WHERE ended_at IS NULL
                   AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
                   AND ($3::text IS NULL OR words LIKE lower($3))
                   AND ($4::cidr[] IS NULL OR net = ANY ($4) OR (net >= $5::inet AND net <= $6::inet))
                   AND ($7::text IS NULL OR source = $7)
                   AND ($8::uuid IS NULL OR pbx_id = $8)
                 ORDER BY created_at DESC, id DESC LIMIT $9) AS page
           JOIN blocked_ips b ON b.id = page.id
           LEFT JOIN pbxes p ON p.tenant_id = b.tenant_id AND p.id = b.pbx_id
           ORDER BY b.created_at DESC, b.id DESC"#,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        like,
        nets as Option<Vec<IpNet>>,
        low as Option<IpNet>,
        high as Option<IpNet>,
        search.source.map(BanSource::as_str),
        search.pbx_id.map(|id| id.0),
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(BlockedIp::from).collect())
}

/// How many bans a search finds, counted up to [`COUNT_LIMIT`].
pub async fn count(tx: &mut TenantTx, search: &Search) -> Result<i64, StoreError> {
    let like = search.word.as_deref().map(|word| format!("%{}%", escape_like(word)));
    let (nets, low, high) = NetRange::parts(search.range.as_ref());
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
               SELECT FROM blocked_ips
               WHERE ended_at IS NULL
                 AND ($1::text IS NULL OR words LIKE lower($1))
                 AND ($2::cidr[] IS NULL OR net = ANY ($2) OR (net >= $3::inet AND net <= $4::inet))
                 AND ($5::text IS NULL OR source = $5)
                 AND ($6::uuid IS NULL OR pbx_id = $6)
               LIMIT $7) AS found"#,
        like,
        nets as Option<Vec<IpNet>>,
        low as Option<IpNet>,
        high as Option<IpNet>,
        search.source.map(BanSource::as_str),
        search.pbx_id.map(|id| id.0),
        COUNT_LIMIT
    )
    .fetch_one(tx.conn())
    .await?)
}

/// One ban, whether it holds or has ended, with its evidence.
pub async fn by_id(tx: &mut TenantTx, id: BanId) -> Result<Option<(BlockedIp, Vec<EvidenceEvent>)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT b.id, b.net AS "net: IpNet", b.source, b.reason, b.account, b.pbx_id, p.name AS "pbx_name?", b.blocked_by,
                  b.times_banned, b.created_at, COALESCE(b.ended_at, b.expires_at) AS expires_at, b.evidence AS "evidence: Json<Vec<EvidenceEvent>>"
           FROM blocked_ips b LEFT JOIN pbxes p ON p.tenant_id = b.tenant_id AND p.id = b.pbx_id WHERE b.id = $1"#,
        id.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let ban = Row {
            id: row.id,
            net: row.net,
            source: row.source,
            reason: row.reason,
            account: row.account,
            pbx_id: row.pbx_id,
            pbx_name: row.pbx_name,
            blocked_by: row.blocked_by,
            times_banned: row.times_banned,
            created_at: row.created_at,
            expires_at: row.expires_at,
        };
        (ban.into(), row.evidence.0)
    }))
}

/// Earlier bans of a network that have ended, newest first; `expires_at` is when they ended.
pub async fn earlier(tx: &mut TenantTx, net: IpNet, except: BanId, limit: i64) -> Result<Vec<BlockedIp>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT b.id, b.net AS "net: IpNet", b.source, b.reason, b.account, b.pbx_id, p.name AS "pbx_name?", b.blocked_by,
                  b.times_banned, b.created_at, b.ended_at AS expires_at
           FROM blocked_ips b LEFT JOIN pbxes p ON p.tenant_id = b.tenant_id AND p.id = b.pbx_id
           WHERE b.net = $1::inet AND b.id <> $2 AND b.ended_at IS NOT NULL ORDER BY b.created_at DESC LIMIT $3"#,
        net as IpNet,
        except.0,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(BlockedIp::from).collect())
}

/// How often networks have been banned by hand or by detection; those that never were are left out.
pub async fn times_banned(tx: &mut TenantTx, nets: &[IpNet]) -> Result<HashMap<IpNet, i64>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT net AS "net: IpNet", count(*) AS "count!" FROM blocked_ips WHERE net = ANY ($1) GROUP BY net"#,
        nets as &[IpNet]
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.net, row.count)).collect())
}

/// The bans that hold for exactly these networks.
pub async fn holding(tx: &mut TenantTx, nets: &[IpNet]) -> Result<HashMap<IpNet, (BanId, BanEntry)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, net AS "net: IpNet", expires_at FROM blocked_ips WHERE net = ANY ($1) AND ended_at IS NULL"#,
        nets as &[IpNet]
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.net, (row.id.into(), BanEntry { net: row.net, expires_at: row.expires_at })))
        .collect())
}

/// The widest network blocked at `now` that holds all of `net`, if any.
pub async fn covering(tx: &mut TenantTx, net: IpNet, now: OffsetDateTime) -> Result<Option<IpNet>, StoreError> {
    let NetRange { containing, .. } = NetRange::of(net);
    Ok(sqlx::query_scalar!(
        r#"SELECT net AS "net: IpNet" FROM blocked_ips
           WHERE ended_at IS NULL AND net = ANY ($1) AND (expires_at IS NULL OR expires_at > $2)
           ORDER BY net LIMIT 1"#,
        containing as Vec<IpNet>,
        now
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Which of these bans are kept, holding or ended: an agent's ban is stored once.
pub async fn known(tx: &mut TenantTx, ids: &[BanId]) -> Result<HashSet<BanId>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let known =
        sqlx::query_scalar!("SELECT id FROM blocked_ips WHERE id = ANY ($1)", &ids).fetch_all(tx.conn()).await?;
    Ok(known.into_iter().map(BanId).collect())
}

/// All bans that hold, as PBXes get them.
pub async fn entries(tx: &mut TenantTx) -> Result<Vec<BanEntry>, StoreError> {
    let rows = sqlx::query!(r#"SELECT net AS "net: IpNet", expires_at FROM blocked_ips WHERE ended_at IS NULL"#)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows.into_iter().map(|row| BanEntry { net: row.net, expires_at: row.expires_at }).collect())
}

/// Keeps bans; of those with an end, `ended_by` says that another took their place at once. The set must be locked, and no other ban
/// hold for the networks of those that hold.
pub async fn insert(
    tx: &mut TenantTx,
    bans: &[NewBan],
    replaced: &BTreeSet<BanId>,
    by: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    let ids: Vec<Uuid> = bans.iter().map(|ban| ban.id.0).collect();
    let nets: Vec<IpNet> = bans.iter().map(|ban| ban.entry.net).collect();
    let sources: Vec<String> = bans.iter().map(|ban| ban.source.as_str().to_owned()).collect();
    let reasons: Vec<String> = bans.iter().map(|ban| ban.reason.clone()).collect();
    let accounts: Vec<Option<String>> = bans.iter().map(|ban| ban.account.clone()).collect();
    let pbxes: Vec<Option<Uuid>> = bans.iter().map(|ban| ban.pbx_id.map(|id| id.0)).collect();
    let people: Vec<Option<String>> = bans.iter().map(|ban| ban.blocked_by.clone()).collect();
    let times: Vec<i32> = bans.iter().map(|ban| ban.times_banned).collect();
    let evidence: Vec<Json<&Vec<EvidenceEvent>>> = bans.iter().map(|ban| Json(&ban.evidence)).collect();
    let begun: Vec<OffsetDateTime> = bans.iter().map(|ban| ban.created_at).collect();
    let ends: Vec<Option<OffsetDateTime>> = bans.iter().map(|ban| ban.entry.expires_at).collect();
    let over: Vec<bool> = bans.iter().map(|ban| replaced.contains(&ban.id)).collect();
    sqlx::query!(
        "INSERT INTO blocked_ips (tenant_id, id, net, source, reason, account, pbx_id, blocked_by, times_banned, evidence, created_at,
                                  expires_at, ended_at, ended_by)
         SELECT $1, b.id, b.net::cidr, b.source, b.reason, b.account, b.pbx_id, b.blocked_by, b.times_banned, b.evidence, b.created_at,
                b.expires_at, CASE WHEN b.over THEN $14::timestamptz END, CASE WHEN b.over THEN $15::text END
         FROM unnest($2::uuid[], $3::inet[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::integer[], $10::jsonb[],
                     $11::timestamptz[], $12::timestamptz[], $13::boolean[])
              AS b (id, net, source, reason, account, pbx_id, blocked_by, times_banned, evidence, created_at, expires_at, over)",
        tenant,
        &ids,
        nets as Vec<IpNet>,
        &sources,
        &reasons,
        &accounts as &[Option<String>],
        &pbxes as &[Option<Uuid>],
        &people as &[Option<String>],
        &times,
        &evidence as &[Json<&Vec<EvidenceEvent>>],
        &begun,
        &ends as &[Option<OffsetDateTime>],
        &over,
        now,
        by
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends bans that hold; answers what they were. The set must be locked.
pub async fn end(tx: &mut TenantTx, ids: &[BanId], by: &str, now: OffsetDateTime) -> Result<Vec<BanEntry>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"UPDATE blocked_ips SET ended_at = $2, ended_by = $3 WHERE id = ANY ($1) AND ended_at IS NULL
           RETURNING net AS "net: IpNet", expires_at"#,
        &ids,
        now,
        by
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| BanEntry { net: row.net, expires_at: row.expires_at }).collect())
}

/// Ends bans whose time is over; answers what they were. The set must be locked.
pub async fn end_expired(tx: &mut TenantTx, now: OffsetDateTime, limit: i64) -> Result<Vec<BanEntry>, StoreError> {
    let rows = sqlx::query!(
        r#"UPDATE blocked_ips SET ended_at = $1, ended_by = 'expiry'
           WHERE id IN (SELECT id FROM blocked_ips WHERE ended_at IS NULL AND expires_at <= $1 LIMIT $2) AND ended_at IS NULL
           RETURNING net AS "net: IpNet", expires_at"#,
        now,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| BanEntry { net: row.net, expires_at: row.expires_at }).collect())
}

/// Ids and networks of the bans that hold inside `net`.
pub async fn inside(tx: &mut TenantTx, net: IpNet) -> Result<Vec<(BanId, IpNet)>, StoreError> {
    let range = NetRange::of(net);
    let rows = sqlx::query!(
        r#"SELECT id, net AS "net: IpNet" FROM blocked_ips WHERE ended_at IS NULL AND net >= $1::inet AND net <= $2::inet"#,
        range.low as IpNet,
        range.high as IpNet
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.net)).collect())
}

//! Failed attempts and bans in buckets of five minutes.

use policy::ids::PbxId;
use policy::overview::HourCount;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{StoreError, TenantTx};

/// What to add to the bucket that holds `at`.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// At which PBX.
    pub pbx_id: PbxId,
    /// When.
    pub at: OffsetDateTime,
    /// Failed attempts.
    pub attempts: i64,
    /// Bans begun.
    pub bans: i64,
}

/// Adds to the buckets.
pub async fn add(tx: &mut TenantTx, counts: &[Count]) -> Result<(), StoreError> {
    if counts.is_empty() {
        return Ok(());
    }
    let tenant = tx.tenant().0;
    let pbxes: Vec<Uuid> = counts.iter().map(|count| count.pbx_id.0).collect();
    let times: Vec<OffsetDateTime> = counts.iter().map(|count| count.at).collect();
    let attempts: Vec<i64> = counts.iter().map(|count| count.attempts).collect();
    let bans: Vec<i64> = counts.iter().map(|count| count.bans).collect();
    // In the order of the key, so that two writers don't wait for each other crosswise.
    sqlx::query!(
        "INSERT INTO attack_rollups (tenant_id, pbx_id, bucket, attempts, bans)
         SELECT $1, c.pbx_id, date_bin('5 minutes', c.at, '2000-01-01'), sum(c.attempts), sum(c.bans)
         FROM unnest($2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[]) AS c (pbx_id, at, attempts, bans)
         GROUP BY 3, 2 ORDER BY 3, 2
         ON CONFLICT (tenant_id, bucket, pbx_id)
         DO UPDATE SET attempts = attack_rollups.attempts + EXCLUDED.attempts, bans = attack_rollups.bans + EXCLUDED.bans",
        tenant,
        &pbxes,
        &times,
        &attempts,
        &bans
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The 24 hours that end with the one of `now`, oldest first, none left out.
pub async fn last_day(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<HourCount>, StoreError> {
    Ok(sqlx::query_as!(
        HourCount,
        r#"SELECT hour AS "hour!", COALESCE(sum(attempts), 0)::bigint AS "attempts!", COALESCE(sum(bans), 0)::bigint AS "bans!"
           FROM generate_series(date_trunc('hour', $1::timestamptz) - interval '23 hours', date_trunc('hour', $1::timestamptz), '1 hour') AS hour
           LEFT JOIN attack_rollups ON bucket >= hour AND bucket < hour + interval '1 hour'
           GROUP BY hour ORDER BY hour"#,
        now
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Failed attempts since a moment.
pub async fn attempts_since(tx: &mut TenantTx, since: OffsetDateTime) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT COALESCE(sum(attempts), 0)::bigint AS "attempts!" FROM attack_rollups WHERE bucket >= $1"#,
        since
    )
    .fetch_one(tx.conn())
    .await?)
}

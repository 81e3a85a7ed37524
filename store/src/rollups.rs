//! Failed attempts and bans in buckets of five minutes.

use policy::ids::PbxId;
use policy::overview::HourCount;
use time::OffsetDateTime;

use crate::db::{StoreError, TenantTx};

/// Adds to the bucket that holds `at`.
pub async fn add(
    tx: &mut TenantTx,
    pbx: PbxId,
    at: OffsetDateTime,
    attempts: i64,
    bans: i64,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "INSERT INTO attack_rollups (tenant_id, pbx_id, bucket, attempts, bans)
         VALUES ($1, $2, date_bin('5 minutes', $3, '2000-01-01'), $4, $5)
         ON CONFLICT (tenant_id, bucket, pbx_id)
         DO UPDATE SET attempts = attack_rollups.attempts + $4, bans = attack_rollups.bans + $5",
        tenant,
        pbx.0,
        at,
        attempts,
        bans
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

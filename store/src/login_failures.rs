//! Failed tries of passwords by source, and the passes with which an owner gets past them.

use policy::ids::UserId;
use time::OffsetDateTime;

use crate::db::{PlatformTx, StoreError};

/// How one source has tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Failures at the account that is asked about.
    pub here: i64,
    /// When the last of those was.
    pub here_at: Option<OffsetDateTime>,
    /// Failures at all accounts.
    pub everywhere: i64,
    /// When the last of those was.
    pub everywhere_at: Option<OffsetDateTime>,
    /// How many accounts failed lately.
    pub accounts: i64,
    /// Until when it has to wait whatever the counts say.
    pub until: Option<OffsetDateTime>,
}

/// How a source has tried, and tried at an account. Failures at an account count while its last one is after `since`; accounts, while it
/// is after `lately`.
pub async fn tried(
    tx: &mut PlatformTx,
    source: &str,
    account: &[u8],
    (since, lately): (OffsetDateTime, OffsetDateTime),
) -> Result<Tried, StoreError> {
    let row = sqlx::query!(
        r#"SELECT COALESCE(SUM(failures) FILTER (WHERE account = $2), 0) AS "here!", MAX(last_at) FILTER (WHERE account = $2) AS here_at,
                  COALESCE(SUM(failures), 0) AS "everywhere!", MAX(last_at) AS everywhere_at,
                  COUNT(*) FILTER (WHERE last_at > $4) AS "accounts!",
                  (SELECT until FROM login_waits WHERE source = $1) AS until
           FROM login_failures WHERE source = $1 AND last_at > $3"#,
        source,
        account,
        since,
        lately
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Tried {
        here: row.here,
        here_at: row.here_at,
        everywhere: row.everywhere,
        everywhere_at: row.everywhere_at,
        accounts: row.accounts,
        until: row.until,
    })
}

/// One more failure. Those at the account before `since` no longer count.
pub async fn count(
    tx: &mut PlatformTx,
    source: &str,
    account: &[u8],
    user: Option<UserId>,
    (now, since): (OffsetDateTime, OffsetDateTime),
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO login_failures (source, account, user_id, failures, last_at) VALUES ($1, $2, $3, 1, $4)
         ON CONFLICT (source, account) DO UPDATE SET user_id = $3, last_at = $4,
             failures = CASE WHEN login_failures.last_at < $5 THEN 1 ELSE login_failures.failures + 1 END",
        source,
        account,
        user.map(|user| user.0),
        now,
        since
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Makes a source wait, whatever becomes of the counts.
pub async fn make_wait(tx: &mut PlatformTx, source: &str, until: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO login_waits (source, until) VALUES ($1, $2)
         ON CONFLICT (source) DO UPDATE SET until = GREATEST(login_waits.until, $2)",
        source,
        until
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets what failed at an account from a source, and nothing else.
pub async fn clear(tx: &mut PlatformTx, source: &str, account: &[u8]) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM login_failures WHERE source = $1 AND account = $2", source, account)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The people at whose accounts a source has failed since, and how often.
pub async fn people(
    tx: &mut PlatformTx,
    source: &str,
    since: OffsetDateTime,
) -> Result<Vec<(UserId, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id!", SUM(failures) AS "failures!" FROM login_failures
           WHERE source = $1 AND last_at > $2 AND user_id IS NOT NULL GROUP BY user_id"#,
        source,
        since
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (UserId(row.user_id), row.failures)).collect())
}

/// Keeps a pass under the hash of its token.
pub async fn insert_pass(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    user: UserId,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO login_passes (token_hash, user_id, expires_at) VALUES ($1, $2, $3)",
        token_hash,
        user.0,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Tries with a pass, which takes `most` of them; `false` when it isn't the person's, or is over.
pub async fn try_pass(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    user: UserId,
    most: i32,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE login_passes SET tries = tries + 1 WHERE token_hash = $1 AND user_id = $2 AND tries < $3 AND expires_at > $4",
        token_hash,
        user.0,
        most,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all passes of a person.
pub async fn delete_passes(tx: &mut PlatformTx, user: UserId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM login_passes WHERE user_id = $1", user.0).execute(tx.conn()).await?;
    Ok(())
}

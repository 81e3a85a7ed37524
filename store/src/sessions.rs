//! Sessions by the hash of their token.

use policy::ids::UserId;
use serde_json::Value;
use time::OffsetDateTime;

use crate::db::{PlatformTx, Store, StoreError};

/// A stored session.
#[derive(Debug)]
pub struct SessionRow {
    /// What it holds.
    pub data: Value,
    /// When it began; the absolute limit counts from here.
    pub created_at: OffsetDateTime,
    /// When it ends if nobody uses it.
    pub expires_at: OffsetDateTime,
}

/// The session of a token, unless it has ended.
pub async fn load(store: &Store, token_hash: &[u8], now: OffsetDateTime) -> Result<Option<SessionRow>, StoreError> {
    let mut tx = store.platform().await?;
    let row = sqlx::query_as!(
        SessionRow,
        "SELECT data, created_at, expires_at FROM sessions WHERE token_hash = $1 AND expires_at > $2",
        token_hash,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(row)
}

/// Makes a session; `false` when there is one of that token.
pub async fn create(
    store: &Store,
    token_hash: &[u8],
    user: Option<UserId>,
    data: &Value,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut tx = store.platform().await?;
    let done = sqlx::query!(
        "INSERT INTO sessions (token_hash, user_id, data, created_at, expires_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        token_hash,
        user.map(|user| user.0),
        data,
        now,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Changes a session that still is; `false` when it has ended meanwhile: an ended session never comes back.
pub async fn update(
    store: &Store,
    token_hash: &[u8],
    user: Option<UserId>,
    data: &Value,
    expires_at: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut tx = store.platform().await?;
    let done = sqlx::query!(
        "UPDATE sessions SET user_id = $2, data = $3, expires_at = $4 WHERE token_hash = $1",
        token_hash,
        user.map(|user| user.0),
        data,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a session.
pub async fn delete(store: &Store, token_hash: &[u8]) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    sqlx::query!("DELETE FROM sessions WHERE token_hash = $1", token_hash).execute(tx.conn()).await?;
    tx.commit().await
}

/// Ends all sessions of a person.
pub async fn delete_of_user(tx: &mut PlatformTx, user: UserId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM sessions WHERE user_id = $1", user.0).execute(tx.conn()).await?;
    Ok(())
}

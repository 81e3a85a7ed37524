//! Sessions by the hash of their token, and, for people, by their id. What a session holds is JSON: `login` (who, how far, in which
//! tenant) and, once that is complete, `origin`.

use policy::ids::{SessionId, UserId};
use policy::sessions::{Origin, Session};
use serde_json::Value;
use time::OffsetDateTime;

use crate::db::{PlatformTx, Store, StoreError, TenantTx};

/// A stored session.
#[derive(Debug)]
pub struct SessionRow {
    /// What it holds.
    pub data: Value,
    /// When it began; the absolute limit counts from here.
    pub created_at: OffsetDateTime,
    /// When it ends if nobody uses it.
    pub expires_at: OffsetDateTime,
    /// When it was last used.
    pub last_seen_at: OffsetDateTime,
}

/// The session of a token, unless it has ended.
pub async fn load(store: &Store, token_hash: &[u8], now: OffsetDateTime) -> Result<Option<SessionRow>, StoreError> {
    let mut tx = store.platform().await?;
    let row = sqlx::query_as!(
        SessionRow,
        "SELECT s.data, s.created_at, s.expires_at, s.last_seen_at FROM sessions s LEFT JOIN users u ON u.id = s.user_id
         WHERE s.token_hash = $1 AND s.expires_at > $2 AND (u.sessions_since IS NULL OR s.created_at >= u.sessions_since)",
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
    began: OffsetDateTime,
    expires_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut tx = store.platform().await?;
    let done = sqlx::query!(
        "INSERT INTO sessions (token_hash, user_id, data, created_at, expires_at, last_seen_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        token_hash,
        user.map(|user| user.0),
        data,
        began,
        expires_at,
        now
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
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut tx = store.platform().await?;
    let done = sqlx::query!(
        "UPDATE sessions SET user_id = $2, data = $3, expires_at = $4, last_seen_at = $5 WHERE token_hash = $1",
        token_hash,
        user.map(|user| user.0),
        data,
        expires_at,
        now
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

/// Ends all sessions of a person that have begun by now, to the second.
pub async fn delete_of_user(tx: &mut PlatformTx, user: UserId, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!("UPDATE users SET sessions_since = date_trunc('second', $2::timestamptz) WHERE id = $1", user.0, now)
        .execute(tx.conn())
        .await?;
    sqlx::query!("DELETE FROM sessions WHERE user_id = $1", user.0).execute(tx.conn()).await?;
    Ok(())
}

struct Listed {
    email: String,
    origin: Value,
    created_at: OffsetDateTime,
    last_seen_at: OffsetDateTime,
}

impl Listed {
    /// Sessions that began before origins were kept are over within hours.
    fn session(self, this: Option<SessionId>) -> Option<Session> {
        let Self { email, origin, created_at, last_seen_at } = self;
        let origin: Origin = serde_json::from_value(origin).ok()?;
        let is_this = Some(origin.id) == this;
        Some(Session { email, origin, began_at: created_at, seen_at: last_seen_at, is_this })
    }
}

/// The complete sessions of a person that aren't over, in whichever tenant, the last used first.
pub async fn of_person(
    tx: &mut PlatformTx,
    user: UserId,
    this: Option<SessionId>,
    now: OffsetDateTime,
) -> Result<Vec<Session>, StoreError> {
    let rows = sqlx::query_as!(
        Listed,
        r#"SELECT u.email, s.data -> 'origin' AS "origin!", s.created_at, s.last_seen_at
           FROM sessions s JOIN users u ON u.id = s.user_id
           WHERE s.user_id = $1 AND s.expires_at > $2 AND s.data ? 'origin' ORDER BY s.last_seen_at DESC, u.email LIMIT 1000"#,
        user.0,
        now
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(|row| row.session(this)).collect())
}

/// The complete sessions in the transaction's tenant that aren't over, the last used first.
pub async fn in_tenant(
    tx: &mut TenantTx,
    this: Option<SessionId>,
    now: OffsetDateTime,
) -> Result<Vec<Session>, StoreError> {
    let tenant = tx.tenant().to_string();
    let rows = sqlx::query_as!(
        Listed,
        r#"SELECT u.email, s.data -> 'origin' AS "origin!", s.created_at, s.last_seen_at
           FROM sessions s JOIN users u ON u.id = s.user_id
           WHERE s.data -> 'login' ->> 'tenant_id' = $1 AND s.expires_at > $2 AND s.data ? 'origin'
           ORDER BY s.last_seen_at DESC, u.email LIMIT 1000"#,
        tenant,
        now
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(|row| row.session(this)).collect())
}

/// The addresses from which people work in the tenant.
pub async fn addresses(tx: &mut TenantTx, now: OffsetDateTime) -> Result<Vec<String>, StoreError> {
    let tenant = tx.tenant().to_string();
    Ok(sqlx::query_scalar!(
        r#"SELECT DISTINCT data -> 'origin' ->> 'address' AS "address!" FROM sessions
           WHERE data -> 'login' ->> 'tenant_id' = $1 AND data -> 'origin' ->> 'address' IS NOT NULL AND expires_at > $2"#,
        tenant,
        now
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Whose session in the transaction's tenant that is.
pub async fn owner_in_tenant(tx: &mut TenantTx, id: SessionId) -> Result<Option<UserId>, StoreError> {
    let tenant = tx.tenant().to_string();
    let owner = sqlx::query_scalar!(
        "SELECT user_id FROM sessions WHERE data -> 'login' ->> 'tenant_id' = $1 AND data -> 'origin' ->> 'id' = $2",
        tenant,
        id.to_string()
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(owner.flatten().map(UserId))
}

/// Ends one session of a person; answers what it was.
pub async fn end(tx: &mut PlatformTx, user: UserId, id: SessionId) -> Result<Option<Origin>, StoreError> {
    let origin = sqlx::query_scalar!(
        r#"DELETE FROM sessions WHERE user_id = $1 AND data -> 'origin' ->> 'id' = $2 RETURNING data -> 'origin' AS "origin!""#,
        user.0,
        id.to_string()
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(origin.and_then(|origin| serde_json::from_value(origin).ok()))
}

/// Ends all sessions of a person but one, logins in progress included.
pub async fn end_others(tx: &mut PlatformTx, user: UserId, kept: SessionId) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM sessions WHERE user_id = $1 AND data -> 'origin' ->> 'id' IS DISTINCT FROM $2",
        user.0,
        kept.to_string()
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

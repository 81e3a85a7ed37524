//! Mail to send: a row written in the transaction that causes it, delivered by a job.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{PlatformTx, Store, StoreError};

/// A mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its id.
    pub id: Uuid,
    /// To whom.
    pub recipient: String,
    /// Subject line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// How often its delivery was tried, this time included; at most [`MOST_TRIES`].
    pub tries: i32,
}

/// Queues a mail.
pub async fn insert(
    tx: &mut PlatformTx,
    recipient: &str,
    subject: &str,
    body: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO mails (id, recipient, subject, body, created_at, next_try_at) VALUES ($1, $2, $3, $4, $5, $5)",
        Uuid::now_v7(),
        recipient,
        subject,
        body,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How often the delivery of a mail is tried.
pub const MOST_TRIES: i32 = 14;

/// Takes the mail that has been due for the longest, and puts its next try off to `retry_at`, so that no other node takes it
/// meanwhile.
pub async fn take_due(
    store: &Store,
    now: OffsetDateTime,
    retry_at: OffsetDateTime,
) -> Result<Option<Mail>, StoreError> {
    let mut tx = store.platform().await?;
    let mail = sqlx::query_as!(
        Mail,
        "UPDATE mails SET next_try_at = $2, tries = tries + 1
         WHERE id = (SELECT id FROM mails WHERE sent_at IS NULL AND next_try_at <= $1 AND tries < $3 ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING id, recipient, subject, body, created_at, tries",
        now,
        retry_at,
        MOST_TRIES
    )
    .fetch_optional(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(mail)
}

/// Marks a mail as sent and forgets its text, which holds a token.
pub async fn sent(store: &Store, id: Uuid, now: OffsetDateTime) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    sqlx::query!("UPDATE mails SET sent_at = $2, body = '' WHERE id = $1", id, now).execute(tx.conn()).await?;
    tx.commit().await
}

/// Notes why a mail was not sent and when to try again.
pub async fn failed(store: &Store, id: Uuid, error: &str, retry_at: OffsetDateTime) -> Result<(), StoreError> {
    let mut tx = store.platform().await?;
    sqlx::query!("UPDATE mails SET last_error = $2, next_try_at = $3 WHERE id = $1", id, error, retry_at)
        .execute(tx.conn())
        .await?;
    tx.commit().await
}

/// How many mails are still to be delivered, and how many were given up.
pub async fn backlog(store: &Store) -> Result<(i64, i64), StoreError> {
    let mut tx = store.platform().await?;
    let row = sqlx::query!(
        r#"SELECT COUNT(*) FILTER (WHERE tries < $1) AS "waiting!", COUNT(*) FILTER (WHERE tries >= $1) AS "given_up!"
           FROM mails WHERE sent_at IS NULL"#,
        MOST_TRIES
    )
    .fetch_one(tx.conn())
    .await?;
    tx.commit().await?;
    Ok((row.waiting, row.given_up))
}

/// The newest mails that were not sent; for the development mailbox.
pub async fn newest(store: &Store, limit: i64) -> Result<Vec<Mail>, StoreError> {
    let mut tx = store.platform().await?;
    let mails = sqlx::query_as!(
        Mail,
        "SELECT id, recipient, subject, body, created_at, tries FROM mails WHERE sent_at IS NULL ORDER BY id DESC LIMIT $1",
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(mails)
}

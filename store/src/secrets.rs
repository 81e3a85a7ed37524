//! Secrets of the installation, sealed; this module sees only the sealed bytes.

use time::OffsetDateTime;

use crate::db::{PlatformTx, StoreError};

/// A sealed secret and the id of the key that opens it.
#[derive(Debug)]
pub struct SealedSecret {
    /// Id of the master key.
    pub key_id: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// The secret of a name.
pub async fn get(tx: &mut PlatformTx, name: &str) -> Result<Option<SealedSecret>, StoreError> {
    Ok(sqlx::query_as!(SealedSecret, "SELECT key_id, sealed FROM platform_secrets WHERE name = $1", name)
        .fetch_optional(tx.conn())
        .await?)
}

/// Keeps a secret unless there is one of that name; of two nodes that start at once, one wins.
pub async fn put_new(
    tx: &mut PlatformTx,
    name: &str,
    secret: &SealedSecret,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO platform_secrets (name, key_id, sealed, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
        name,
        secret.key_id,
        secret.sealed,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

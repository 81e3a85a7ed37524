//! Invitations to the transaction's tenant.

use policy::authz::Role;
use policy::ids::InvitationId;
use policy::people::Invitation;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{PlatformTx, StoreError, TenantTx};

struct Row {
    id: Uuid,
    email: String,
    role: String,
    invited_by: String,
    expires_at: OffsetDateTime,
}

impl Row {
    /// The column's check lets no other roles in.
    fn invitation(self) -> Option<Invitation> {
        let Self { id, email, role, invited_by, expires_at } = self;
        Some(Invitation { id: InvitationId(id), email, role: Role::from_name(&role)?, invited_by, expires_at })
    }
}

/// All of them, by e-mail address.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Invitation>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, email, role, invited_by, expires_at FROM invitations ORDER BY email LIMIT 2000"
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::invitation).collect())
}

/// Keeps one under the hash of its token. A second one for an e-mail address conflicts with `invitations_email_key`.
pub async fn insert(
    tx: &mut TenantTx,
    invitation: &Invitation,
    token_hash: &[u8],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "INSERT INTO invitations (tenant_id, id, email, role, token_hash, invited_by, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        tenant,
        invitation.id.0,
        invitation.email,
        invitation.role.as_str(),
        token_hash,
        invitation.invited_by,
        now,
        invitation.expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// One of them.
pub async fn by_id(tx: &mut TenantTx, id: InvitationId) -> Result<Option<Invitation>, StoreError> {
    let row =
        sqlx::query_as!(Row, "SELECT id, email, role, invited_by, expires_at FROM invitations WHERE id = $1", id.0)
            .fetch_optional(tx.conn())
            .await?;
    Ok(row.and_then(Row::invitation))
}

/// The one of a token, while its time lasts.
pub async fn by_token(
    tx: &mut TenantTx,
    token_hash: &[u8],
    now: OffsetDateTime,
) -> Result<Option<Invitation>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, email, role, invited_by, expires_at FROM invitations WHERE token_hash = $1 AND expires_at > $2",
        token_hash,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(Row::invitation))
}

/// Whether a person is invited to any tenant. The transaction must be of [`crate::Store::person`].
pub async fn any_open(tx: &mut PlatformTx, email: &str, now: OffsetDateTime) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM invitations WHERE email = $1 AND expires_at > $2) AS "invited!""#,
        email,
        now
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Those that somebody has sent.
pub async fn sent_by(tx: &mut TenantTx, email: &str) -> Result<Vec<Invitation>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, email, role, invited_by, expires_at FROM invitations WHERE invited_by = $1 ORDER BY email",
        email
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::invitation).collect())
}

/// Gives one another token, another end and another sender; `false` when it is gone.
pub async fn renew(tx: &mut TenantTx, invitation: &Invitation, token_hash: &[u8]) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE invitations SET token_hash = $2, expires_at = $3, invited_by = $4 WHERE id = $1",
        invitation.id.0,
        token_hash,
        invitation.expires_at,
        invitation.invited_by
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Uses up the one of a token, while its time lasts.
pub async fn take(tx: &mut TenantTx, token_hash: &[u8], now: OffsetDateTime) -> Result<Option<Invitation>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "DELETE FROM invitations WHERE token_hash = $1 AND expires_at > $2 RETURNING id, email, role, invited_by, expires_at",
        token_hash,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(Row::invitation))
}

/// Deletes one; `false` when it is gone.
pub async fn delete(tx: &mut TenantTx, id: InvitationId) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM invitations WHERE id = $1", id.0).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

//! People: accounts, memberships, recovery codes, sign-ups, password resets, and guesses at codes.

use policy::account::Membership;
use policy::authz::Role;
use policy::ids::{TenantId, UserId};
use time::OffsetDateTime;

use crate::db::{PlatformTx, StoreError};

/// An account.
#[derive(Debug, Clone)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// E-mail address, lower case.
    pub email: String,
    /// PHC string.
    pub password_hash: String,
    /// The sealed TOTP seed and the id of the key that opens it, once its set-up was proven.
    pub totp: Option<(Vec<u8>, String)>,
}

/// The account of an e-mail address.
pub async fn by_email(tx: &mut PlatformTx, email: &str) -> Result<Option<User>, StoreError> {
    let row =
        sqlx::query!("SELECT id, email, password_hash, totp_sealed, totp_key_id FROM users WHERE email = $1", email)
            .fetch_optional(tx.conn())
            .await?;
    Ok(row.map(|row| User {
        id: row.id.into(),
        email: row.email,
        password_hash: row.password_hash,
        totp: row.totp_sealed.zip(row.totp_key_id),
    }))
}

/// The account of an id.
pub async fn by_id(tx: &mut PlatformTx, id: UserId) -> Result<Option<User>, StoreError> {
    let row = sqlx::query!("SELECT id, email, password_hash, totp_sealed, totp_key_id FROM users WHERE id = $1", id.0)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.map(|row| User {
        id: row.id.into(),
        email: row.email,
        password_hash: row.password_hash,
        totp: row.totp_sealed.zip(row.totp_key_id),
    }))
}

/// Makes an account. An e-mail address that is taken conflicts with `users_email_key`.
pub async fn insert(
    tx: &mut PlatformTx,
    id: UserId,
    email: &str,
    password_hash: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO users (id, email, password_hash, created_at) VALUES ($1, $2, $3, $4)",
        id.0,
        email,
        password_hash,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Sets a password.
pub async fn set_password(tx: &mut PlatformTx, id: UserId, password_hash: &str) -> Result<(), StoreError> {
    sqlx::query!("UPDATE users SET password_hash = $2 WHERE id = $1", id.0, password_hash).execute(tx.conn()).await?;
    Ok(())
}

/// Keeps a TOTP seed that was proven with the code of `step`. Never replaces one; answers whether it was kept.
pub async fn set_totp(
    tx: &mut PlatformTx,
    id: UserId,
    sealed: &[u8],
    key_id: &str,
    step: i64,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE users SET totp_sealed = $2, totp_key_id = $3, totp_last_step = $4, totp_confirmed_at = $5
         WHERE id = $1 AND totp_sealed IS NULL",
        id.0,
        sealed,
        key_id,
        step,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Uses a TOTP step up: `false` when it, or a later one, was used before (RFC 6238 §5.2).
pub async fn use_totp_step(tx: &mut PlatformTx, id: UserId, step: i64) -> Result<bool, StoreError> {
    let done = sqlx::query!("UPDATE users SET totp_last_step = $2 WHERE id = $1 AND totp_last_step < $2", id.0, step)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces all recovery codes.
pub async fn set_recovery_codes(tx: &mut PlatformTx, id: UserId, hashes: &[Vec<u8>]) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM recovery_codes WHERE user_id = $1", id.0).execute(tx.conn()).await?;
    sqlx::query!(
        "INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, hash FROM unnest($2::bytea[]) AS hash",
        id.0,
        hashes
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Uses a recovery code up; `false` when there is no such one left.
pub async fn use_recovery_code(
    tx: &mut PlatformTx,
    id: UserId,
    hash: &[u8],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE recovery_codes SET used_at = $3 WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL",
        id.0,
        hash,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The tenant that a person used last, of those that she has access to. The transaction must be of [`crate::Store::person`].
pub async fn last_tenant(tx: &mut PlatformTx, user: UserId) -> Result<Option<TenantId>, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT tenant_id FROM memberships WHERE user_id = $1 AND suspended_at IS NULL
         ORDER BY last_used_at DESC NULLS LAST, created_at, tenant_id LIMIT 1",
        user.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(TenantId))
}

/// The tenants that a person belongs to, also where her access is suspended. The transaction must be of [`crate::Store::person`].
pub async fn tenants(tx: &mut PlatformTx, user: UserId) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar!("SELECT tenant_id FROM memberships WHERE user_id = $1 ORDER BY tenant_id", user.0)
        .fetch_all(tx.conn())
        .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// The tenants that a person has access to, by name. The transaction must be of [`crate::Store::person`].
pub async fn memberships(tx: &mut PlatformTx, user: UserId) -> Result<Vec<Membership>, StoreError> {
    let rows = sqlx::query!(
        "SELECT t.id, t.name, t.slug, m.role FROM memberships m JOIN tenants t ON t.id = m.tenant_id WHERE m.user_id = $1 AND m.suspended_at IS NULL ORDER BY t.name, t.id",
        user.0
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let role = Role::from_name(&row.role)?;
            Some(Membership { tenant_id: TenantId(row.id), tenant_name: row.name, slug: row.slug, role })
        })
        .collect())
}

/// A wish for a new tenant that waits for its mail's link.
#[derive(Debug)]
pub struct SignUp {
    /// The organisation's name.
    pub organisation: String,
    /// Its short name.
    pub slug: String,
    /// The person's e-mail address.
    pub email: String,
    /// PHC string.
    pub password_hash: String,
}

/// Keeps a sign-up under the hash of its token.
pub async fn insert_sign_up(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    sign_up: &SignUp,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO sign_ups (token_hash, organisation, slug, email, password_hash, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        token_hash,
        sign_up.organisation,
        sign_up.slug,
        sign_up.email,
        sign_up.password_hash,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The sign-up of a token, without using it up.
pub async fn find_sign_up(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    now: OffsetDateTime,
) -> Result<Option<SignUp>, StoreError> {
    Ok(sqlx::query_as!(
        SignUp,
        "SELECT organisation, slug, email, password_hash FROM sign_ups WHERE token_hash = $1 AND expires_at > $2",
        token_hash,
        now
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Uses a sign-up's token up; `false` when somebody was faster or its time is over.
pub async fn take_sign_up(tx: &mut PlatformTx, token_hash: &[u8], now: OffsetDateTime) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM sign_ups WHERE token_hash = $1 AND expires_at > $2", token_hash, now)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a short name is taken, as far as verified tenants go. Needs no tenant: short names are public.
pub async fn slug_taken(tx: &mut PlatformTx, slug: &str) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM slugs WHERE slug = $1) AS "taken!""#, slug)
        .fetch_one(tx.conn())
        .await?)
}

/// Keeps a wish to set a new password under the hash of its token.
pub async fn insert_reset(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    user: UserId,
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO password_resets (token_hash, user_id, expires_at) VALUES ($1, $2, $3)",
        token_hash,
        user.0,
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whose reset a token is, without using it up.
pub async fn find_reset(
    tx: &mut PlatformTx,
    token_hash: &[u8],
    now: OffsetDateTime,
) -> Result<Option<UserId>, StoreError> {
    let id = sqlx::query_scalar!(
        "SELECT user_id FROM password_resets WHERE token_hash = $1 AND expires_at > $2",
        token_hash,
        now
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(UserId))
}

/// Uses a token up; `false` when somebody was faster.
pub async fn take_reset(tx: &mut PlatformTx, token_hash: &[u8]) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM password_resets WHERE token_hash = $1", token_hash).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all resets of a person.
pub async fn delete_resets(tx: &mut PlatformTx, user: UserId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM password_resets WHERE user_id = $1", user.0).execute(tx.conn()).await?;
    Ok(())
}

/// Others who guess at the subject wait until the transaction ends; also when nobody has failed yet and there is no row to lock.
pub async fn lock_guesses(tx: &mut PlatformTx, subject: &str) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", subject).fetch_one(tx.conn()).await?;
    Ok(())
}

/// Failures at guessing a subject and when the last one was.
pub async fn guesses(tx: &mut PlatformTx, subject: &str) -> Result<Option<(i32, OffsetDateTime)>, StoreError> {
    let row = sqlx::query!("SELECT failures, last_at FROM guesses WHERE subject = $1", subject)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.map(|row| (row.failures, row.last_at)))
}

/// One more failure. Failures older than `forget_before` no longer count.
pub async fn count_guess(
    tx: &mut PlatformTx,
    subject: &str,
    now: OffsetDateTime,
    forget_before: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO guesses (subject, failures, last_at) VALUES ($1, 1, $2)
         ON CONFLICT (subject) DO UPDATE SET last_at = $2, failures = CASE WHEN guesses.last_at < $3 THEN 1 ELSE guesses.failures + 1 END",
        subject,
        now,
        forget_before
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets the failures of a subject.
pub async fn clear_guesses(tx: &mut PlatformTx, subject: &str) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM guesses WHERE subject = $1", subject).execute(tx.conn()).await?;
    Ok(())
}

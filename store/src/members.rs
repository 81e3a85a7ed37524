//! Who has access to the transaction's tenant.

use policy::authz::Role;
use policy::ids::UserId;
use policy::people::Person;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{StoreError, TenantTx};

struct Row {
    id: Uuid,
    email: String,
    role: String,
    since: OffsetDateTime,
    invited_by: String,
    last_used_at: Option<OffsetDateTime>,
    suspended: bool,
    second_factor: bool,
}

impl Row {
    /// The column's check lets no other roles in.
    fn person(self) -> Option<Person> {
        let Self { id, email, role, since, invited_by, last_used_at, suspended, second_factor } = self;
        let role = Role::from_name(&role)?;
        Some(Person { id: UserId(id), email, role, since, invited_by, last_used_at, suspended, second_factor })
    }
}

/// All of them, by e-mail address.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Person>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT u.id, u.email, m.role, m.created_at AS since, m.invited_by, m.last_used_at,
                  m.suspended_at IS NOT NULL AS "suspended!", u.totp_sealed IS NOT NULL AS "second_factor!"
           FROM memberships m JOIN users u ON u.id = m.user_id ORDER BY u.email LIMIT 2000"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(Row::person).collect())
}

/// The one with an e-mail address.
pub async fn by_email(tx: &mut TenantTx, email: &str) -> Result<Option<Person>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT u.id, u.email, m.role, m.created_at AS since, m.invited_by, m.last_used_at,
                  m.suspended_at IS NOT NULL AS "suspended!", u.totp_sealed IS NOT NULL AS "second_factor!"
           FROM memberships m JOIN users u ON u.id = m.user_id WHERE u.email = $1"#,
        email
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(Row::person))
}

/// One of them.
pub async fn by_id(tx: &mut TenantTx, user: UserId) -> Result<Option<Person>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT u.id, u.email, m.role, m.created_at AS since, m.invited_by, m.last_used_at,
                  m.suspended_at IS NOT NULL AS "suspended!", u.totp_sealed IS NOT NULL AS "second_factor!"
           FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.user_id = $1"#,
        user.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.and_then(Row::person))
}

/// Gives a person access. One who is a member conflicts with `memberships_pkey`.
pub async fn insert(
    tx: &mut TenantTx,
    user: UserId,
    role: Role,
    invited_by: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "INSERT INTO memberships (tenant_id, user_id, role, invited_by, created_at) VALUES ($1, $2, $3, $4, $5)",
        tenant,
        user.0,
        role.as_str(),
        invited_by,
        now
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What somebody who can log in is at this moment. Whoever is about to change that is waited for, and waits until the transaction ends.
pub async fn role_now(tx: &mut TenantTx, user: UserId) -> Result<Option<Role>, StoreError> {
    let role = sqlx::query_scalar!(
        "SELECT role FROM memberships WHERE user_id = $1 AND suspended_at IS NULL FOR SHARE",
        user.0
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(role.and_then(|role| Role::from_name(&role)))
}

/// How many people have access or are invited.
pub async fn count(tx: &mut TenantTx) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT (SELECT count(*) FROM memberships) + (SELECT count(*) FROM invitations) AS "count!""#
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Whoever else wants to change a Super administrator who can log in waits until the transaction ends.
pub async fn lock_owners(tx: &mut TenantTx) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT user_id FROM memberships WHERE role = 'super_administrator' AND suspended_at IS NULL ORDER BY user_id FOR UPDATE"
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(())
}

/// Gives somebody a role.
pub async fn set_role(tx: &mut TenantTx, user: UserId, role: Role) -> Result<(), StoreError> {
    sqlx::query!("UPDATE memberships SET role = $2 WHERE user_id = $1", user.0, role.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Suspends somebody, or, with `None`, reinstates her.
pub async fn set_suspended(tx: &mut TenantTx, user: UserId, at: Option<OffsetDateTime>) -> Result<(), StoreError> {
    sqlx::query!("UPDATE memberships SET suspended_at = $2 WHERE user_id = $1", user.0, at).execute(tx.conn()).await?;
    Ok(())
}

/// Notes that somebody has logged in here.
pub async fn used(tx: &mut TenantTx, user: UserId, at: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query!("UPDATE memberships SET last_used_at = $2 WHERE user_id = $1", user.0, at).execute(tx.conn()).await?;
    Ok(())
}

/// Takes somebody's access away.
pub async fn remove(tx: &mut TenantTx, user: UserId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM memberships WHERE user_id = $1", user.0).execute(tx.conn()).await?;
    Ok(())
}

/// Ends the sessions of a person that are in the tenant.
pub async fn end_sessions(tx: &mut TenantTx, user: UserId) -> Result<u64, StoreError> {
    let tenant = tx.tenant().to_string();
    let done = sqlx::query!(
        "DELETE FROM sessions WHERE user_id = $1 AND data -> 'login' ->> 'tenant_id' = $2",
        user.0,
        tenant
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

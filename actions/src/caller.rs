//! Who asks: a visitor with or without a session, and a caller whose place in a tenant has been looked up.

use std::net::IpAddr;

use policy::account::{FRESH_MINUTES, Stage};
use policy::authz::Role;
use policy::ids::{TenantId, UserId};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::ctx::Ctx;
use crate::error::ActError;

/// What a session holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The person.
    pub user_id: UserId,
    /// How far the login has come.
    pub stage: Stage,
    /// The tenant worked in.
    pub tenant_id: Option<TenantId>,
    /// When the second factor was last shown.
    #[serde(default, with = "time::serde::timestamp::option")]
    pub proven_at: Option<OffsetDateTime>,
    /// The TOTP seed of a set-up under way. Kept here and not with the person, so that nobody else who has come as far as
    /// the password is ever shown the seed that she then proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<UnprovenSeed>,
}

impl Login {
    /// A login that lacks something.
    pub fn lacking(stage: Stage, user_id: UserId) -> Self {
        Self { user_id, stage, tenant_id: None, proven_at: None, setup: None }
    }

    /// A complete login, whose second factor was shown at this moment.
    pub fn complete(user_id: UserId, tenant_id: Option<TenantId>, now: OffsetDateTime) -> Self {
        Self { user_id, stage: Stage::SignedIn, tenant_id, proven_at: Some(now), setup: None }
    }
}

/// A sealed TOTP seed that no code has been shown for yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnprovenSeed {
    /// Base64 of the sealed seed.
    pub(crate) sealed: String,
    /// The key that opens it.
    pub(crate) key_id: String,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// From where.
    pub address: IpAddr,
    /// What the session holds, if there is one.
    pub login: Option<Login>,
}

impl Visitor {
    /// The person, once the password was right.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub(crate) fn person(&self) -> Result<&Login, ActError> {
        self.login.as_ref().filter(|login| login.stage != Stage::SignedOut).ok_or(ActError::SignedOut)
    }

    /// The person, once the login is complete.
    ///
    /// # Errors
    /// When nobody is logged in or the second factor is missing.
    pub(crate) fn complete(&self) -> Result<&Login, ActError> {
        let login = self.person()?;
        match login.stage {
            Stage::SignedIn => Ok(login),
            Stage::NeedsCode | Stage::NeedsTotpSetup => Err(ActError::SecondFactorNeeded),
            Stage::SignedOut => Err(ActError::SignedOut),
        }
    }
}

/// A person in a tenant, as the database has it at this moment.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The person.
    pub user_id: UserId,
    /// Her e-mail address; the actor of audit rows.
    pub email: String,
    /// The tenant worked in.
    pub tenant_id: TenantId,
    /// What she is there.
    pub role: Role,
    /// From where the request came.
    pub address: IpAddr,
    /// When she last showed her second factor.
    pub proven_at: Option<OffsetDateTime>,
}

impl Caller {
    /// Whether her second factor was shown lately enough for what asks for a fresh one.
    pub(crate) fn is_fresh(&self, now: OffsetDateTime) -> bool {
        self.proven_at.is_some_and(|at| now - at < Duration::minutes(FRESH_MINUTES))
    }
}

/// Looks up who a visitor is in the tenant of the session. Done for every request, so that a role that was taken away is gone.
///
/// # Errors
/// When nobody is logged in, the second factor is missing, or the person is no longer in the tenant.
pub async fn caller(ctx: &Ctx, visitor: &Visitor) -> Result<Caller, ActError> {
    let login = visitor.complete()?;
    let mut tx = ctx.store().person(login.user_id).await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    let memberships = store::people::memberships(&mut tx, login.user_id).await?;
    tx.commit().await?;
    let current = memberships
        .into_iter()
        .find(|membership| Some(membership.tenant_id) == login.tenant_id)
        .ok_or(ActError::SignedOut)?;
    Ok(Caller {
        user_id: user.id,
        email: user.email,
        tenant_id: current.tenant_id,
        role: current.role,
        address: visitor.address,
        proven_at: login.proven_at,
    })
}

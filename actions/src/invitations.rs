//! The other end of an invitation: who has the link of the mail comes as somebody new, or with the account that she has.

use policy::account::Stage;
use policy::authz::Operation;
use policy::ids::UserId;
use policy::people::{Invitation, Offer};
use store::people::User;
use store::{StoreError, TenantTx};
use uuid::Uuid;

use crate::act::{Act, Actor};
use crate::bus::Topic;
use crate::caller::{Login, Visitor};
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{account, tokens};

/// What an invitation offers.
pub async fn show(ctx: &Ctx, visitor: &Visitor, link: &str) -> Result<Offer, ActError> {
    let (mut tx, Invitation { email, role, invited_by, .. }) = find(ctx, link).await?.ok_or_else(spent_link)?;
    let organisation = store::tenants::name(&mut tx).await?.ok_or(ActError::NotFound)?;
    let has_account = store::people::by_email(&mut tx, &email).await?.is_some();
    let signed_in_as = match visitor.complete() {
        Ok(login) => store::people::by_id(&mut tx, login.user_id).await?.map(|user| user.email),
        Err(_) => None,
    };
    tx.commit().await?;
    Ok(Offer { organisation, email, role, invited_by, has_account, signed_in_as })
}

/// Accepts it as somebody new, who sets up her second factor next.
pub async fn accept(ctx: &Ctx, visitor: &Visitor, link: &str, password: &str) -> Result<Login, ActError> {
    let operation = Operation::AcceptInvitation;
    let Some((mut tx, invitation)) = find(ctx, link).await? else {
        return account::log_installation(ctx, visitor, operation, "", Err(spent_link())).await;
    };
    let organisation = store::tenants::name(&mut tx).await?.ok_or(ActError::NotFound)?;
    let known = store::people::by_email(&mut tx, &invitation.email).await?.is_some();
    // No connection is held while a password waits to be hashed.
    let tenant_id = tx.tenant();
    tx.commit().await?;
    let hashed = if known {
        Err(ActError::Refused("This e-mail address has an account. Log in with it to accept.".to_owned()))
    } else {
        let words = [invitation.email.clone(), organisation, "ringfence".to_owned()];
        match ctx.passwords().check_new(password, &words).await? {
            Ok(()) => ctx.passwords().hash(password).await,
            Err(message) => Err(ActError::field("password", message)),
        }
    };
    let actor = Actor { tenant_id, name: invitation.email.clone(), address: Some(visitor.address) };
    let mut act = Act::begin_as(ctx, actor, operation).await?;
    act.subject(&invitation.email);
    let result = match hashed {
        Ok(hash) => accept_inner(&mut act, link, &hash).await,
        Err(error) => Err(error),
    };
    let user_id = act.finish(result).await?;
    Ok(Login::lacking(Stage::NeedsTotpSetup, user_id))
}

async fn accept_inner(act: &mut Act<'_>, link: &str, password_hash: &str) -> Result<UserId, ActError> {
    let invitation = take(act, link).await?;
    let user = UserId(Uuid::now_v7());
    let now = act.now;
    match store::people::insert(&mut act.tx, user, &invitation.email, password_hash, now).await {
        Err(StoreError::Conflict { constraint }) if constraint == "users_email_key" => {
            return Err(ActError::Refused("This e-mail address has an account by now. Log in with it.".to_owned()));
        }
        inserted => inserted?,
    }
    add_member(act, user, &invitation).await?;
    Ok(user)
}

/// Accepts it with the account of the session, which works in that tenant from then on.
pub async fn join(ctx: &Ctx, visitor: &Visitor, link: &str) -> Result<Login, ActError> {
    let login = visitor.complete()?.clone();
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    let operation = Operation::JoinTenant;
    // Who has no invitation there leaves no row there.
    let Some((tx, invitation)) = find(ctx, link).await? else {
        return account::log_installation(ctx, visitor, operation, &user.email, Err(spent_link())).await;
    };
    let actor = Actor { tenant_id: tx.tenant(), name: user.email.clone(), address: Some(visitor.address) };
    let mut act = Act::begin_in(ctx, tx, actor, operation);
    act.subject(&invitation.email);
    let tenant_id = act.tx.tenant();
    let result = join_inner(&mut act, link, &user, &invitation).await;
    act.finish(result).await?;
    Ok(Login { tenant_id: Some(tenant_id), ..login })
}

async fn join_inner(act: &mut Act<'_>, link: &str, user: &User, invitation: &Invitation) -> Result<(), ActError> {
    if invitation.email != user.email {
        return Err(ActError::Refused(format!(
            "This invitation is for {}. You are logged in as {}.",
            invitation.email, user.email
        )));
    }
    let invitation = take(act, link).await?;
    add_member(act, user.id, &invitation).await?;
    let now = act.now;
    Ok(store::members::used(&mut act.tx, user.id, now).await?)
}

/// Uses the invitation up; of two who come at once the second finds none.
async fn take(act: &mut Act<'_>, link: &str) -> Result<Invitation, ActError> {
    let (_, token) = tokens::parse_of_tenant(link).ok_or_else(spent_link)?;
    let now = act.now;
    store::invitations::take(&mut act.tx, &tokens::hash(token), now).await?.ok_or_else(spent_link)
}

async fn add_member(act: &mut Act<'_>, user: UserId, invitation: &Invitation) -> Result<(), ActError> {
    act.detail("role", invitation.role.title());
    let now = act.now;
    match store::members::insert(&mut act.tx, user, invitation.role, &invitation.invited_by, now).await {
        Err(StoreError::Conflict { .. }) => Err(ActError::Refused("You have access already.".to_owned())),
        inserted => {
            inserted?;
            act.publish(Topic::People);
            Ok(())
        }
    }
}

/// The invitation of a link, and a transaction of its tenant.
async fn find(ctx: &Ctx, link: &str) -> Result<Option<(TenantTx, Invitation)>, ActError> {
    let Some((tenant, token)) = tokens::parse_of_tenant(link) else { return Ok(None) };
    let mut tx = ctx.store().tenant(tenant).await?;
    let found = store::invitations::by_token(&mut tx, &tokens::hash(token), ctx.now()).await?;
    Ok(found.map(|invitation| (tx, invitation)))
}

fn spent_link() -> ActError {
    ActError::Refused("This invitation has been used, was withdrawn, or has expired. Ask for another one.".to_owned())
}

//! Sessions: one's own, and everybody's in a tenant. Ending one deletes its row; the browser that has it is told at once.

use policy::authz::Operation;
use policy::ids::{SessionId, UserId};
use policy::sessions::{Origin, Session};

use crate::account;
use crate::act::{Act, Actor};
use crate::bus::{Change, Topic};
use crate::caller::{Caller, Visitor};
use crate::ctx::{Ctx, INSTALLATION};
use crate::error::ActError;
use crate::people;

/// One's own sessions, in whichever tenant. `this` is the one that asks.
pub async fn list_own(ctx: &Ctx, visitor: &Visitor, this: Option<SessionId>) -> Result<Vec<Session>, ActError> {
    let user = visitor.complete()?.user_id;
    let mut tx = ctx.store().platform().await?;
    let sessions = store::sessions::of_person(&mut tx, user, this, ctx.now()).await?;
    tx.commit().await?;
    Ok(sessions)
}

/// Ends one of one's own sessions.
pub async fn end_own(ctx: &Ctx, visitor: &Visitor, id: SessionId) -> Result<(), ActError> {
    let (mut act, user) = begin_own(ctx, visitor, Operation::EndOwnSession).await?;
    let result = end_one(&mut act, user, id).await;
    act.finish(result).await?;
    tell_everywhere(ctx, user).await
}

/// Ends all of one's own sessions but the one that asks; answers how many.
pub async fn end_others(ctx: &Ctx, visitor: &Visitor, this: Option<SessionId>) -> Result<u64, ActError> {
    let (mut act, user) = begin_own(ctx, visitor, Operation::EndOtherSessions).await?;
    let result = match this {
        Some(this) => end_all_but(&mut act, user, this).await,
        None => Err(ActError::Refused("Log in again first.".to_owned())),
    };
    let ended = act.finish(result).await?;
    tell_everywhere(ctx, user).await?;
    Ok(ended)
}

/// Browsers of a person may be in any of her tenants; those whose session is over leave at once.
pub(crate) async fn tell_everywhere(ctx: &Ctx, user: UserId) -> Result<(), ActError> {
    for tenant_id in account::tenants(ctx, user).await? {
        ctx.bus().tell(Change { tenant_id: Some(tenant_id), topic: Topic::Sessions });
    }
    Ok(())
}

async fn end_all_but(act: &mut Act<'_>, user: UserId, this: SessionId) -> Result<u64, ActError> {
    let ended = store::sessions::end_others(&mut act.tx, user, this).await?;
    act.detail("sessions", ended);
    Ok(ended)
}

/// Everybody's sessions in the tenant.
pub async fn list(ctx: &Ctx, caller: &Caller, this: Option<SessionId>) -> Result<Vec<Session>, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListSessions).await?;
    let now = act.now;
    let sessions = store::sessions::in_tenant(&mut act.tx, this, now).await?;
    act.finish(Ok(sessions)).await
}

/// Ends somebody's session in the tenant; of who is mightier nobody does.
pub async fn end(ctx: &Ctx, caller: &Caller, id: SessionId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::EndSession).await?;
    let result = end_inner(&mut act, caller, id).await;
    act.finish(result).await
}

async fn end_inner(act: &mut Act<'_>, caller: &Caller, id: SessionId) -> Result<(), ActError> {
    act.subject(id);
    let user = store::sessions::owner_in_tenant(&mut act.tx, id).await?.ok_or(ActError::NotFound)?;
    let person = store::members::by_id(&mut act.tx, user).await?.ok_or(ActError::NotFound)?;
    act.subject(&person.email);
    if user != caller.user_id && !caller.role.may_manage(person.role) {
        return Err(ActError::Refused(people::mightier(person.role)));
    }
    end_one(act, user, id).await
}

async fn end_one(act: &mut Act<'_>, user: UserId, id: SessionId) -> Result<(), ActError> {
    let Origin { address, device, .. } =
        store::sessions::end(&mut act.tx, user, id).await?.ok_or(ActError::NotFound)?;
    act.detail("device", device);
    act.detail("began_from", address);
    act.publish(Topic::Sessions);
    Ok(())
}

/// In the log of the tenant that she works in.
async fn begin_own<'a>(ctx: &'a Ctx, visitor: &Visitor, operation: Operation) -> Result<(Act<'a>, UserId), ActError> {
    let login = visitor.complete()?;
    let mut tx = ctx.store().tenant(login.tenant_id.unwrap_or(INSTALLATION)).await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    let actor = Actor { tenant_id: tx.tenant(), name: user.email.clone(), address: Some(visitor.address) };
    let mut act = Act::begin_in(ctx, tx, actor, operation);
    act.subject(&user.email);
    Ok((act, user.id))
}

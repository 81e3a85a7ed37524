//! Who has access to a tenant: inviting, roles, suspending, removing. Whoever loses access, or part of it, loses her sessions there in
//! the same transaction; every request looks her up anyway.

use policy::authz::{Operation, Role};
use policy::ids::{InvitationId, UserId};
use policy::people::{self, INVITATION_DAYS, Invitation, PEOPLE_MAX, People, Person};
use store::StoreError;
use time::Duration;
use uuid::Uuid;

use crate::act::Act;
use crate::bus::Topic;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{guesses, mail, tokens};

/// Who has access, and who is invited.
pub async fn list(ctx: &Ctx, caller: &Caller) -> Result<People, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListPeople).await?;
    let people = store::members::list(&mut act.tx).await?;
    let invitations = store::invitations::list(&mut act.tx).await?;
    act.finish(Ok(People { people, invitations })).await
}

/// Invites somebody by mail.
pub async fn invite(ctx: &Ctx, caller: &Caller, email: &str, role: &str) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::InvitePerson).await?;
    let result = invite_inner(ctx, &mut act, caller, email, role).await;
    act.finish(result).await
}

async fn invite_inner(ctx: &Ctx, act: &mut Act<'_>, caller: &Caller, email: &str, role: &str) -> Result<(), ActError> {
    act.subject(email.chars().take(254).collect::<String>());
    still_may(act, caller).await?;
    let (email, role) = people::parse_invitation(email, role).map_err(ActError::Invalid)?;
    act.subject(&email);
    act.detail("role", role.title());
    if !caller.role.may_manage(role) {
        return Err(ActError::field("role", mightier(role)));
    }
    if let Some(person) = store::members::by_email(&mut act.tx, &email).await? {
        let there = if person.suspended {
            "Is suspended. Reinstate them in the list instead."
        } else {
            "Has access already. Change the role in the list instead."
        };
        return Err(ActError::field("email", there));
    }
    if store::members::count(&mut act.tx).await? >= PEOPLE_MAX {
        return Err(ActError::Refused(format!(
            "An organisation has up to {PEOPLE_MAX} people, invited ones included."
        )));
    }
    let invitation = Invitation {
        id: InvitationId(Uuid::now_v7()),
        email,
        role,
        invited_by: caller.email.clone(),
        expires_at: act.now + Duration::days(INVITATION_DAYS),
    };
    let token = tokens::link_token();
    let now = act.now;
    match store::invitations::insert(&mut act.tx, &invitation, &tokens::hash(&token), now).await {
        Err(StoreError::Conflict { constraint }) if constraint == "invitations_email_key" => {
            return Err(ActError::field("email", "Is invited already. Send the mail again from the list."));
        }
        inserted => inserted?,
    }
    act.publish(Topic::People);
    send(ctx, act, &invitation, &token).await
}

/// Sends the mail of an invitation again, with another link that lasts as long as a new one's.
pub async fn resend_invitation(ctx: &Ctx, caller: &Caller, id: InvitationId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ResendInvitation).await?;
    let result = resend_inner(ctx, &mut act, caller, id).await;
    act.finish(result).await
}

async fn resend_inner(ctx: &Ctx, act: &mut Act<'_>, caller: &Caller, id: InvitationId) -> Result<(), ActError> {
    let invitation = Invitation {
        invited_by: caller.email.clone(),
        expires_at: act.now + Duration::days(INVITATION_DAYS),
        ..invited(act, caller, id).await?
    };
    let token = tokens::link_token();
    if !store::invitations::renew(&mut act.tx, &invitation, &tokens::hash(&token)).await? {
        return Err(ActError::NotFound);
    }
    act.publish(Topic::People);
    send(ctx, act, &invitation, &token).await
}

/// Withdraws an invitation: its link stops working.
pub async fn withdraw_invitation(ctx: &Ctx, caller: &Caller, id: InvitationId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::WithdrawInvitation).await?;
    let result = withdraw_inner(&mut act, caller, id).await;
    act.finish(result).await
}

async fn withdraw_inner(act: &mut Act<'_>, caller: &Caller, id: InvitationId) -> Result<(), ActError> {
    invited(act, caller, id).await?;
    if !store::invitations::delete(&mut act.tx, id).await? {
        return Err(ActError::NotFound);
    }
    act.publish(Topic::People);
    Ok(())
}

/// An invitation that the caller may change.
async fn invited(act: &mut Act<'_>, caller: &Caller, id: InvitationId) -> Result<Invitation, ActError> {
    act.subject(id);
    still_may(act, caller).await?;
    let invitation = store::invitations::by_id(&mut act.tx, id).await?.ok_or(ActError::NotFound)?;
    act.subject(&invitation.email);
    act.detail("role", invitation.role.title());
    if caller.role.may_manage(invitation.role) {
        Ok(invitation)
    } else {
        Err(ActError::Refused(mightier(invitation.role)))
    }
}

async fn send(ctx: &Ctx, act: &mut Act<'_>, invitation: &Invitation, token: &str) -> Result<(), ActError> {
    let subject = guesses::invitation(act.tx.tenant(), &invitation.email);
    let now = act.now;
    match guesses::begin_in(&mut act.tx, now, &subject).await {
        Err(ActError::TooMany { retry_after_seconds }) => {
            let minutes = retry_after_seconds.div_ceil(60);
            return Err(ActError::Refused(format!(
                "Too many invitations were sent just now. Try again in {minutes} minutes."
            )));
        }
        counted => counted?,
    }
    let organisation = store::tenants::name(&mut act.tx).await?.ok_or(ActError::NotFound)?;
    let link = tokens::of_tenant(act.tx.tenant(), token);
    mail::invitation(&mut act.tx, ctx, invitation, &organisation, &link).await
}

/// Gives somebody another role. Her sessions here end: what they may has changed.
pub async fn change_role(ctx: &Ctx, caller: &Caller, user: UserId, role: &str) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ChangeRole).await?;
    let result = change_role_inner(ctx, &mut act, caller, user, role).await;
    act.finish(result).await
}

async fn change_role_inner(
    ctx: &Ctx,
    act: &mut Act<'_>,
    caller: &Caller,
    user: UserId,
    role: &str,
) -> Result<(), ActError> {
    let person = other(act, caller, user).await?;
    let role = people::parse_role(role).map_err(|message| ActError::field("role", message))?;
    act.detail("before", person.role.title());
    act.detail("role", role.title());
    if !caller.role.may_manage(role) {
        return Err(ActError::field("role", mightier(role)));
    }
    if role == person.role {
        return Err(ActError::field("role", format!("Is {} already.", role.title())));
    }
    store::members::set_role(&mut act.tx, user, role).await?;
    withdraw_beyond(act, &person.email, Some(role)).await?;
    ended(act, user).await?;
    let organisation = store::tenants::name(&mut act.tx).await?.ok_or(ActError::NotFound)?;
    mail::role_changed(&mut act.tx, ctx, &person.email, &organisation, role).await
}

/// Keeps somebody out for the time being.
pub async fn suspend(ctx: &Ctx, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::SuspendPerson).await?;
    let result = suspend_inner(&mut act, caller, user).await;
    act.finish(result).await
}

async fn suspend_inner(act: &mut Act<'_>, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let person = other(act, caller, user).await?;
    if person.suspended {
        return Err(ActError::Refused(format!("{} is suspended already.", person.email)));
    }
    let now = act.now;
    store::members::set_suspended(&mut act.tx, user, Some(now)).await?;
    withdraw_beyond(act, &person.email, None).await?;
    ended(act, user).await
}

/// Lets somebody in again who was suspended.
pub async fn reinstate(ctx: &Ctx, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ReinstatePerson).await?;
    let result = reinstate_inner(&mut act, caller, user).await;
    act.finish(result).await
}

async fn reinstate_inner(act: &mut Act<'_>, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let person = other(act, caller, user).await?;
    if !person.suspended {
        return Err(ActError::Refused(format!("{} is not suspended.", person.email)));
    }
    store::members::set_suspended(&mut act.tx, user, None).await?;
    act.publish(Topic::People);
    Ok(())
}

/// Takes somebody's access away. Her account stays, for other tenants.
pub async fn remove(ctx: &Ctx, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::RemovePerson).await?;
    let result = remove_inner(&mut act, caller, user).await;
    act.finish(result).await
}

async fn remove_inner(act: &mut Act<'_>, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let person = other(act, caller, user).await?;
    act.detail("role", person.role.title());
    store::members::remove(&mut act.tx, user).await?;
    withdraw_beyond(act, &person.email, None).await?;
    ended(act, user).await
}

/// Makes somebody else Super administrator, and the caller Administrator.
pub async fn transfer_ownership(ctx: &Ctx, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::TransferOwnership).await?;
    let result = transfer_inner(ctx, &mut act, caller, user).await;
    act.finish(result).await
}

async fn transfer_inner(ctx: &Ctx, act: &mut Act<'_>, caller: &Caller, user: UserId) -> Result<(), ActError> {
    let person = other(act, caller, user).await?;
    let role = Role::SuperAdministrator;
    act.detail("before", person.role.title());
    if caller.role != role {
        return Err(ActError::Refused("Only a Super administrator can hand the organisation over.".to_owned()));
    }
    if person.suspended || !person.second_factor {
        return Err(ActError::Refused(format!(
            "{} can't take over while suspended or without a second factor.",
            person.email
        )));
    }
    store::members::set_role(&mut act.tx, user, role).await?;
    store::members::set_role(&mut act.tx, caller.user_id, Role::Administrator).await?;
    withdraw_beyond(act, &caller.email, Some(Role::Administrator)).await?;
    store::members::end_sessions(&mut act.tx, caller.user_id).await?;
    ended(act, user).await?;
    let organisation = store::tenants::name(&mut act.tx).await?.ok_or(ActError::NotFound)?;
    mail::role_changed(&mut act.tx, ctx, &person.email, &organisation, role).await
}

/// Somebody else, whose access the caller may change. From here on nobody else changes a Super administrator, so that one is always
/// left: the caller, if not the other one.
async fn other(act: &mut Act<'_>, caller: &Caller, user: UserId) -> Result<Person, ActError> {
    act.subject(user);
    store::members::lock_owners(&mut act.tx).await?;
    let person = store::members::by_id(&mut act.tx, user).await?.ok_or(ActError::NotFound)?;
    act.subject(&person.email);
    if user == caller.user_id {
        return Err(ActError::Refused(
            "Nobody changes her own access. Ask another administrator, or hand the organisation over.".to_owned(),
        ));
    }
    still_may(act, caller).await?;
    if !caller.role.may_manage(person.role) {
        return Err(ActError::Refused(mightier(person.role)));
    }
    Ok(person)
}

/// Refuses a caller who is no longer what she was when her request came: others may have demoted or removed her since, and she may have
/// sent many.
async fn still_may(act: &mut Act<'_>, caller: &Caller) -> Result<(), ActError> {
    let role = store::members::role_now(&mut act.tx, caller.user_id).await?;
    if role == Some(caller.role) { Ok(()) } else { Err(ActError::Forbidden) }
}

/// Withdraws what somebody has invited others to and no longer could: an invitation is no way back in.
async fn withdraw_beyond(act: &mut Act<'_>, inviter: &str, role: Option<Role>) -> Result<(), ActError> {
    let mut withdrawn = Vec::new();
    for invitation in store::invitations::sent_by(&mut act.tx, inviter).await? {
        if !role.is_some_and(|role| role.may_manage(invitation.role))
            && store::invitations::delete(&mut act.tx, invitation.id).await?
        {
            withdrawn.push(invitation.email);
        }
    }
    if !withdrawn.is_empty() {
        act.detail("withdrawn", withdrawn);
    }
    Ok(())
}

/// Somebody's access has become less, or another one.
async fn ended(act: &mut Act<'_>, user: UserId) -> Result<(), ActError> {
    let sessions = store::members::end_sessions(&mut act.tx, user).await?;
    act.detail("sessions", sessions);
    act.publish(Topic::Sessions);
    act.publish(Topic::People);
    Ok(())
}

/// Why somebody may not touch who has this role.
pub(crate) fn mightier(role: Role) -> String {
    format!("Only a Super administrator may do that to a {}.", role.title())
}

//! Server functions of people. A few lines each: one action, return.

use leptos::prelude::*;
use policy::ids::{InvitationId, UserId};
use policy::people::People;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// Who has access, and who is invited.
#[server(name = ListPeople, prefix = "/api", endpoint = "people/list", input = Json, output = Json)]
pub async fn list() -> Result<People, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::list(&ctx, &caller).await?)
}

/// Invites somebody by mail.
#[server(prefix = "/api", endpoint = "people/invite", input = Json, output = Json)]
pub async fn invite(email: String, role: String) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::invite(&ctx, &caller, &email, &role).await?)
}

/// Sends the mail of an invitation again.
#[server(prefix = "/api", endpoint = "people/resend_invitation", input = Json, output = Json)]
pub async fn resend_invitation(id: InvitationId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::resend_invitation(&ctx, &caller, id).await?)
}

/// Withdraws an invitation.
#[server(prefix = "/api", endpoint = "people/withdraw_invitation", input = Json, output = Json)]
pub async fn withdraw_invitation(id: InvitationId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::withdraw_invitation(&ctx, &caller, id).await?)
}

/// Gives somebody another role.
#[server(prefix = "/api", endpoint = "people/change_role", input = Json, output = Json)]
pub async fn change_role(id: UserId, role: String) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::change_role(&ctx, &caller, id, &role).await?)
}

/// Keeps somebody out for the time being.
#[server(prefix = "/api", endpoint = "people/suspend", input = Json, output = Json)]
pub async fn suspend(id: UserId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::suspend(&ctx, &caller, id).await?)
}

/// Lets somebody in again.
#[server(prefix = "/api", endpoint = "people/reinstate", input = Json, output = Json)]
pub async fn reinstate(id: UserId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::reinstate(&ctx, &caller, id).await?)
}

/// Takes somebody's access away.
#[server(name = RemovePerson, prefix = "/api", endpoint = "people/remove", input = Json, output = Json)]
pub async fn remove(id: UserId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::remove(&ctx, &caller, id).await?)
}

/// Makes somebody else Super administrator, and the caller Administrator, who logs in again.
#[server(prefix = "/api", endpoint = "people/transfer_ownership", input = Json, output = Json)]
pub async fn transfer_ownership(id: UserId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::people::transfer_ownership(&ctx, &caller, id).await?)
}

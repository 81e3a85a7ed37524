//! Server functions of PBXes. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::ids::PbxId;
use policy::pbxes::{EnrolmentCommand, Pbx};
use policy::safety::PhoneLossLimit;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// All PBXes of the tenant, by name.
#[server(prefix = "/api", endpoint = "pbxes/list", input = Json, output = Json)]
pub async fn list() -> Result<Vec<Pbx>, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::list(&ctx, &caller).await?)
}

/// Adds a PBX and shows, once, the command that connects it.
#[server(prefix = "/api", endpoint = "pbxes/add", input = Json, output = Json)]
pub async fn add(name: String) -> Result<EnrolmentCommand, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::add(&ctx, &caller, name).await?)
}

/// A new command for a PBX; one made before stops working.
#[server(prefix = "/api", endpoint = "pbxes/renew_enrolment", input = Json, output = Json)]
pub async fn renew_enrolment(id: PbxId) -> Result<EnrolmentCommand, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::renew_enrolment(&ctx, &caller, id).await?)
}

/// Renames a PBX.
#[server(prefix = "/api", endpoint = "pbxes/rename", input = Json, output = Json)]
pub async fn rename(id: PbxId, name: String) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::rename(&ctx, &caller, id, name).await?)
}

/// Revokes a PBX: its stream is cut and its certificate never works again.
#[server(prefix = "/api", endpoint = "pbxes/revoke", input = Json, output = Json)]
pub async fn revoke(id: PbxId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::revoke(&ctx, &caller, id).await?)
}

/// Removes a PBX and what is known of it.
#[server(prefix = "/api", endpoint = "pbxes/remove", input = Json, output = Json)]
pub async fn remove(id: PbxId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::remove(&ctx, &caller, id).await?)
}

/// How many phones a change may cost before PBXes take it back.
#[server(name = ShowPhoneLossLimit, prefix = "/api", endpoint = "pbxes/phone_loss_limit", input = Json, output = Json)]
pub async fn phone_loss_limit() -> Result<PhoneLossLimit, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::phone_loss_limit(&ctx, &caller).await?)
}

/// Sets that limit, in percent.
#[server(prefix = "/api", endpoint = "pbxes/set_phone_loss_limit", input = Json, output = Json)]
pub async fn set_phone_loss_limit(percent: String) -> Result<PhoneLossLimit, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::pbxes::set_phone_loss_limit(&ctx, &caller, percent).await?)
}

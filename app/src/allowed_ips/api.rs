//! Server functions of Allowed IPs. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::allowed_ips::{Added, AllowedIp, AllowedIpForm};
use policy::ids::AllowedIpId;
use policy::paging::Page;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// A page of the list; `search` finds addresses, containing or contained networks, names and notes.
#[server(prefix = "/api", endpoint = "allowed_ips/list", input = Json, output = Json)]
pub async fn list(search: String, after: Option<String>) -> Result<Page<AllowedIp>, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::list(&ctx, &caller, search, after).await?)
}

/// Allows a target.
#[server(prefix = "/api", endpoint = "allowed_ips/add", input = Json, output = Json)]
pub async fn add(form: AllowedIpForm, insist: bool) -> Result<Added, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::add(&ctx, &caller, form, insist).await?)
}

/// Changes an entry.
#[server(prefix = "/api", endpoint = "allowed_ips/edit", input = Json, output = Json)]
pub async fn edit(id: AllowedIpId, form: AllowedIpForm, insist: bool) -> Result<Added, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::edit(&ctx, &caller, id, form, insist).await?)
}

/// Deletes entries; answers how many.
#[server(prefix = "/api", endpoint = "allowed_ips/delete", input = Json, output = Json)]
pub async fn delete(ids: Vec<AllowedIpId>, insist: bool) -> Result<i64, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::delete(&ctx, &caller, ids, insist).await?)
}

/// Allows the address that the request came from.
#[server(prefix = "/api", endpoint = "allowed_ips/allow_my_address", input = Json, output = Json)]
pub async fn allow_my_address() -> Result<Added, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::allow_my_address(&ctx, &caller).await?)
}

/// Adds entries from the text of a CSV file: all of them or, when a row is wrong, none.
#[server(prefix = "/api", endpoint = "allowed_ips/import", input = Json, output = Json)]
pub async fn import(csv: String) -> Result<Added, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::allowed_ips::import(&ctx, &caller, csv).await?)
}

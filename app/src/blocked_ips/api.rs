//! Server functions of Blocked IPs. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::blocked_ips::{Blocked, BlockedIp, BlockedIpDetails, BlockedIpFilter, BlockedIpForm};
use policy::ids::BanId;
use policy::paging::Page;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// A page of the bans that hold, newest first.
#[server(prefix = "/api", endpoint = "blocked_ips/list", input = Json, output = Json)]
pub async fn list(filter: BlockedIpFilter, after: Option<String>) -> Result<Page<BlockedIp>, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::list(&ctx, &caller, filter, after).await?)
}

/// One ban with its evidence.
#[server(prefix = "/api", endpoint = "blocked_ips/show", input = Json, output = Json)]
pub async fn show(id: BanId) -> Result<BlockedIpDetails, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::show(&ctx, &caller, id).await?)
}

/// Blocks an address or network.
#[server(prefix = "/api", endpoint = "blocked_ips/block", input = Json, output = Json)]
pub async fn block(form: BlockedIpForm, insist: bool) -> Result<Blocked, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::block(&ctx, &caller, form, insist).await?)
}

/// Unblocks; answers how many.
#[server(prefix = "/api", endpoint = "blocked_ips/unblock", input = Json, output = Json)]
pub async fn unblock(ids: Vec<BanId>) -> Result<i64, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::unblock(&ctx, &caller, ids).await?)
}

/// Unblocks all that a filter finds; answers how many.
#[server(prefix = "/api", endpoint = "blocked_ips/unblock_matching", input = Json, output = Json)]
pub async fn unblock_matching(filter: BlockedIpFilter) -> Result<i64, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::unblock_matching(&ctx, &caller, filter).await?)
}

/// Unblocks and allows; answers how many.
#[server(prefix = "/api", endpoint = "blocked_ips/unblock_and_allow", input = Json, output = Json)]
pub async fn unblock_and_allow(ids: Vec<BanId>, note: String) -> Result<i64, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::blocked_ips::unblock_and_allow(&ctx, &caller, ids, note).await?)
}

//! Server functions of the audit log. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::audit::{AuditFilter, AuditRow, ChainVerdict};
use policy::paging::Page;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// A page of the audit log, newest first.
#[server(prefix = "/api", endpoint = "audit/list", input = Json, output = Json)]
pub async fn list(filter: AuditFilter, after: Option<String>) -> Result<Page<AuditRow>, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::audit::list(&ctx, &caller, filter, after).await?)
}

/// Verifies the hash chain of the tenant.
#[server(prefix = "/api", endpoint = "audit/verify", input = Json, output = Json)]
pub async fn verify() -> Result<ChainVerdict, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::audit::verify(&ctx, &caller).await?)
}

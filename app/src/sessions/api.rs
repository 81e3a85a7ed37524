//! Server functions of sessions. A few lines each: one action, return.

use leptos::prelude::*;
use policy::ids::SessionId;
use policy::sessions::Session;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// One's own sessions, the last used first.
#[server(name = ListOwnSessions, prefix = "/api", endpoint = "sessions/list_own", input = Json, output = Json)]
pub async fn list_own() -> Result<Vec<Session>, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::sessions::list_own(&ctx, &visitor, context::session_id().await?).await?)
}

/// Ends one of one's own sessions.
#[server(name = EndOwnSession, prefix = "/api", endpoint = "sessions/end_own", input = Json, output = Json)]
pub async fn end_own(id: SessionId) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::sessions::end_own(&ctx, &visitor, id).await?)
}

/// Ends all of one's own sessions but this one; answers how many.
#[server(name = EndOtherSessions, prefix = "/api", endpoint = "sessions/end_others", input = Json, output = Json)]
pub async fn end_others() -> Result<u64, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::sessions::end_others(&ctx, &visitor, context::session_id().await?).await?)
}

/// Everybody's sessions in the tenant, the last used first.
#[server(name = ListSessions, prefix = "/api", endpoint = "sessions/list", input = Json, output = Json)]
pub async fn list() -> Result<Vec<Session>, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::sessions::list(&ctx, &caller, context::session_id().await?).await?)
}

/// Ends somebody's session in the tenant.
#[server(name = EndSession, prefix = "/api", endpoint = "sessions/end", input = Json, output = Json)]
pub async fn end(id: SessionId) -> Result<(), ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::sessions::end(&ctx, &caller, id).await?)
}

//! The enforcement pill's server function. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::enforcement::Enforcement;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// How far the newest change is enforced.
#[server(prefix = "/api", endpoint = "enforcement/show", input = Json, output = Json)]
pub async fn show() -> Result<Enforcement, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::enforcement::show(&ctx, &caller).await?)
}

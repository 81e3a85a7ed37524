//! The overview page's server function. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::overview::Overview;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// Everything that the overview shows.
#[server(prefix = "/api", endpoint = "overview/show", input = Json, output = Json)]
pub async fn show() -> Result<Overview, ApiError> {
    let (ctx, caller) = context::caller().await?;
    Ok(actions::overview::show(&ctx, &caller).await?)
}

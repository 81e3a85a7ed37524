//! Lists as files: `GET /csv/allowed-ips`, `GET /csv/blocked-ips`.

use actions::Ctx;
use app::context;
use axum::Router;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use http::request::Parts;
use policy::blocked_ips::BlockedIpFilter;

use super::api_errors::ApiFailure;

/// The routes.
pub fn routes() -> Router<Ctx> {
    Router::new().route("/csv/allowed-ips", get(allowed_ips)).route("/csv/blocked-ips", get(blocked_ips))
}

/// Somebody in a tenant, for handlers outside of server functions.
#[derive(Debug)]
pub struct SignedIn(pub actions::Caller);

impl FromRequestParts<Ctx> for SignedIn {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, ApiFailure> {
        let visitor = context::visitor_of(&parts.extensions).await?;
        Ok(Self(actions::caller::caller(ctx, &visitor).await?))
    }
}

async fn allowed_ips(State(ctx): State<Ctx>, SignedIn(caller): SignedIn) -> Result<Response, ApiFailure> {
    Ok(file("allowed-ips.csv", actions::allowed_ips::export(&ctx, &caller).await?))
}

async fn blocked_ips(
    State(ctx): State<Ctx>,
    SignedIn(caller): SignedIn,
    filter: Result<Query<BlockedIpFilter>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiFailure> {
    let Query(filter) = filter.map_err(|_| app::error::ApiError::Malformed)?;
    Ok(file("blocked-ips.csv", actions::blocked_ips::export(&ctx, &caller, filter).await?))
}

fn file(name: &str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, disposition)], text)
        .into_response()
}

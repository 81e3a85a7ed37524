//! Requests that read or change a list as a whole. Few at a time for a tenant and few altogether, so that the database's
//! other connections, and memory, stay free for everybody else.

use std::sync::Arc;
use std::time::Duration;

use app::context;
use app::error::ApiError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use policy::authz::Operation;
use policy::ids::TenantId;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api_errors::{self, ApiFailure};
use crate::counted::Counted;

/// At a time for one tenant; the answer counts until it has been taken.
const OF_TENANT: usize = 2;
/// At a time altogether: each holds a connection to the database, of which there are 20 unless told otherwise.
const ALTOGETHER: usize = 4;
/// Who finds all of them taken waits so long for a turn.
const WAIT: Duration = Duration::from_secs(5);
/// When to come again.
const RETRY_AFTER_SECONDS: u64 = 5;

/// The heavy requests under way.
#[derive(Debug, Clone)]
pub struct Heavy {
    of_tenants: Counted<TenantId>,
    turns: Arc<Semaphore>,
}

impl Default for Heavy {
    fn default() -> Self {
        Self { of_tenants: Counted::new(OF_TENANT), turns: Arc::new(Semaphore::new(ALTOGETHER)) }
    }
}

/// Whether a server function is one of them. Files, which have routes of their own, always are.
pub fn is_heavy(operation: Operation) -> bool {
    matches!(operation, Operation::VerifyAudit | Operation::UnblockMatching | Operation::ImportAllowedIps)
}

/// Middleware of heavy requests.
pub async fn guard(State(heavy): State<Heavy>, request: Request, next: Next) -> Response {
    let visitor = match context::visitor_of(request.extensions()).await {
        Ok(visitor) => visitor,
        Err(error) => return ApiFailure(error).into_response(),
    };
    let Some(tenant) = visitor.login.and_then(|login| login.tenant_id) else {
        // Who works in no tenant is refused further in.
        return next.run(request).await;
    };
    let Some(place) = heavy.of_tenants.take(tenant) else { return too_many() };
    let Ok(Ok(turn)) = timeout(WAIT, heavy.turns.acquire()).await else { return too_many() };
    let response = next.run(request).await;
    drop(turn);
    response.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |chunk| {
            let _taken_until_here = &place;
            chunk
        }))
    })
}

fn too_many() -> Response {
    api_errors::refuse(ApiError::TooMany { retry_after_seconds: RETRY_AFTER_SECONDS })
}

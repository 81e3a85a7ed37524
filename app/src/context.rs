//! The server side of server functions: who asks, sessions, and errors for the browser. Only compiled for the server.

use std::net::IpAddr;

use actions::{ActError, Caller, Ctx, Login, Visitor, chain};
use axum::http::request::Parts;
use axum::http::{Extensions, header};
use leptos::prelude::use_context;
use policy::account::Stage;
use policy::ids::SessionId;
use policy::sessions::{self, Factor, Origin};
use tower_sessions::Session;
use uuid::Uuid;

use crate::error::ApiError;

/// Where a session holds its [`Login`].
pub const LOGIN: &str = "login";
/// Where a session holds when its login was completed, in seconds since 1970: its longest life counts from there, also
/// when it gets a new id meanwhile.
pub const BEGAN: &str = "began";

/// Where a session holds its [`Origin`].
pub const ORIGIN: &str = "origin";

/// From where a request comes, proxies taken into account. An extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Who sends the request of the running server function.
pub async fn visitor() -> Result<(Ctx, Visitor), ApiError> {
    let ctx: Ctx = use_context().ok_or_else(|| lost("the server's context"))?;
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    let visitor = visitor_of(&parts.extensions).await?;
    Ok((ctx, visitor))
}

/// The same, and her place in the tenant that she works in.
pub async fn caller() -> Result<(Ctx, Caller), ApiError> {
    let (ctx, visitor) = visitor().await?;
    let caller = actions::caller::caller(&ctx, &visitor).await?;
    Ok((ctx, caller))
}

/// Who sends a request, for handlers outside of server functions.
pub async fn visitor_of(extensions: &Extensions) -> Result<Visitor, ApiError> {
    let ClientAddress(address) = *extensions.get().ok_or_else(|| lost("the client's address"))?;
    let login = login_of(session_of(extensions)?).await?;
    Ok(Visitor { address, login })
}

/// What a session holds.
pub async fn login_of(session: &Session) -> Result<Option<Login>, ApiError> {
    Ok(session.get(LOGIN).await.map_err(ActError::internal)?)
}

/// What pages call the session of the request.
pub async fn session_id() -> Result<Option<SessionId>, ApiError> {
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    let origin: Option<Origin> = session_of(&parts.extensions)?.get(ORIGIN).await.map_err(ActError::internal)?;
    Ok(origin.map(|origin| origin.id))
}

/// Begins the session of a login that `factor` has completed. It gets a new id.
pub async fn complete_session(login: &Login, factor: Factor) -> Result<Stage, ApiError> {
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    let ClientAddress(address) = *parts.extensions.get().ok_or_else(|| lost("the client's address"))?;
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let origin =
        Origin { id: SessionId(Uuid::new_v4()), address: address.to_string(), device: sessions::device(agent), factor };
    let session = session_of(&parts.extensions)?;
    session.insert(ORIGIN, origin).await.map_err(ActError::internal)?;
    start_session(login).await
}

/// Begins the session of a login, or brings it a step further. It gets a new id, so that one known before is worth nothing.
pub async fn start_session(login: &Login) -> Result<Stage, ApiError> {
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    let ctx: Ctx = use_context().ok_or_else(|| lost("the server's context"))?;
    let session = session_of(&parts.extensions)?;
    let before = login_of(session).await?;
    session.cycle_id().await.map_err(ActError::internal)?;
    let goes_on = before.is_some_and(|before| before.user_id == login.user_id && before.stage == Stage::SignedIn);
    if !goes_on {
        session.insert(BEGAN, ctx.now().unix_timestamp()).await.map_err(ActError::internal)?;
    }
    keep_in_session(login).await?;
    Ok(login.stage)
}

/// Keeps a login that has come no further in its session.
pub async fn keep_in_session(login: &Login) -> Result<(), ApiError> {
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    let session = session_of(&parts.extensions)?;
    session.insert(LOGIN, login).await.map_err(ActError::internal)?;
    // At once: the session layer would lose it when the answer becomes an error.
    session.save().await.map_err(ActError::internal)?;
    Ok(())
}

/// Ends the session.
pub async fn end_session() -> Result<(), ApiError> {
    let parts: Parts = use_context().ok_or_else(|| lost("the request"))?;
    session_of(&parts.extensions)?.flush().await.map_err(ActError::internal)?;
    Ok(())
}

fn session_of(extensions: &Extensions) -> Result<&Session, ApiError> {
    extensions.get().ok_or_else(|| lost("the session"))
}

fn lost(what: &str) -> ApiError {
    ActError::internal(format!("{what} is missing in a server function")).into()
}

/// The one way from an action's error to what the browser may know. What went wrong inside is logged here, under the id
/// that the person sees.
impl From<ActError> for ApiError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::SignedOut => Self::SignedOut,
            ActError::SecondFactorNeeded => Self::SecondFactorNeeded,
            ActError::StepUpNeeded => Self::StepUpNeeded,
            ActError::Forbidden => Self::Forbidden,
            ActError::NotFound => Self::NotFound,
            ActError::Invalid(fields) => Self::Invalid { fields },
            ActError::NeedsInsisting(message) => Self::NeedsInsisting { message },
            ActError::Refused(message) => Self::Refused { message },
            ActError::TooMany { retry_after_seconds } => Self::TooMany { retry_after_seconds },
            ActError::Internal { source, error_id } => {
                tracing::error!(error.id = %error_id, error = %chain(source.as_ref()), "a request failed");
                Self::Internal { error_id }
            }
        }
    }
}

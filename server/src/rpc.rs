//! What agents talk to: gRPC over TLS 1.3. `Enrolment` takes callers without a certificate; `AgentLink` none without.
//! Who an agent is comes from its certificate, looked up in the database at the beginning of each stream.

mod enrolment;
mod link;
mod newcomers;
mod outbox;
mod roll;
mod tls;

use std::net::IpAddr;
use std::time::Duration;

use actions::{ActError, Ctx};
use anyhow::Context as _;
use proto::pb::agent_link_server::AgentLinkServer;
use proto::pb::enrolment_server::EnrolmentServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::http::limits::Limit;

/// How long a peer may leave a ping unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// How often an otherwise silent connection is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Serves agents until `stopping`.
///
/// # Errors
/// When there is no certificate to serve under.
pub async fn serve(
    ctx: Ctx,
    listener: TcpListener,
    names: &[String],
    enrolments: Limit,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let config = tls::config(&ctx, names)?;
    let connections = tls::accept(listener, config, stopping.clone());
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        // An agent has one stream; what opens many is no agent.
        .max_concurrent_streams(8)
        .add_service(EnrolmentServer::new(enrolment::Enrolment::new(ctx.clone(), enrolments)))
        .add_service(AgentLinkServer::new(link::Links::new(ctx, stopping.clone())))
        .serve_with_incoming_shutdown(connections, stopping.cancelled_owned())
        .await
        .context("serving agents")
}

/// The one way from an action's error to what an agent may know. What went wrong inside is logged here, under the id that
/// the agent shows.
fn status(error: ActError) -> Status {
    match error {
        ActError::SignedOut | ActError::SecondFactorNeeded => Status::unauthenticated(error.to_string()),
        ActError::Forbidden => Status::permission_denied(error.to_string()),
        ActError::NotFound => Status::not_found(
            "the portal does not know this PBX any more: it was revoked or removed, or its certificate has expired",
        ),
        ActError::Invalid(_) => Status::invalid_argument(error.to_string()),
        ActError::NeedsInsisting(message) | ActError::Refused(message) => Status::failed_precondition(message),
        ActError::TooMany { retry_after_seconds } => {
            Status::resource_exhausted(format!("too many tries; again in {retry_after_seconds} s"))
        }
        ActError::Internal { source, error_id } => {
            tracing::error!(error.id = %error_id, error = actions::chain(&*source), "a call of an agent failed");
            Status::internal(format!("something failed in the portal (error {error_id})"))
        }
    }
}

fn source<T>(request: &tonic::Request<T>) -> Result<IpAddr, Status> {
    request
        .remote_addr()
        .map(|address| address.ip().to_canonical())
        .ok_or_else(|| Status::internal("a connection without an address"))
}

//! What agents talk to: gRPC over TLS 1.3. `Enrolment` takes callers without a certificate; `AgentLink` none without.
//! Who an agent is comes from its certificate, looked up in the database at the beginning of each stream.

mod arrivals;
mod enrolment;
mod link;
mod newcomers;
mod outbox;
mod paces;
mod proxied;
mod roll;
mod tls;

use std::net::IpAddr;
use std::time::Duration;

use actions::{ActError, Ctx};
use anyhow::Context as _;
use ipnet::IpNet;
use proto::pb::agent_link_server::AgentLinkServer;
use proto::pb::enrolment_server::EnrolmentServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::http::limits::Limit;

use arrivals::Arrivals;

/// How long a peer may leave a ping unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// How often an otherwise silent connection is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The port of the agents.
#[derive(Debug)]
pub struct Port {
    /// Where they connect.
    pub listener: TcpListener,
    /// The names that they dial.
    pub names: Vec<String>,
    /// How often one source may try to enrol.
    pub enrolments: Limit,
    /// Networks of load balancers in front of it, which say who connects.
    pub trusted_proxies: Vec<IpNet>,
}

/// Serves agents that connect directly, until `stopping`.
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
    serve_port(ctx, Port { listener, names: names.to_vec(), enrolments, trusted_proxies: Vec::new() }, stopping).await
}

/// Serves agents until `stopping`, and then until what they have sent is stored and acknowledged.
///
/// # Errors
/// When there is no certificate to serve under.
pub async fn serve_port(ctx: Ctx, port: Port, stopping: CancellationToken) -> anyhow::Result<()> {
    let Port { listener, names, enrolments, trusted_proxies } = port;
    let config = tls::config(&ctx, &names)?;
    let arrivals = Arrivals::new();
    let connections = tls::accept(listener, config, trusted_proxies, arrivals.clone(), stopping.clone());
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        // An agent has one stream; what opens many is no agent.
        .max_concurrent_streams(8)
        .add_service(EnrolmentServer::new(enrolment::Enrolment::new(ctx.clone(), enrolments)))
        .add_service(AgentLinkServer::new(link::Links::new(ctx, arrivals, stopping.clone())))
        .serve_with_incoming_shutdown(connections, stopping.cancelled_owned())
        .await
        .context("serving agents")
}

/// The one way from an action's error to what an agent may know. What went wrong inside is logged here, under the id that
/// the agent shows.
fn status(error: ActError) -> Status {
    match error {
        ActError::SignedOut | ActError::SecondFactorNeeded => Status::unauthenticated(error.to_string()),
        ActError::Forbidden | ActError::StepUpNeeded => Status::permission_denied(error.to_string()),
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

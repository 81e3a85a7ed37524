//! The pages and everything else that browsers ask for: which route is where, and what every request passes through.

pub mod api_errors;
mod csrf;
mod csv;
mod failures;
mod headers;
mod heavy;
pub mod limits;
mod live;
mod login_gate;
mod mailbox;
pub mod serving;
mod site;
mod taken;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actions::Ctx;
use app::context::ClientAddress;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use http::StatusCode;
use ipnet::IpNet;
use leptos::prelude::provide_context;
use policy::authz::{Need, Operation};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::address::client_address;
use crate::observe::health::Health;
use crate::{observe, sessions};
use heavy::Heavy;
use limits::Limits;

/// Most bytes of a request.
pub const BODY_BYTES: usize = 2 * 1024 * 1024;
/// A request that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes are made of.
#[derive(Debug, Clone)]
pub struct Portal {
    /// What actions work with.
    pub ctx: Ctx,
    /// Our origin, as browsers write it.
    pub origin: String,
    /// Whether cookies go over https only.
    pub secure_cookies: bool,
    /// Networks of our reverse proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Where the built pages are.
    pub site: std::path::PathBuf,
    /// How much one source may ask.
    pub limits: Limits,
    /// Ends streams when the server stops.
    pub stopping: CancellationToken,
}

/// The server functions' paths, as `/api/…`.
pub fn server_functions() -> Vec<&'static str> {
    server_fn::axum::server_fn_paths().map(|(path, _)| path).collect()
}

/// All routes.
pub fn router(portal: Portal) -> Router {
    let ctx = portal.ctx.clone();
    let https = portal.origin.starts_with("https://");
    let heavy = Heavy::default();
    let mut routes = Router::new()
        .route("/live", get(live::stream))
        .merge(csv::routes().layer(from_fn_with_state(heavy.clone(), heavy::guard)));
    if ctx.settings().development_mailbox {
        routes = routes.route("/dev/mailbox", get(mailbox::show));
    }
    let everything = routes
        .with_state(ctx.clone())
        .merge(Health::new(ctx.clone(), portal.stopping.clone()).routes())
        .merge(api(&ctx, &portal.limits, &heavy))
        .merge(site::pages(&ctx, &portal.site).layer(from_fn(login_gate::guard)))
        .merge(site::files(&portal.site));
    // From the inside out: what is added last sees a request first.
    everything
        .layer(sessions::layer(ctx, portal.secure_cookies))
        .layer(Extension(live::Stopping(portal.stopping)))
        .layer(from_fn_with_state(csrf::OwnOrigin(portal.origin.into()), csrf::guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(RequestBodyLimitLayer::new(BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(limits::layer(portal.limits.all))
        .layer(from_fn_with_state(Proxies(portal.trusted_proxies.into()), add_client_address))
        .layer(CatchPanicLayer::custom(failures::panicked))
        .layer(from_fn(map_api_errors))
        // Outside of what reads the bodies of errors: those it would find unreadable.
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(headers::Https(https), headers::add))
        .layer(from_fn(observe::http::measure))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

/// Server functions. Those that can be guessed at, send mail or judge passwords are asked less often, heavy ones few at a
/// time.
fn api(ctx: &Ctx, limits: &Limits, heavy: &Heavy) -> Router {
    let (mut open, mut narrow, mut judging, mut few) = (Router::new(), Router::new(), Router::new(), Router::new());
    for path in server_functions() {
        let ctx = ctx.clone();
        let handler = post(move |request: Request| async move {
            leptos_axum::handle_server_fns_with_context(move || provide_context(ctx.clone()), request).await
        });
        match path.strip_prefix("/api/").and_then(Operation::from_path) {
            Some(operation) if can_be_guessed(operation) => narrow = narrow.route(path, handler),
            Some(Operation::PasswordStrength) => judging = judging.route(path, handler),
            Some(operation) if heavy::is_heavy(operation) => few = few.route(path, handler),
            _ => open = open.route(path, handler),
        }
    }
    open.route("/api/{*rest}", any(api_errors::unknown))
        .merge(narrow.layer(limits::layer(limits.account)))
        // As narrow, but apart: who chooses a password asks often, and must be able to send it afterwards.
        .merge(judging.layer(limits::layer(limits.account)))
        .merge(few.layer(from_fn_with_state(heavy.clone(), heavy::guard)))
}

fn can_be_guessed(operation: Operation) -> bool {
    match operation.need() {
        Need::Nothing | Need::Password => operation.changes(),
        // Codes are few, whoever is asked for one.
        Need::Session if operation == Operation::StepUp => true,
        Need::Session | Need::Permission(_) | Need::EnrolmentToken | Need::PbxCertificate => false,
    }
}

async fn map_api_errors(request: Request, next: axum::middleware::Next) -> axum::response::Response {
    if request.uri().path().starts_with("/api/") {
        api_errors::map(request, next).await
    } else {
        next.run(request).await
    }
}

#[derive(Debug, Clone)]
struct Proxies(Arc<[IpNet]>);

async fn add_client_address(
    State(Proxies(proxies)): State<Proxies>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let address: IpAddr = client_address(peer.ip(), request.headers(), &proxies);
    request.extensions_mut().insert(ClientAddress(address));
    next.run(request).await
}

/// What the log tells of a request. Not its query: links of mails hold tokens there.
fn span<B>(request: &http::Request<B>) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default();
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id)
}

//! `ringfence serve`: pages, agents and jobs until SIGTERM or SIGINT, then in order: nobody new is let in, what agents have sent is stored
//! and acknowledged, streams end, requests under way are completed, jobs finish their turn, the other nodes have the last hints, a private
//! PostgreSQL stops.

use std::net::SocketAddr;
use std::time::Duration;

use actions::Ctx;
use actions::mail::Mailer;
use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connections::Connections;
use crate::http::limits::Limits;
use crate::http::{Portal, serving};
use crate::installation::Installation;
use crate::observe::Metrics;
use crate::observe::health::Health;
use crate::wakeups::Carrier;
use crate::{descriptors, http, jobs, rpc, wakeups};

/// Requests under way and jobs get so long to finish.
const GRACE: Duration = Duration::from_secs(10);
/// And then it takes so long at most to say that this node is gone, and to get the last hints to the others.
const FAREWELL: Duration = Duration::from_secs(3);
/// Most connections of the metrics' listener; one source may have an eighth of them.
const SCRAPERS: usize = 64;
/// So many connections wait to be accepted, if the system lets them (`net.core.somaxconn`): of a fleet that comes back, who finds no room
/// tries again, and costs more than who waits.
const WAITING: u32 = 4096;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let mailer = match &config.mail.smtp_url {
        Some(url) => Some(Mailer::new(url.expose(), &config.mail.from).map_err(anyhow::Error::msg)?),
        None => None,
    };
    if mailer.is_none() && !config.development.mailbox {
        tracing::warn!("No mail server is configured (mail.smtp_url): nobody can sign up or set a new password");
    }
    // Bound before anything is started: a port that is taken is said at once.
    let pages = bind(config.http.listen, "http.listen")?;
    let agents = bind(config.agents.listen, "agents.listen")?;
    let metrics = match config.metrics.listen {
        Some(listen) => Some(bind(listen, "metrics.listen")?),
        None => None,
    };
    let stopping = CancellationToken::new();
    stop_on_signals(&stopping)?;
    let (installation, carrier) = Installation::open(&config).await?;
    // On the heap: what serves is large.
    let served = tokio::select! {
        served = Box::pin(serve(&config, (&installation.ctx, carrier), mailer, pages, agents, metrics, stopping)) => served,
        () = installation.keep_up() => Ok(()),
    };
    installation.close().await?;
    served
}

/// Serves an installation, with what carries its hints, on these ports until `stopping`; ends when all that was under way has, or its
/// time is over.
///
/// # Errors
/// When there is nothing to serve under.
pub async fn serve(
    config: &Config,
    (ctx, carrier): (&Ctx, Carrier),
    mailer: Option<Mailer>,
    pages: TcpListener,
    agents: TcpListener,
    metrics: Option<TcpListener>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let limits = Limits::default();
    // Answers while everything else stops: a balancer reads there that this node drains.
    let stopped = CancellationToken::new();
    let _stopped = stopped.clone().drop_guard();
    if let Some(listener) = metrics {
        let metrics = Metrics::start(ctx.clone(), Health::new(ctx.clone(), stopping.clone()), stopped.clone())?;
        let connections = Connections::new(serving::most(SCRAPERS), &[]);
        tokio::spawn(serving::serve(listener, metrics.router(), connections, stopped.clone()));
    }
    let portal = Portal {
        ctx: ctx.clone(),
        origin: config.http.public_url.origin().ascii_serialization(),
        secure_cookies: config.http.secure_cookies,
        trusted_proxies: config.http.trusted_proxies.clone(),
        site: config.http.site_dir.clone(),
        limits,
        stopping: stopping.clone(),
    };
    // What is done while everything stops is told to the other nodes as well.
    let hints = tokio::spawn(wakeups::run(ctx.clone(), carrier, stopped.clone()));
    let jobs = jobs::start(ctx, mailer, &stopping);
    let names = server_names(config);
    tracing::info!(
        url = %config.http.public_url,
        listen = %config.http.listen,
        agents.listen = %config.agents.listen,
        agents.address = ctx.settings().agent_address,
        "Ringfence is up"
    );
    let most = serving::most(descriptors::of_browsers(config.database.max_connections));
    let connections = Connections::new(most, &config.http.trusted_proxies);
    let pages = serving::serve(pages, http::router(portal), connections, stopping.clone());
    let pages = within_grace(
        async {
            pages.await;
            Ok(())
        },
        &stopping,
    );
    let port = rpc::Port {
        listener: agents,
        names,
        enrolments: limits.enrolment,
        trusted_proxies: config.agents.trusted_proxies.clone(),
    };
    let agents = within_grace(rpc::serve_port(ctx.clone(), port, stopping.clone()), &stopping);
    let jobs = within_grace(
        async {
            jobs.wait().await;
            Ok(())
        },
        &stopping,
    );
    let (pages, agents, _) = tokio::join!(pages, agents, jobs);
    let farewell = async {
        if let Err(error) = actions::jobs::leave(ctx).await {
            tracing::warn!(error = actions::chain(&error), "noting that this node is gone");
        }
        stopped.cancel();
        let _ = hints.await;
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    tracing::info!("Ringfence has stopped");
    pages.and(agents)
}

/// Runs a server to its end; once everything stops it gets [`GRACE`]. When it ends by itself everything stops.
async fn within_grace(
    server: impl Future<Output = anyhow::Result<()>>,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    let given_up = async {
        stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let result = tokio::select! {
        result = server => result,
        () = given_up => Ok(()),
    };
    stopping.cancel();
    result
}

/// The names that agents may dial.
fn server_names(config: &Config) -> Vec<String> {
    let mut names = vec![
        config.agents.public_host.trim_matches(['[', ']']).to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let listen = config.agents.listen.ip();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.sort();
    names.dedup();
    names
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listening = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(WAITING)
    };
    listening().with_context(|| format!("listening on {address} ({setting})"))
}

fn stop_on_signals(stopping: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let stopping = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
        }
        tracing::info!("Stopping");
        stopping.cancel();
    });
    Ok(())
}

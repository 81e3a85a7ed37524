//! The port of the pages: connections that dawdle are closed, and no source holds all that there are.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use actions::chain;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::taken::Taken;
use crate::connections::{Connections, Most, Place};

/// Connections of one source at a time: many people behind one address, each with a few.
const PER_SOURCE: usize = 200;
/// And no source has more than this part of all.
const PART_OF_SOURCE: usize = 8;
/// And an IPv6 /48 so many times as much as one of its sources.
const SOURCES_OF_SITE: usize = 4;
/// The head of the first request has to be there so long after the connection.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// The head of each further request has to be there so long after the request before it.
const HEAD: Duration = Duration::from_secs(30);
/// Who takes nothing of what it asked for is let go after so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many connections there may be, `all` of them together.
pub fn most(all: usize) -> Most {
    let source = PER_SOURCE.min(all / PART_OF_SOURCE);
    Most { source, site: source * SOURCES_OF_SITE, all }
}

/// Serves pages until `stopping`, then completes the requests under way.
pub async fn serve(listener: TcpListener, router: Router, connections: Connections, stopping: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(place) = connections.admit(peer.ip()) {
                    converse(stream, peer, router.clone(), place, &graceful);
                } else {
                    tracing::debug!(%peer, "no connection is left for this source");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a browser's connection");
                // Out of file descriptors, most likely: they come back as others leave.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    graceful.shutdown().await;
}

fn converse(stream: TcpStream, peer: SocketAddr, router: Router, place: Place, graceful: &GracefulShutdown) {
    let asked = CancellationToken::new();
    let begun = asked.clone();
    let service = tower::service_fn(move |request: Request<Incoming>| {
        begun.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(Taken::new(stream, PATIENCE)), TowerToHyperService::new(service));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%peer, error = %chain(&error), "a browser's connection broke");
            },
            () = nothing_asked(asked) => tracing::debug!(%peer, "a connection on which nothing was asked"),
        }
        drop(place);
    });
}

/// Ends when the first request has not come in time, and never when it has.
async fn nothing_asked(asked: CancellationToken) {
    if timeout(FIRST_HEAD, asked.cancelled()).await.is_ok() {
        pending::<()>().await;
    }
}

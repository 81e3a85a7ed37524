//! The port of the pages: connections that dawdle are closed, and no source holds all that there are.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::connections::{Connections, Place};

/// Connections of one source at a time: many people behind one address, each with a few, and far fewer than there are.
pub const PER_SOURCE: usize = 200;
/// The head of a request has to be there so long after the connection, or after the request before it.
const HEAD: Duration = Duration::from_secs(30);

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
                    tracing::debug!(%peer, "a source has too many connections");
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
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%peer, %error, "a browser's connection broke");
        }
        drop(place);
    });
}

//! TLS 1.3 for agents: our certificate from the installation's CA, theirs checked against it when they have one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actions::Ctx;
use actions::ca::ServerCertificate;
use anyhow::Context as _;
use futures::Stream;
use futures::future::maybe_done;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::newcomers::{Newcomer, Newcomers};
use crate::connections::{Connections, Most, Place};
use crate::descriptors;

/// Handshakes under way, and connections without a certificate. Of many PBXes behind one address that come back at once
/// the others try again a little later.
const NEWCOMERS: Most = Most { source: 8, site: 32, all: 256 };
/// Connections of one source at a time, newcomers included: PBXes behind one address.
const PER_SOURCE: usize = 64;
/// Connections of one IPv6 /48 at a time.
const PER_SITE: usize = 256;
/// A peer that takes longer for its handshake is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Who shows no certificate has come to enrol and gets so long for it.
const ENROLMENT: Duration = Duration::from_secs(30);

/// Our side of TLS under the names that agents dial.
pub(super) fn config(ctx: &Ctx, names: &[String]) -> anyhow::Result<Arc<ServerConfig>> {
    let ServerCertificate { chain_der, key_der } =
        ctx.ca().server_certificate(names, ctx.now()).context("making the server's certificate")?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ctx.ca().der().to_vec())).context("reading the CA of the agents")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("preparing to check the certificates of agents")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            chain_der.into_iter().map(CertificateDer::from).collect(),
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der.to_vec())),
        )
        .context("using the server's certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connections whose handshake has succeeded.
pub(super) fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    stopping: CancellationToken,
) -> impl Stream<Item = io::Result<AgentStream>> + use<> {
    let (sender, receiver) = mpsc::channel(16);
    let newcomers = Newcomers::new(NEWCOMERS);
    let connections = Connections::new(Most { source: PER_SOURCE, site: PER_SITE, all: descriptors::of_agents() }, &[]);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting an agent's connection");
                    // Out of file descriptors, most likely: they come back as others leave.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (Some(place), Some(newcomer)) = (connections.admit(peer.ip()), newcomers.admit(peer.ip())) else {
                tracing::debug!(%peer, "no connection is left for this source");
                continue;
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                if let Some(stream) = shake_hands(&acceptor, stream, &newcomer).await {
                    let _ = sender.send(Ok(AgentStream::new(stream, place, newcomer))).await;
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn shake_hands(acceptor: &TlsAcceptor, stream: TcpStream, newcomer: &Newcomer) -> Option<TlsStream<TcpStream>> {
    // Small messages must not wait for each other.
    let _ = stream.set_nodelay(true);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
        () = newcomer.sent_away() => {
            tracing::debug!("a TLS handshake had to go for a newer one");
            return None;
        }
    };
    match shaken {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

/// A connection of an agent, or of one that enrols.
pub(super) struct AgentStream {
    stream: TlsStream<TcpStream>,
    /// When it ends in any case; only without a certificate.
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: Place,
}

impl AgentStream {
    /// Who shows a certificate is no newcomer any more.
    fn new(stream: TlsStream<TcpStream>, place: Place, newcomer: Newcomer) -> Self {
        let ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = match stream.get_ref().1.peer_certificates() {
            Some(_) => None,
            // Maybe done: it is asked again after its end.
            None => Some(Box::pin(maybe_done(end_of_enrolment(newcomer)))),
        };
        Self { stream, ends, _place: place }
    }
}

/// Ends when the time for an enrolment is over, or when others need the place.
async fn end_of_enrolment(newcomer: Newcomer) {
    tokio::select! {
        () = tokio::time::sleep(ENROLMENT) => {},
        () = newcomer.sent_away() => {},
    }
}

impl Connected for AgentStream {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

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
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::connections::{Connections, Place};

/// Handshakes under way at a time; the rest wait in the listener's queue.
const HANDSHAKES: usize = 256;
/// Connections of one source at a time, those under way included: PBXes behind one address, and far fewer than there are.
const PER_SOURCE: usize = 64;
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
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = Connections::new(PER_SOURCE, &[]);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await {
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
            let Some(place) = connections.admit(peer.ip()) else {
                tracing::debug!(%peer, "a source has too many connections");
                continue;
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                // Small messages must not wait for each other.
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let _ = sender.send(Ok(AgentStream::new(stream, place))).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(receiver)
}

/// A connection of an agent, or of one that enrols.
pub(super) struct AgentStream {
    stream: TlsStream<TcpStream>,
    /// When it ends in any case: without a certificate soon.
    ends: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl AgentStream {
    fn new(stream: TlsStream<TcpStream>, place: Place) -> Self {
        let known = stream.get_ref().1.peer_certificates().is_some();
        let ends = (!known).then(|| Box::pin(tokio::time::sleep(ENROLMENT)));
        Self { stream, ends, _place: place }
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

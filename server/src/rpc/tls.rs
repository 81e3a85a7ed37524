//! TLS 1.3 for agents: our certificate from the installation's CA, theirs checked against it when they have one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actions::Ctx;
use actions::ca::ServerCertificate;
use anyhow::Context as _;
use futures::Stream;
use futures::future::maybe_done;
use ipnet::IpNet;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::arrivals::Arrivals;
use super::newcomers::{Newcomer, Newcomers};
use super::proxied;
use crate::connections::{Connections, Most, Place};
use crate::counted::Counted;
use crate::descriptors;

/// Handshakes under way, and connections without a certificate. Of many PBXes behind one address that come back at once
/// the others try again a little later.
const NEWCOMERS: Most = Most { source: 8, site: 32, all: 128 };
/// Connections of one source at a time, newcomers included: PBXes behind one address.
const PER_SOURCE: usize = 64;
/// Connections of one IPv6 /48 at a time.
const PER_SITE: usize = 256;
/// Connections of load balancers that have not said yet whose they are; they say it at once.
const UNNAMED: usize = 256;
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

/// Connections whose handshake has succeeded. Nobody is let in while others, who have come before, wait for their turn at the database: of a fleet that
/// comes back, those who are inside get through, and the others wait at the door, where it costs nothing. Let in all at once, most would
/// lose patience half-way, and come again.
pub(super) fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    trusted_proxies: Vec<IpNet>,
    arrivals: Arrivals,
    stopping: CancellationToken,
) -> impl Stream<Item = io::Result<AgentStream>> + use<> {
    let (sender, receiver) = mpsc::channel(16);
    let door = Arc::new(Door {
        acceptor: TlsAcceptor::from(config),
        newcomers: Newcomers::new(NEWCOMERS),
        connections: Connections::new(Most { source: PER_SOURCE, site: PER_SITE, all: descriptors::of_agents() }, &[]),
        trusted_proxies,
        unnamed: Counted::new(UNNAMED),
        arrivals,
        inside: sender,
    });
    tokio::spawn(async move {
        loop {
            let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await else { return };
            match accepted {
                Ok((stream, peer)) => {
                    if stopping.run_until_cancelled(door.meet(stream, peer)).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an agent's connection");
                    // Out of file descriptors, most likely: they come back as others leave.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Who gets in.
struct Door {
    acceptor: TlsAcceptor,
    newcomers: Newcomers,
    connections: Connections,
    trusted_proxies: Vec<IpNet>,
    /// Connections of load balancers that have not said yet whose they are.
    unnamed: Counted<()>,
    /// Streams that are being looked up, or noted.
    arrivals: Arrivals,
    inside: mpsc::Sender<io::Result<AgentStream>>,
}

impl Door {
    async fn meet(self: &Arc<Self>, mut stream: TcpStream, peer: SocketAddr) {
        self.arrivals.pass().await;
        let ip = peer.ip().to_canonical();
        if !self.trusted_proxies.iter().any(|net| net.contains(&ip)) {
            self.let_in(stream, peer).await;
            return;
        }
        let Some(unnamed) = self.unnamed.take(()) else { return };
        let door = Arc::clone(self);
        tokio::spawn(async move {
            let named = tokio::time::timeout(HANDSHAKE_TIMEOUT, proxied::client(&mut stream)).await;
            match named {
                Ok(Ok(client)) => door.let_in(stream, client.unwrap_or(peer)).await,
                Ok(Err(error)) => tracing::warn!(%peer, %error, "a load balancer does not say who connects"),
                Err(_) => tracing::debug!(%peer, "a load balancer was too slow to say who connects"),
            }
            // Until here it is counted nowhere else.
            drop(unnamed);
        });
    }

    async fn let_in(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.connections.admit(peer.ip()) else {
            tracing::debug!(%peer, "no connection is left for this source");
            return;
        };
        let Some(newcomer) = self.newcomers.admit_in_turn(peer.ip()).await else {
            tracing::debug!(%peer, "no handshake is left for this source");
            return;
        };
        let door = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(stream) = shake_hands(&door.acceptor, stream, &newcomer).await {
                let _ = door.inside.send(Ok(AgentStream::new(stream, peer, place, newcomer))).await;
            }
        });
    }
}

async fn shake_hands(acceptor: &TlsAcceptor, stream: TcpStream, newcomer: &Newcomer) -> Option<TlsStream<TcpStream>> {
    // Small messages must not wait for each other.
    let _ = stream.set_nodelay(true);
    let shake = async {
        // Who waited too long at the door has gone, and left a hello that is not worth an answer.
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        acceptor.accept(stream).await
    };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake) => shaken,
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
    /// Whose it is, also behind a load balancer.
    peer: SocketAddr,
    _place: Place,
}

impl AgentStream {
    /// Who shows a certificate is no newcomer any more.
    fn new(stream: TlsStream<TcpStream>, peer: SocketAddr, place: Place, newcomer: Newcomer) -> Self {
        let ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = match stream.get_ref().1.peer_certificates() {
            Some(_) => None,
            // Maybe done: it is asked again after its end.
            None => Some(Box::pin(maybe_done(end_of_enrolment(newcomer)))),
        };
        Self { stream, ends, peer, _place: place }
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
        let mut info = self.stream.connect_info();
        info.get_mut().remote_addr = Some(self.peer);
        info
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

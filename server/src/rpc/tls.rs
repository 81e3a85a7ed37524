//! TLS 1.3 for agents: our certificate from the installation's CA, theirs checked against it when they have one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actions::Ctx;
use actions::ca::ServerCertificate;
use anyhow::Context as _;
use futures::Stream;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Handshakes under way at a time; the rest wait in the listener's queue.
const HANDSHAKES: usize = 256;
/// A peer that takes longer for its handshake is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + use<> {
    let (sender, receiver) = mpsc::channel(16);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await {
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting an agent's connection");
                    // Out of file descriptors, most likely: they come back as others leave.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                // Small messages must not wait for each other.
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let _ = sender.send(Ok(stream)).await;
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

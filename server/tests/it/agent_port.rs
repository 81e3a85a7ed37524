//! The agents' port as those find it who only want to keep others away from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use server::http::limits::Limit;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::TestServer;

const LONGEST: Duration = Duration::from_secs(4);

struct Port {
    server: TestServer,
    address: SocketAddr,
}

impl Port {
    async fn open() -> Self {
        let server = TestServer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ctx, stopping) = (server.ctx.clone(), server.stopping.clone());
        let limit = Limit { burst: 1000, refill: Duration::from_millis(1) };
        tokio::spawn(async move {
            server::rpc::serve(ctx, listener, &["localhost".to_owned()], limit, stopping).await.unwrap();
        });
        Self { server, address }
    }

    async fn connect(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A completed handshake without a certificate.
    async fn shake_hands(&self, source: [u8; 4]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.server.ctx.ca().der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = self.connect(source).await;
        timeout(LONGEST, connector.connect(ServerName::try_from("localhost").unwrap(), stream))
            .await
            .expect("the handshake does not wait for others")
            .unwrap()
    }

    /// Eight silent connections of each of 40 sources: more than there may be at a time.
    async fn flood(&self) -> Vec<TcpStream> {
        let mut silent = Vec::new();
        for source in 1..=40 {
            for _ in 0..8 {
                silent.push(self.connect([127, 0, 1, source]).await);
            }
        }
        silent
    }
}

async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut buffer = [0; 1024];
    timeout(LONGEST, async { while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {} })
        .await
        .expect("it ends before its time is over");
}

#[tokio::test]
async fn one_source_has_eight_handshakes_under_way() {
    let port = Port::open().await;
    let mut silent = Vec::new();
    for _ in 0..9 {
        silent.push(port.connect([127, 0, 0, 2]).await);
    }
    ends(silent.last_mut().unwrap()).await;
    port.shake_hands([127, 0, 0, 3]).await;
}

#[tokio::test]
async fn silent_connections_of_many_sources_keep_nobody_out() {
    let port = Port::open().await;
    let mut silent = port.flood().await;
    port.shake_hands([127, 0, 0, 3]).await;
    ends(&mut silent[0]).await;
}

#[tokio::test]
async fn who_shows_no_certificate_goes_like_one_who_has_not_finished() {
    let port = Port::open().await;
    let mut nobody = port.shake_hands([127, 0, 0, 2]).await;
    let _silent = port.flood().await;
    ends(&mut nobody).await;
}

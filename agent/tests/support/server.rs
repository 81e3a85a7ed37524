//! A server that speaks the protocol and remembers nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use policy::bans::BanDigest;
use proto::convert::{FromAgent, FromServer, Hello, Welcome};
use proto::pb;
use proto::pb::agent_link_server::{AgentLink, AgentLinkServer};
use proto::pb::enrolment_server::{Enrolment, EnrolmentServer};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub struct Server {
    address: String,
    ca: Arc<Authority>,
    ca_fingerprint: String,
    refuse: Arc<AtomicBool>,
    streams: mpsc::Receiver<Stream>,
}

/// Issues certificates that began an hour ago.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    last_seconds: AtomicU64,
}

impl Authority {
    fn sign(&self, csr_pem: &str) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        #[expect(clippy::disallowed_methods, reason = "TLS looks at the real clock")]
        let now = OffsetDateTime::now_utc();
        csr.params.not_before = now - time::Duration::HOUR;
        csr.params.not_after = now + Duration::from_secs(self.last_seconds.load(Ordering::Relaxed));
        csr.signed_by(&self.issuer).unwrap().pem()
    }
}

/// One agent's stream, from the server's side.
pub struct Stream {
    pub hello: Hello,
    /// The agent's.
    pub certificate: Vec<u8>,
    inbound: Mutex<Streaming<pb::AgentMessage>>,
    outbound: mpsc::Sender<Result<pb::ServerMessage, Status>>,
    last_digest: BanDigest,
}

struct Service {
    ca: Arc<Authority>,
    refuse: Arc<AtomicBool>,
    streams: mpsc::Sender<Stream>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1", "localhost").await
    }

    /// One that listens on `address` and calls itself `name`.
    pub async fn start_at(address: &str, name: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = params.self_signed(&ca_key).unwrap();
        let ca = Arc::new(Authority {
            issuer: Issuer::new(params, ca_key),
            pem: ca_certificate.pem(),
            last_seconds: AtomicU64::new(30 * 86_400),
        });
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca.issuer).unwrap();
        let chain = certificate.pem() + &ca_certificate.pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca_certificate.pem()))
            .client_auth_optional(true);
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refuse = Arc::new(AtomicBool::new(false));
        let (streams, received) = mpsc::channel(4);
        let service = || Service { ca: Arc::clone(&ca), refuse: Arc::clone(&refuse), streams: streams.clone() };
        let router = tonic::transport::Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(EnrolmentServer::new(service()))
            .add_service(AgentLinkServer::new(service()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let ca_fingerprint = HEXLOWER.encode(&Sha256::digest(ca_certificate.der()));
        Self { address: format!("{name}:{port}"), ca: Arc::clone(&ca), ca_fingerprint, refuse, streams: received }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    pub fn token(&self) -> String {
        let claims = serde_json::json!({ "jti": "1", "ca": self.ca_fingerprint, "server": self.address() });
        format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    }

    /// How long certificates last that are issued from now on.
    pub fn certificates_last(&self, last: Duration) {
        self.ca.last_seconds.store(last.as_secs(), Ordering::Relaxed);
    }

    /// A certificate for a request.
    pub fn sign(&self, csr_pem: &str) -> String {
        self.ca.sign(csr_pem)
    }

    /// Whether streams are refused, as by a server that is going down.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// The next stream of an agent.
    pub async fn stream(&mut self) -> Stream {
        tokio::time::timeout(Duration::from_secs(20), self.streams.recv()).await.expect("an agent within 20 s").unwrap()
    }
}

impl Stream {
    pub async fn send(&self, message: FromServer) {
        self.outbound.send(Ok((&message).into())).await.unwrap();
    }

    /// Beats from now on until the stream ends, as the real server does.
    pub fn beat(&self) {
        let outbound = self.outbound.clone();
        tokio::spawn(async move {
            let beat = FromServer::Heartbeat(pb::Heartbeat::default());
            while outbound.send(Ok((&beat).into())).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// The next message that isn't a heartbeat.
    pub async fn next(&mut self) -> FromAgent {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.inbound.get_mut().message());
            let message = FromAgent::try_from(message.await.expect("a message within 10 s").unwrap().unwrap()).unwrap();
            if let FromAgent::BansApplied(applied) = &message {
                self.last_digest = applied.digest;
            }
            if !matches!(message, FromAgent::Heartbeat(_)) {
                return message;
            }
        }
    }

    pub fn last_digest(&self) -> BanDigest {
        self.last_digest
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolResponse>, Status> {
        Ok(Response::new(pb::EnrolResponse {
            certificate_pem: self.ca.sign(&request.get_ref().csr_pem),
            ca_pem: self.ca.pem.clone(),
            pbx_name: "hq".into(),
        }))
    }
}

#[tonic::async_trait]
impl AgentLink for Service {
    type LinkStream = Pin<Box<dyn futures::Stream<Item = Result<pb::ServerMessage, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<pb::AgentMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        if self.refuse.load(Ordering::Relaxed) {
            return Err(Status::unavailable("going down"));
        }
        let certificate =
            request.peer_certs().and_then(|certificates| certificates.first().map(|first| first.to_vec()));
        let certificate = certificate.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        let FromAgent::Hello(hello) = FromAgent::try_from(first)? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (outbound, messages) = mpsc::channel(16);
        let stream =
            Stream { hello, certificate, inbound: Mutex::new(inbound), outbound, last_digest: BanDigest::default() };
        #[expect(clippy::disallowed_methods, reason = "bans end by it, in a real kernel")]
        let server_time = OffsetDateTime::now_utc();
        stream.send(FromServer::Welcome(Welcome { heartbeat_seconds: 4, server_time, pbx_name: "hq".into() })).await;
        let _ = self.streams.send(stream).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

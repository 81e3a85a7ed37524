//! A server that speaks the protocol and remembers nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    port: u16,
    ca_fingerprint: String,
    refuse: Arc<AtomicBool>,
    streams: mpsc::Receiver<Stream>,
}

/// One agent's stream, from the server's side.
pub struct Stream {
    pub hello: Hello,
    inbound: Mutex<Streaming<pb::AgentMessage>>,
    outbound: mpsc::Sender<Result<pb::ServerMessage, Status>>,
    last_digest: BanDigest,
}

struct Service {
    ca: Arc<Issuer<'static, KeyPair>>,
    ca_pem: String,
    refuse: Arc<AtomicBool>,
    streams: mpsc::Sender<Stream>,
}

impl Server {
    pub async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca_certificate = params.self_signed(&ca_key).unwrap();
        let ca = Arc::new(Issuer::new(params, ca_key));
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let chain = certificate.pem() + &ca_certificate.pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca_certificate.pem()))
            .client_auth_optional(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refuse = Arc::new(AtomicBool::new(false));
        let (streams, received) = mpsc::channel(4);
        let service = || Service {
            ca: Arc::clone(&ca),
            ca_pem: ca_certificate.pem(),
            refuse: Arc::clone(&refuse),
            streams: streams.clone(),
        };
        let router = tonic::transport::Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(EnrolmentServer::new(service()))
            .add_service(AgentLinkServer::new(service()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let ca_fingerprint = HEXLOWER.encode(&Sha256::digest(ca_certificate.der()));
        Self { port, ca_fingerprint, refuse, streams: received }
    }

    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub fn token(&self) -> String {
        let claims = serde_json::json!({ "jti": "1", "ca": self.ca_fingerprint, "server": self.address() });
        format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    }

    /// Whether streams are refused, as by a server that is going down.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// The next stream of an agent.
    pub async fn stream(&mut self) -> Stream {
        tokio::time::timeout(Duration::from_secs(10), self.streams.recv()).await.expect("an agent within 10 s").unwrap()
    }
}

impl Stream {
    pub async fn send(&self, message: FromServer) {
        self.outbound.send(Ok((&message).into())).await.unwrap();
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
        let csr = CertificateSigningRequestParams::from_pem(&request.get_ref().csr_pem)
            .map_err(|_| Status::invalid_argument("csr"))?;
        let certificate = csr.signed_by(&self.ca).map_err(|_| Status::internal("signing"))?;
        Ok(Response::new(pb::EnrolResponse {
            certificate_pem: certificate.pem(),
            ca_pem: self.ca_pem.clone(),
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
        if request.peer_certs().is_none_or(|certificates| certificates.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        let FromAgent::Hello(hello) = FromAgent::try_from(first)? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (outbound, messages) = mpsc::channel(16);
        let stream = Stream { hello, inbound: Mutex::new(inbound), outbound, last_digest: BanDigest::default() };
        let server_time = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("a time");
        stream.send(FromServer::Welcome(Welcome { heartbeat_seconds: 4, server_time, pbx_name: "hq".into() })).await;
        let _ = self.streams.send(stream).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

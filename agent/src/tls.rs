//! TLS to the server. Before enrolment the server is known by the fingerprint of its CA alone; afterwards by the CA, and it knows us by our certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::state::Credentials;

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// TLS that trusts a server whose chain holds the CA with this fingerprint, and whose certificate that CA signed.
pub fn pinned(ca_fingerprint: [u8; 32]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(PinnedCa { ca_fingerprint, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Mutual TLS with what enrolment left.
pub fn mutual(credentials: &Credentials) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(credentials.ca_pem.as_bytes()) {
        roots.add(ca.context("reading the server's CA certificate")?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(credentials.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("reading this agent's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).context("reading this agent's key")?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("this agent's certificate and key")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Checks what enrolment brought: the CA is the one that the token named, and the certificate is for our key.
pub fn check_credentials(credentials: &Credentials, ca_fingerprint: [u8; 32]) -> anyhow::Result<()> {
    let ca =
        CertificateDer::from_pem_slice(credentials.ca_pem.as_bytes()).context("reading the server's CA certificate")?;
    ensure!(fingerprint(&ca) == ca_fingerprint, "the server sent another CA than the token names");
    // Building the configuration fails when key and certificate don't belong together.
    mutual(credentials).map(drop)
}

/// How long one address of the server is waited for before the next one is tried.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);

/// Where the server is.
#[derive(Debug, Clone)]
pub struct Way {
    /// `host:port`.
    pub server: String,
    /// From which address of this machine; the kernel's choice, if not said.
    pub from: Option<IpAddr>,
}

impl Way {
    /// From whichever address.
    pub fn to(server: impl Into<String>) -> Self {
        Self { server: server.into(), from: None }
    }
}

/// The addresses of the server in the order in which they are tried: those of the family that the resolver prefers first, and among them in
/// whichever order, so that agents spread over the nodes of an installation, and one that is down is first for few.
fn in_turn(mut addresses: Vec<SocketAddr>, from: Option<IpAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    addresses.retain(|address| from.is_none_or(|from| from.is_ipv4() == address.is_ipv4()));
    addresses.shuffle(&mut rand::rng());
    addresses.sort_by_key(|address| address.is_ipv4() != first);
    addresses
}

async fn reach(host: &str, port: u16, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    first_that_answers(in_turn(tokio::net::lookup_host((host, port)).await?.collect(), from), from).await
}

async fn first_that_answers(addresses: Vec<SocketAddr>, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let mut error = std::io::Error::other("the server's name has no address of that family");
    for address in addresses {
        match tokio::time::timeout(ANSWERS_WITHIN, reach_one(address, from)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(refused)) => error = refused,
            Err(_) => error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(error)
}

async fn reach_one(address: SocketAddr, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(address).await
}

/// Connects, TCP and TLS within 15 s: an agent that gives up and comes again makes a busy server busier.
pub async fn connect(way: &Way, config: ClientConfig) -> anyhow::Result<Channel> {
    let Way { server, from } = way.clone();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
            let socket = reach(&host, uri.port_u16().unwrap_or(443), from).await?;
            socket.set_nodelay(true)?;
            std::io::Result::Ok(TokioIo::new(connector.connect(name, socket).await?))
        }
    });
    let patience = Duration::from_secs(15);
    let keepalive = Duration::from_secs(5);
    // "http" to tonic, which would add TLS of its own otherwise; the server sees the origin.
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .context("the server's address is host:port")?
        .origin(format!("https://{server}").parse().context("the server's address is host:port")?)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true);
    tokio::time::timeout(patience, endpoint.connect_with_connector(connect))
        .await
        .with_context(|| format!("{server} did not answer within {} s", patience.as_secs()))?
        .with_context(|| format!("connecting to {server}"))
}

/// Until when this agent's certificate is valid.
pub fn valid_until(credentials: &Credentials) -> anyhow::Result<time::OffsetDateTime> {
    validity(credentials).map(|(_, until)| until)
}

/// When this agent's certificate has passed two thirds of its life.
pub fn renewal_due(credentials: &Credentials) -> anyhow::Result<time::OffsetDateTime> {
    let (from, until) = validity(credentials)?;
    Ok(until - (until - from) / 3)
}

fn validity(credentials: &Credentials) -> anyhow::Result<(time::OffsetDateTime, time::OffsetDateTime)> {
    let certificate = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes())
        .context("reading this agent's certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).context("reading this agent's certificate")?;
    let validity = parsed.validity();
    Ok((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}

/// A certificate request for a key, PEM.
pub fn request(key_pem: &str) -> anyhow::Result<String> {
    let key = KeyPair::from_pem(key_pem).context("reading this agent's key")?;
    CertificateParams::default()
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .context("making a certificate request")
}

#[derive(Debug)]
struct PinnedCa {
    ca_fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.ca_fingerprint)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::TcpListener;

    use super::*;

    fn parsed(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_come_in_any_order_but_by_family() {
        let addresses = parsed(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1"]);
        let mut orders = BTreeSet::new();
        for _ in 0..200 {
            let order = in_turn(addresses.clone(), None);
            let families: Vec<bool> = order.iter().map(SocketAddr::is_ipv6).collect();
            assert_eq!(families, [true, true, false, false]);
            orders.insert(order);
        }
        assert_eq!(orders.len(), 4, "each of the nodes is first for some");
        let from_v4 = in_turn(addresses, Some("127.0.0.1".parse().unwrap()));
        assert!(from_v4.len() == 2 && from_v4.iter().all(SocketAddr::is_ipv4));
    }

    #[tokio::test]
    async fn nodes_that_are_down_are_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let refuses = SocketAddr::from(([127, 0, 0, 2], there.port()));
        // Takes no more connections than wait for it, which nobody accepts.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let says_nothing = silent.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(says_nothing)).await
        {
            waiting.push(stream.unwrap());
        }
        let reached = first_that_answers(vec![refuses, says_nothing, there], None).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap(), there);
        drop(listener);
        assert!(first_that_answers(vec![refuses, there], None).await.is_err());
    }
}

//! The installation's certificate authority for agents: server certificate, client certificates of PBXes.

use policy::ids::{PbxId, TenantId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use store::Store;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::ctx::secret;
use crate::error::ActError;
use crate::seal::MasterKey;

/// Certificates are valid from so long ago: the clock of a PBX may be behind, by the hours of its time zone, say, and its agent checks ours.
const SINCE: Duration = Duration::days(1);
/// How long the certificate of a PBX is valid.
pub const PBX_CERTIFICATE_DAYS: i64 = 30;

/// The authority: its certificate, and the key that signs.
pub struct CertificateAuthority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("fingerprint", &self.fingerprint_hex()).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    certificate_pem: String,
    key_pem: String,
}

/// The server's own certificate.
#[derive(Debug)]
pub struct ServerCertificate {
    /// Leaf first, then the CA.
    pub chain_der: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key_der: Zeroizing<Vec<u8>>,
}

/// A certificate issued to a PBX.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub pem: String,
    /// SHA-256 of its DER form.
    pub fingerprint: Vec<u8>,
    /// Until when it is valid.
    pub expires_at: OffsetDateTime,
}

impl CertificateAuthority {
    pub(crate) async fn load(store: &Store, master_key: &MasterKey, now: OffsetDateTime) -> Result<Self, ActError> {
        let kept = secret(store, master_key, "agent-ca", now, || make(now)).await?;
        let kept: Kept = serde_json::from_slice(&kept).map_err(ActError::internal)?;
        let key = KeyPair::from_pem(&kept.key_pem).map_err(ActError::internal)?;
        let issuer = Issuer::from_ca_cert_pem(&kept.certificate_pem, key).map_err(ActError::internal)?;
        let (_, der) = x509_parser::pem::parse_x509_pem(kept.certificate_pem.as_bytes()).map_err(ActError::internal)?;
        Ok(Self { pem: kept.certificate_pem, der: der.contents, issuer })
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of its certificate; goes into enrolment tokens, so that an agent knows the server before it trusts it.
    pub fn fingerprint_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(&self.der))
    }

    /// A certificate for this server under the names that agents dial.
    pub fn server_certificate(&self, names: &[String], now: OffsetDateTime) -> Result<ServerCertificate, ActError> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(ActError::internal)?;
        params.distinguished_name = named("Ringfence server");
        params.not_before = now - SINCE;
        params.not_after = now + Duration::days(397);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(ActError::internal)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(ActError::internal)?;
        let chain_der = vec![leaf.der().to_vec(), self.der.clone()];
        Ok(ServerCertificate { chain_der, key_der: Zeroizing::new(key.serialize_der()) })
    }

    /// A client certificate for a PBX. Only the public key of the request is used; who it is for is ours to say.
    ///
    /// # Errors
    /// When the request can't be read or isn't signed by its own key.
    pub fn issue(&self, csr_pem: &str, tenant: TenantId, pbx: PbxId, now: OffsetDateTime) -> Result<Issued, ActError> {
        let unreadable = |_| ActError::Refused("The certificate request can't be read. Update the agent.".to_owned());
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(unreadable)?;
        let expires_at = now + Duration::days(PBX_CERTIFICATE_DAYS);
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("pbx {pbx}"));
        let identity = Ia5String::try_from(identity_uri(tenant, pbx)).map_err(ActError::internal)?;
        params.subject_alt_names = vec![SanType::URI(identity)];
        params.not_before = now - SINCE;
        params.not_after = expires_at;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        let certificate = request.signed_by(&self.issuer).map_err(ActError::internal)?;
        Ok(Issued { pem: certificate.pem(), fingerprint: Sha256::digest(certificate.der()).to_vec(), expires_at })
    }
}

/// Who the certificate of a PBX is for, from its subject alternative name.
pub(crate) fn identity(certificate_der: &[u8]) -> Option<(TenantId, PbxId)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
        let (tenant, pbx) = uri.strip_prefix("ringfence://tenant/")?.split_once("/pbx/")?;
        Some((tenant.parse().ok()?, pbx.parse().ok()?))
    })
}

fn identity_uri(tenant: TenantId, pbx: PbxId) -> String {
    format!("ringfence://tenant/{tenant}/pbx/{pbx}")
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn make(now: OffsetDateTime) -> Result<Zeroizing<Vec<u8>>, ActError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Ringfence agents CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - SINCE;
    params.not_after = now + Duration::days(3650);
    let key = KeyPair::generate().map_err(ActError::internal)?;
    let certificate = params.self_signed(&key).map_err(ActError::internal)?;
    let kept = Kept { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    serde_json::to_vec(&kept).map(Zeroizing::new).map_err(ActError::internal)
}

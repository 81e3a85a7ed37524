//! Becoming the agent of a PBX: a one-time token against a certificate. The key is made here and never leaves this machine.

use anyhow::{Context as _, bail};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use proto::pb;
use proto::pb::enrolment_client::EnrolmentClient;
use rcgen::KeyPair;
use serde::Deserialize;

use crate::state::{Credentials, Identity};
use crate::tls;

/// What the token says, as far as the agent needs it. The server checks the signature; the agent can't, and needn't: a forged
/// token only leads to a server that doesn't take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// SHA-256 of the server's CA certificate.
    pub ca_fingerprint: [u8; 32],
    /// Where the server listens for agents, `host:port`.
    pub server: String,
}

#[derive(Deserialize)]
struct RawClaims {
    ca: String,
    server: String,
}

/// Reads a token.
///
/// # Errors
/// What is wrong with it, in words for whoever pasted it.
pub fn read_token(token: &str) -> anyhow::Result<TokenClaims> {
    let wrong = "this is no enrolment token; copy the whole command that the portal shows";
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [_, claims, _] = parts.as_slice() else { bail!(wrong) };
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).context(wrong)?;
    let RawClaims { ca, server } = serde_json::from_slice(&claims).context(wrong)?;
    let ca_fingerprint =
        HEXLOWER_PERMISSIVE.decode(ca.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).context(wrong)?;
    Ok(TokenClaims { ca_fingerprint, server })
}

/// Enrols. `server` overrides where the token says that the server is.
///
/// # Errors
/// What the server or the connection said.
pub async fn enrol(token: &str, server: Option<&str>, hostname: &str) -> anyhow::Result<(Identity, Credentials)> {
    let token = token.trim();
    let claims = read_token(token)?;
    let server = server.map_or(claims.server, ToOwned::to_owned);
    let key = KeyPair::generate().context("making a key")?;
    let request = tls::request(&key.serialize_pem())?;
    let channel = tls::connect(&tls::Way::to(&server), tls::pinned(claims.ca_fingerprint)?).await?;
    let answer = EnrolmentClient::new(channel)
        .enrol(pb::EnrolRequest {
            token: token.to_owned(),
            csr_pem: request,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: hostname.to_owned(),
        })
        .await
        .map_err(|status| anyhow::anyhow!("the server refused: {}", status.message()))?
        .into_inner();
    let credentials =
        Credentials { key_pem: key.serialize_pem(), certificate_pem: answer.certificate_pem, ca_pem: answer.ca_pem };
    tls::check_credentials(&credentials, claims.ca_fingerprint)?;
    Ok((Identity { server, pbx_name: answer.pbx_name }, credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let claims = |json: &str| read_token(&format!("e30.{}.c2ln", BASE64URL_NOPAD.encode(json.as_bytes())));
        let good = claims(&format!(
            r#"{{"jti":"1","tenant":"t","pbx":"p","exp":1,"ca":"{}","server":"portal.example:3443"}}"#,
            "ab".repeat(32)
        ));
        assert_eq!(good.unwrap(), TokenClaims { ca_fingerprint: [0xab; 32], server: "portal.example:3443".into() });
        for bad in ["{}", "", r#"{"ca":"ab","server":"x:1"}"#] {
            assert!(claims(bad).is_err(), "{bad}");
        }
        for bad in ["", "a.b", "a.b.c", "....", "😀.😀.😀"] {
            assert!(read_token(bad).is_err(), "{bad}");
        }
    }
}

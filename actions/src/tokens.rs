//! Random tokens that go out by mail or on paper, and the hashes that are kept of them.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use policy::ids::TenantId;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

/// A token of 256 random bits, for links.
pub(crate) fn link_token() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    BASE64URL_NOPAD.encode(&bytes)
}

/// Whether a text may be one of these.
pub(crate) fn is_link_token(text: &str) -> bool {
    BASE64URL_NOPAD.decode(text.as_bytes()).is_ok_and(|bytes| bytes.len() == 32)
}

/// A token of a tenant, for links that are followed by who isn't logged in.
pub(crate) fn of_tenant(tenant: TenantId, token: &str) -> String {
    format!("{}.{token}", tenant.0.simple())
}

/// The tenant and the token of [`of_tenant`].
pub(crate) fn parse_of_tenant(link: &str) -> Option<(TenantId, &str)> {
    let (tenant, token) = link.split_once('.')?;
    Some((tenant.parse().ok()?, token))
}

/// A recovery code of 50 random bits, for paper: `k7fmq-x2v5r`.
pub(crate) fn recovery_code() -> String {
    let mut bytes = [0u8; 7];
    rand::rng().fill_bytes(&mut bytes);
    let text = BASE32_NOPAD.encode(&bytes).to_lowercase();
    format!("{}-{}", &text[..5], &text[5..10])
}

/// What is kept of a token. Tokens are random and long, so that a plain hash is enough.
pub(crate) fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// What is kept of a recovery code, however it was typed. Keyed by the person, so that equal codes do not show.
pub(crate) fn recovery_hash(person: uuid::Uuid, typed: &str) -> Vec<u8> {
    let code: String = typed.chars().filter(char::is_ascii_alphanumeric).flat_map(char::to_lowercase).collect();
    hash(&format!("{person}:{code}"))
}

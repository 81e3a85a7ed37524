//! Secrets at rest: AES-256-GCM under the installation's master key, the secret's name as associated data, so that one
//! sealed secret cannot be put in another's place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::ActError;

const NONCE_BYTES: usize = 12;

/// The installation's master key.
pub struct MasterKey {
    key: RandomizedNonceKey,
    id: String,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl MasterKey {
    /// A key from its 32 bytes. Its id is the beginning of their hash.
    ///
    /// # Errors
    /// When there are not exactly 32 bytes.
    pub fn new(bytes: &Zeroizing<Vec<u8>>) -> Result<Self, String> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map_err(|_| format!("the master key has {} bytes instead of 32", bytes.len()))?;
        let id = HEXLOWER.encode(&Sha256::digest(bytes.as_slice())).chars().take(16).collect();
        Ok(Self { key, id })
    }

    /// The key's id, kept beside what it seals.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a secret: nonce, ciphertext, tag.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, ActError> {
        let mut text = secret.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut text)
            .map_err(|_| ActError::internal(format!("sealing {name}")))?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed under the same name.
    pub fn open(&self, name: &str, key_id: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ActError> {
        let broken = || {
            ActError::internal(format!(
                "opening {name}: sealed with master key {key_id}, the configured one is {}",
                self.id
            ))
        };
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text).map_err(|_| broken())?.len();
        text.truncate(length);
        Ok(text)
    }
}

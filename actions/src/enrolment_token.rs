//! One-time tokens with which an agent enrols: a JWT that the server signs and the agent reads.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use policy::ids::{PbxId, TenantId};
use serde::{Deserialize, Serialize};
use store::Store;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ctx::secret;
use crate::error::ActError;
use crate::seal::MasterKey;

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The token's id; the PBX's row holds the one that may be used.
    pub jti: Uuid,
    /// The tenant.
    pub tenant: TenantId,
    /// The PBX.
    pub pbx: PbxId,
    /// Until when, in seconds since 1970.
    pub exp: i64,
    /// SHA-256 of the CA's certificate, hexadecimal.
    pub ca: String,
    /// `host:port` to dial.
    pub server: String,
}

/// Its name among the secrets.
const SECRET: &str = "enrolment-token";

/// Signs and verifies tokens.
pub(crate) struct TokenKey {
    sign: EncodingKey,
    verify: DecodingKey,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    pub(crate) async fn load(store: &Store, master_key: &MasterKey, now: OffsetDateTime) -> Result<Self, ActError> {
        let key = secret(store, master_key, SECRET, now, || {
            let mut bytes = Zeroizing::new(vec![0u8; 32]);
            rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
            Ok(bytes)
        })
        .await?;
        Ok(Self { sign: EncodingKey::from_secret(&key), verify: DecodingKey::from_secret(&key) })
    }

    /// Whether the kept key can be opened with the master key; changes nothing.
    pub(crate) async fn opens(store: &Store, master_key: &MasterKey) -> Result<bool, ActError> {
        let mut tx = store.platform().await?;
        let kept = store::secrets::get(&mut tx, SECRET).await?;
        tx.commit().await?;
        Ok(kept.is_some_and(|kept| master_key.open(SECRET, &kept.key_id, &kept.sealed).is_ok()))
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, ActError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.sign).map_err(ActError::internal)
    }

    /// The claims of a token that we signed. Whether it has expired or was used is the caller's to check, by our clock.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        jsonwebtoken::decode::<Claims>(token, &self.verify, &validation).ok().map(|data| data.claims)
    }
}

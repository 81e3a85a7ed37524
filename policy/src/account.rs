//! Who a session is and what it still lacks.

use serde::{Deserialize, Serialize};

use crate::authz::{Permission, Role};
use crate::ids::TenantId;

/// For so long after a second factor was shown what asks for a fresh one is done without asking again.
pub const FRESH_MINUTES: i64 = 10;

/// How far a login has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nobody is logged in.
    SignedOut,
    /// The password was right; a TOTP or recovery code is needed.
    NeedsCode,
    /// The password was right; TOTP must be set up before anything else opens.
    NeedsTotpSetup,
    /// Complete.
    SignedIn,
}

/// One tenant of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The organisation's name.
    pub tenant_name: String,
    /// Its short name.
    pub slug: String,
    /// What the person is there.
    pub role: Role,
}

/// The session as the pages see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// How far the login has come. Below [`Stage::SignedIn`] the rest is empty but `email`.
    pub stage: Stage,
    /// The person's e-mail address; empty when signed out.
    pub email: String,
    /// The tenant worked in.
    pub current: Option<Membership>,
    /// All tenants of the person.
    pub tenants: Vec<Membership>,
    /// What the role allows in this tenant.
    pub permissions: Vec<Permission>,
    /// The address that the request came from.
    pub address: String,
    /// Whether mails are kept at `/dev/mailbox` because no mail server is configured.
    pub development_mailbox: bool,
}

impl Me {
    /// Whether the page may show what needs this permission.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}

/// What a person needs to set up TOTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpSetup {
    /// The QR code, a PNG in base64.
    pub qr_png_base64: String,
    /// The key to type by hand, base32 in groups of four.
    pub key: String,
}

/// How strong a password is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordStrength {
    /// 0 (guessed at once) to 4 (strong); below 3 is refused.
    pub score: u8,
    /// What makes it weak, in words; empty when strong.
    pub hint: String,
}

/// What the form for a new tenant holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SignUpForm {
    /// The organisation's name.
    pub organisation: String,
    /// Its short name.
    pub slug: String,
    /// The person's e-mail address.
    pub email: String,
    /// The person's password.
    pub password: String,
}

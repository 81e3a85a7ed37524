//! Identifiers. `UUIDv7`, one newtype each, so that a PBX cannot be passed where a person is meant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )*};
}

id! {
    /// An organisation with its own PBXes, people and rules.
    TenantId,
    /// A person; may belong to several tenants.
    UserId,
    /// An invitation to a tenant.
    InvitationId,
    /// A session, as people and pages call it.
    SessionId,
    /// A PBX and the agent on it.
    PbxId,
    /// An entry of Allowed IPs.
    AllowedIpId,
    /// A ban, made by an agent or by hand. An agent makes the id, so that a ban reported twice is stored once.
    BanId,
    /// A batch of reports of an agent; stored once however often it is sent.
    BatchId,
    /// An audit row.
    AuditId,
}

//! What agents do: enrol, connect, apply, report. Who an agent is comes from its certificate alone.

mod enrolment;
mod reports;
mod stream;
mod sync;

use policy::authz::Operation;
use policy::ids::{PbxId, TenantId};
use sha2::{Digest as _, Sha256};
pub use store::agents::{AppliedBans, AppliedPolicy, Certified, Health, Told};
pub use store::nodes::Marks;
use time::OffsetDateTime;

use crate::act::{Act, Actor};
use crate::ca;
use crate::ctx::Ctx;
use crate::error::ActError;

pub use enrolment::{EnrolRequest, Enrolled, enrol, renew};
pub use reports::{Report, report};
pub use stream::{
    Hello, Tenancy, connected, disconnected, drifted, look, marks, policy_refused, taken_over, told, withheld,
};
pub use sync::{BanChanges, BanSync, ban_changes_after, bans_since, policy};

/// An agent whose certificate holds.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its PBX.
    pub pbx_id: PbxId,
    /// The PBX's name.
    pub pbx_name: String,
    /// Until when its certificate holds.
    pub expires_at: OffsetDateTime,
    /// Hash of its certificate.
    fingerprint: Vec<u8>,
}

impl Agent {
    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    fn actor(&self) -> Actor {
        Actor { tenant_id: self.tenant_id, name: format!("pbx {}", self.pbx_name), address: None }
    }

    async fn act<'a>(&self, ctx: &'a Ctx) -> Result<Act<'a>, ActError> {
        Act::begin_as(ctx, self.actor(), Operation::LinkAgent).await
    }
}

/// The tenant that a certificate names, which must be from our CA; nothing else of it is looked at.
///
/// # Errors
/// `NotFound` when it names none.
pub fn tenant_of(certificate_der: &[u8]) -> Result<TenantId, ActError> {
    ca::identity(certificate_der).map(|(tenant_id, _)| tenant_id).ok_or(ActError::NotFound)
}

/// Who a certificate is.
///
/// # Errors
/// `NotFound` when it isn't known, has expired or was revoked.
pub async fn identify(ctx: &Ctx, certificate_der: &[u8]) -> Result<Agent, ActError> {
    let (tenant_id, pbx_id) = ca::identity(certificate_der).ok_or(ActError::NotFound)?;
    let fingerprint = Sha256::digest(certificate_der).to_vec();
    let mut tx = ctx.store().tenant_for_agents(tenant_id).await?;
    let found = store::agents::by_certificate(&mut tx, &fingerprint, ctx.now()).await?;
    tx.commit().await?;
    match found {
        Some(Certified { id, name, expires_at, .. }) if id == pbx_id => {
            Ok(Agent { tenant_id, pbx_id, pbx_name: name, expires_at, fingerprint })
        }
        _ => Err(ActError::NotFound),
    }
}

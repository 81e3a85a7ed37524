//! Where a tenant stands, for those who were promised hints: whoever missed one sees by comparing what has changed.

use policy::ids::TenantId;
pub use store::tenants::Standing;

use crate::bus::Topic;
use crate::ctx::Ctx;
use crate::error::ActError;

/// Where the tenant stands.
pub async fn read(ctx: &Ctx, tenant: TenantId) -> Result<Standing, ActError> {
    let mut tx = ctx.store().tenant(tenant).await?;
    let standing = store::tenants::standing(&mut tx).await?.ok_or(ActError::NotFound)?;
    tx.commit().await?;
    Ok(standing)
}

/// What has changed from one to the other.
pub fn between(before: &Standing, after: &Standing) -> Vec<Topic> {
    let mut topics = Vec::new();
    if before.policy_revision != after.policy_revision {
        topics.extend([Topic::Policy, Topic::AllowedIps]);
    }
    if before.ban_seq != after.ban_seq {
        topics.extend([Topic::Bans, Topic::BlockedIps]);
    }
    if before.audit_seq != after.audit_seq {
        // Whatever changes access leaves a row.
        topics.extend([Topic::Audit, Topic::People]);
    }
    if before.pbxes != after.pbxes {
        topics.push(Topic::Pbxes);
    }
    topics
}

//! How far the newest change is enforced.

use policy::authz::Operation;
use policy::enforcement::{self, Enforcement};

use crate::act::Act;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;

/// Sums up the tenant's PBXes.
pub async fn show(ctx: &Ctx, caller: &Caller) -> Result<Enforcement, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ShowEnforcement).await?;
    let now = act.now;
    let pbxes = store::pbxes::list(&mut act.tx, now).await?;
    act.finish(Ok(enforcement::sum_up(&pbxes))).await
}

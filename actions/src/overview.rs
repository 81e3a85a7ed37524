//! The overview page.

use policy::authz::Operation;
use policy::overview::{self, Overview};
use store::blocked_ips::Search;
use time::Duration;

use crate::act::Act;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;

/// Bans shown as newest.
const NEWEST: i64 = 8;

/// Everything that the overview shows.
pub async fn show(ctx: &Ctx, caller: &Caller) -> Result<Overview, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ShowOverview).await?;
    let now = act.now;
    let tx = &mut act.tx;
    let pbxes = store::pbxes::list(tx, now).await?;
    let allowed_ips = store::allowed_ips::count(tx, &store::allowed_ips::Search::default()).await?;
    let overview = Overview {
        enforcement: policy::enforcement::sum_up(&pbxes),
        hours: store::rollups::last_day(tx, now).await?,
        attempts_last_hour: store::rollups::attempts_since(tx, now - Duration::hours(1)).await?,
        active_bans: store::blocked_ips::count(tx, &Search::default()).await?,
        newest_bans: store::blocked_ips::list(tx, &Search::default(), None, NEWEST).await?,
        attention: overview::attention(&pbxes, allowed_ips),
        allowed_ips,
        pbxes,
    };
    act.finish(Ok(overview)).await
}

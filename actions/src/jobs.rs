//! What runs by itself: ending what has expired, delivering mail, clearing up.

use time::Duration;

use crate::act::{Act, Actor};
use crate::bans;
use crate::bus::Topic;
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::mail::Mailer;

/// Bans ended in one transaction.
const BATCH: i64 = 1_000;

/// Ends bans and allowed entries whose time is over. PBXes have ended them by themselves; this tells the portal.
pub async fn expire(ctx: &Ctx) -> Result<(), ActError> {
    for tenant_id in store::jobs::tenants_with_expired(ctx.store(), ctx.now()).await? {
        let actor = Actor { tenant_id, name: "system".to_owned(), address: None };
        // Bans end by the expiry that their own audit row names; only the end of an allowed entry, which opens nothing but closes
        // something, gets a row.
        let mut act = Act::begin_as(ctx, actor.clone(), policy::authz::Operation::LinkAgent).await?;
        while bans::end_expired(&mut act, BATCH).await? == usize::try_from(BATCH).unwrap_or(usize::MAX) {}
        act.finish_quietly().await?;
        let mut act = Act::begin_as(ctx, actor, policy::authz::Operation::DeleteAllowedIps).await?;
        let now = act.now;
        let ended = store::allowed_ips::delete_expired(&mut act.tx, now).await?;
        if ended.is_empty() {
            act.finish_quietly().await?;
            continue;
        }
        act.subject(ended.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join(", "));
        act.detail("expired", ended.len());
        act.publish(Topic::AllowedIps);
        act.raise_revision().await?;
        act.finish(Ok(())).await?;
    }
    Ok(())
}

/// Delivers mail that is due; a failure is tried again, later each time, for about two days.
pub async fn deliver_mail(ctx: &Ctx, mailer: &Mailer) -> Result<(), ActError> {
    let now = ctx.now();
    for mail in store::mails::take_due(ctx.store(), now, now + Duration::minutes(2)).await? {
        match mailer.send(&mail).await {
            Ok(()) => store::mails::sent(ctx.store(), mail.id, ctx.now()).await?,
            Err(error) => {
                tracing::warn!(mail.id = %mail.id, mail.tries = mail.tries, error, "delivering a mail");
                let wait = Duration::seconds(10 << mail.tries.clamp(0, 14));
                store::mails::failed(ctx.store(), mail.id, &error, now + wait).await?;
            }
        }
    }
    Ok(())
}

/// Deletes what is of no use any more.
pub async fn sweep(ctx: &Ctx) -> Result<(), ActError> {
    store::jobs::sweep_platform(ctx.store(), ctx.now()).await?;
    for tenant in store::jobs::all_tenants(ctx.store()).await? {
        store::jobs::sweep_tenant(ctx.store(), tenant, ctx.now()).await?;
    }
    Ok(())
}

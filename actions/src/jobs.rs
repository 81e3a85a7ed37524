//! What runs by itself: ending what has expired, delivering mail, clearing up.

use policy::authz::Operation;
use policy::ids::TenantId;
use policy::metrics::{MAIL_FAILURES, MAILS_GIVEN_UP, MAILS_WAITING};
use time::Duration;

use crate::act::{Act, Actor};
use crate::bans;
use crate::bus::Topic;
use crate::ctx::Ctx;
use crate::error::{ActError, chain};
use crate::mail::Mailer;

/// Bans ended in one transaction.
const BATCH: usize = 1_000;

/// Mails sent in one run; the others have the next one.
const MAILS: usize = 20;

/// A delivery that takes longer has failed. Shorter than [`LEASE`], so that no two nodes are at the same mail.
const SEND_WITHIN: std::time::Duration = std::time::Duration::from_mins(1);

/// For so long no other node takes a mail that this one sends.
const LEASE: Duration = Duration::minutes(2);

/// Says that this node is alive.
pub async fn beat(ctx: &Ctx) -> Result<(), ActError> {
    Ok(store::nodes::beat(ctx.store(), ctx.node(), ctx.now()).await?)
}

/// Says that this node is gone.
pub async fn leave(ctx: &Ctx) -> Result<(), ActError> {
    Ok(store::nodes::leave(ctx.store(), ctx.node()).await?)
}

/// Ends bans and allowed entries whose time is over. PBXes have ended them by themselves; this tells the portal. A tenant for
/// which it fails has its next turn, and holds up no other.
pub async fn expire(ctx: &Ctx) -> Result<(), ActError> {
    for tenant_id in store::jobs::tenants_with_expired(ctx.store(), ctx.now()).await? {
        if let Err(error) = expire_of(ctx, tenant_id).await {
            tracing::error!(tenant.id = %tenant_id, error = %chain(&error), "ending what has expired");
        }
    }
    Ok(())
}

async fn expire_of(ctx: &Ctx, tenant_id: TenantId) -> Result<(), ActError> {
    let actor = Actor { tenant_id, name: "system".to_owned(), address: None };
    while expire_bans(ctx, &actor).await? == BATCH {}
    expire_allowed(ctx, actor).await
}

/// One batch of them; answers how many. Bans end by the expiry that their own audit row names; only the end of an allowed
/// entry, which opens nothing but closes something, gets a row.
async fn expire_bans(ctx: &Ctx, actor: &Actor) -> Result<usize, ActError> {
    let mut act = Act::begin_as(ctx, actor.clone(), Operation::LinkAgent).await?;
    let ended = bans::end_expired(&mut act, i64::try_from(BATCH).unwrap_or(i64::MAX)).await?;
    act.finish_quietly().await?;
    Ok(ended)
}

async fn expire_allowed(ctx: &Ctx, actor: Actor) -> Result<(), ActError> {
    let mut act = Act::begin_as(ctx, actor, Operation::DeleteAllowedIps).await?;
    let now = act.now;
    store::ban_set::lock(&mut act.tx).await?;
    let ended = store::allowed_ips::delete_expired(&mut act.tx, now).await?;
    if ended.is_empty() {
        return act.finish_quietly().await;
    }
    act.subject(ended.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join(", "));
    act.detail("expired", ended.len());
    act.publish(Topic::AllowedIps);
    act.raise_revision().await?;
    act.finish(Ok(())).await
}

/// Delivers mail that is due; a failure is tried again, later each time, for about two days.
pub async fn deliver_mail(ctx: &Ctx, mailer: &Mailer) -> Result<(), ActError> {
    for _ in 0..MAILS {
        let now = ctx.now();
        let Some(mail) = store::mails::take_due(ctx.store(), now, now + LEASE).await? else { break };
        let sent = tokio::time::timeout(SEND_WITHIN, mailer.send(&mail)).await;
        match sent.unwrap_or_else(|_| Err("the mail server took too long".to_owned())) {
            Ok(()) => store::mails::sent(ctx.store(), mail.id, ctx.now()).await?,
            Err(error) => {
                metrics::counter!(MAIL_FAILURES.name).increment(1);
                tracing::warn!(mail.id = %mail.id, mail.tries = mail.tries, error, "delivering a mail");
                store::mails::failed(ctx.store(), mail.id, &error, ctx.now() + wait_after(mail.tries)).await?;
            }
        }
    }
    Ok(())
}

/// Counts what waits, for the metrics.
pub async fn measure(ctx: &Ctx) -> Result<(), ActError> {
    let (waiting, given_up) = store::mails::backlog(ctx.store()).await?;
    #[expect(clippy::cast_precision_loss, reason = "nobody has so many mails")]
    let gauge = |count: i64| count as f64;
    metrics::gauge!(MAILS_WAITING.name).set(gauge(waiting));
    metrics::gauge!(MAILS_GIVEN_UP.name).set(gauge(given_up));
    Ok(())
}

/// How long a mail waits after a try that failed: 20 s after the first, each time twice as long.
fn wait_after(tries: i32) -> Duration {
    Duration::seconds(10 << tries.min(store::mails::MOST_TRIES))
}

/// Deletes what is of no use any more. A tenant for which it fails has its next turn, and holds up no other.
pub async fn sweep(ctx: &Ctx) -> Result<(), ActError> {
    let platform = store::jobs::sweep_platform(ctx.store(), ctx.now()).await;
    for tenant_id in store::jobs::all_tenants(ctx.store()).await? {
        if let Err(error) = store::jobs::sweep_tenant(ctx.store(), tenant_id, ctx.now()).await {
            tracing::error!(tenant.id = %tenant_id, error = %chain(&error), "clearing up");
        }
    }
    Ok(platform?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_given_up_after_about_two_days() {
        let waits: Duration = (1..store::mails::MOST_TRIES).map(wait_after).sum();
        assert!((44..=52).contains(&waits.whole_hours()), "{waits}");
    }
}

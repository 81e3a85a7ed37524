//! Changes of a tenant's set of bans: kept, numbered, digested, published, in one transaction.

use policy::bans::{BanChange, BanEntry};
use policy::ids::BanId;
use store::ban_set::BanSet;
use store::blocked_ips::NewBan;

use crate::act::Act;
use crate::bus::Topic;
use crate::error::ActError;

/// Keeps bans. One that holds for the same network is ended and replaced. Answers whether any was.
pub(crate) async fn add(act: &mut Act<'_>, bans: &[NewBan], by: &str) -> Result<bool, ActError> {
    let set = store::ban_set::lock(&mut act.tx).await?;
    let mut digest = set.digest;
    let mut changes = Vec::with_capacity(bans.len());
    let mut replaced = false;
    for ban in bans {
        if let Some((id, old)) = store::blocked_ips::holding(&mut act.tx, ban.entry.net).await? {
            store::blocked_ips::end(&mut act.tx, &[id], by, act.now).await?;
            digest.remove(&old);
            replaced = true;
        }
        store::blocked_ips::insert(&mut act.tx, ban).await?;
        digest.add(&ban.entry);
        changes.push(BanChange::Add(ban.entry));
    }
    store::ban_set::append(&mut act.tx, &set, &changes, digest).await?;
    publish(act);
    Ok(replaced)
}

/// Ends bans by id; answers what they were.
pub(crate) async fn end(act: &mut Act<'_>, ids: &[BanId], by: &str) -> Result<Vec<BanEntry>, ActError> {
    let set = store::ban_set::lock(&mut act.tx).await?;
    let ended = store::blocked_ips::end(&mut act.tx, ids, by, act.now).await?;
    removed(act, set, &ended).await?;
    Ok(ended)
}

/// Ends bans whose time is over, at most `limit`; answers how many.
pub(crate) async fn end_expired(act: &mut Act<'_>, limit: i64) -> Result<usize, ActError> {
    let set = store::ban_set::lock(&mut act.tx).await?;
    let ended = store::blocked_ips::end_expired(&mut act.tx, act.now, limit).await?;
    removed(act, set, &ended).await?;
    Ok(ended.len())
}

async fn removed(act: &mut Act<'_>, set: BanSet, ended: &[BanEntry]) -> Result<(), ActError> {
    if ended.is_empty() {
        return Ok(());
    }
    let mut digest = set.digest;
    for entry in ended {
        digest.remove(entry);
    }
    let changes: Vec<BanChange> = ended.iter().map(|entry| BanChange::Remove(entry.net)).collect();
    store::ban_set::append(&mut act.tx, &set, &changes, digest).await?;
    publish(act);
    Ok(())
}

fn publish(act: &mut Act<'_>) {
    act.publish(Topic::Bans);
    act.publish(Topic::BlockedIps);
}

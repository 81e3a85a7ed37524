//! Changes of a tenant's set of bans: kept, numbered, digested, published, in one transaction.

use std::collections::BTreeSet;

use ipnet::IpNet;
use policy::bans::{BanChange, BanEntry};
use policy::blocked_ips::BanSource;
use policy::ids::BanId;
use policy::metrics::BANS_STORED;
use store::ban_set::BanSet;
use store::blocked_ips::NewBan;

use crate::act::Act;
use crate::bus::Topic;
use crate::error::ActError;

/// Keeps bans, in order. One that holds for the same network is ended and replaced. Answers whether any was.
pub(crate) async fn add(act: &mut Act<'_>, bans: &[NewBan], by: &str) -> Result<bool, ActError> {
    let set = store::ban_set::lock(&mut act.tx).await?;
    let nets: Vec<IpNet> = bans.iter().map(|ban| ban.entry.net).collect();
    let mut holding = store::blocked_ips::holding(&mut act.tx, &nets).await?;
    let mut digest = set.digest;
    let mut replaced = BTreeSet::new();
    for ban in bans {
        if let Some((id, old)) = holding.insert(ban.entry.net, (ban.id, ban.entry)) {
            digest.remove(&old);
            replaced.insert(id);
        }
        digest.add(&ban.entry);
    }
    if !replaced.is_empty() {
        let ids: Vec<BanId> = replaced.iter().copied().collect();
        store::blocked_ips::end(&mut act.tx, &ids, by, act.now).await?;
    }
    store::blocked_ips::insert(&mut act.tx, bans, &replaced, by, act.now).await?;
    let changes: Vec<BanChange> = bans.iter().map(|ban| BanChange::Add(ban.entry)).collect();
    store::ban_set::append(&mut act.tx, &set, &changes, digest).await?;
    for source in BanSource::ALL {
        act.count(&BANS_STORED, source.as_str(), bans.iter().filter(|ban| ban.source == source).count());
    }
    publish(act);
    Ok(!replaced.is_empty())
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

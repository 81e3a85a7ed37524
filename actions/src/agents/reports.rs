//! What agents report: stored once however often it is sent, the batches of a tenant's agents together.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use policy::allowed_ips::AllowedTarget;
use policy::authz::Operation;
use policy::bans::BanEntry;
use policy::blocked_ips::BanSource;
use policy::ids::{BanId, PbxId, TenantId};
use policy::metrics::BATCHES;
use policy::net;
use policy::reports::{DetectedBan, ReportBatch, ReportEvent};
use store::blocked_ips::NewBan;
use store::rollups::Count;
use time::OffsetDateTime;

use super::Agent;
use crate::act::{Act, Actor};
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{bans, blocked_ips};

/// A batch, and whose.
#[derive(Debug, Clone)]
pub struct Report {
    /// The agent.
    pub agent: Agent,
    /// What it reports.
    pub batch: ReportBatch,
}

/// Stores batches of one tenant's agents, in one transaction; a batch that was stored before changes nothing. Answers the number of the
/// last change of the set of bans.
pub async fn report(ctx: &Ctx, tenant: TenantId, reports: Vec<Report>) -> Result<i64, ActError> {
    let actor = Actor { tenant_id: tenant, name: "pbxes".to_owned(), address: None };
    let mut act = Act::begin_as(ctx, actor, Operation::LinkAgent).await?;
    match store(&mut act, reports).await {
        Ok(seq) => act.finish_quietly().await.map(|()| seq),
        // Each of them is refused, and audited, by itself if it comes alone.
        Err(error) => act.finish(Err(error)).await,
    }
}

async fn store(act: &mut Act<'_>, reports: Vec<Report>) -> Result<i64, ActError> {
    let detected = |event: &ReportEvent| matches!(event, ReportEvent::Detected(_));
    if reports.iter().flat_map(|report| &report.batch.events).any(detected) {
        // Before anything is looked up: another PBX, or an administrator, may be about to block or allow the same source.
        store::ban_set::lock(&mut act.tx).await?;
    }
    let ids: Vec<_> = reports.iter().map(|report| (report.batch.id, report.agent.pbx_id)).collect();
    let now = act.now;
    let mut new = store::agents::insert_batches(&mut act.tx, &ids, now).await?;
    act.count(&BATCHES, "stored", new.len());
    act.count(&BATCHES, "known", ids.len() - new.len());
    // One that comes twice at once counts the first time.
    let reports: Vec<Report> = reports.into_iter().filter(|report| new.remove(&report.batch.id)).collect();
    let mut ledger = Ledger::read(act, &reports).await?;
    let mut counts = Vec::new();
    let (mut new_bans, mut rows) = (Vec::new(), Vec::new());
    for Report { agent, batch } in reports {
        let kept_before = new_bans.len();
        for event in batch.events {
            match event {
                ReportEvent::Detected(ban) => new_bans.extend(ledger.accept(agent.pbx_id, ban)),
                ReportEvent::Attempts(count) => counts.push(Count {
                    pbx_id: agent.pbx_id,
                    at: count.minute.clamp(now - time::Duration::days(30), now),
                    attempts: i64::from(count.proven) + i64::from(count.unproven),
                    bans: 0,
                }),
            }
        }
        let kept = new_bans.get(kept_before..).unwrap_or_default();
        if !kept.is_empty() {
            let nets: Vec<IpNet> = kept.iter().map(|ban: &NewBan| ban.entry.net).collect();
            rows.push((agent, batch.id, nets));
        }
    }
    counts.extend(
        new_bans.iter().filter_map(|ban| Some(Count { pbx_id: ban.pbx_id?, at: ban.created_at, attempts: 0, bans: 1 })),
    );
    store::rollups::add(&mut act.tx, &counts).await?;
    if !new_bans.is_empty() {
        bans::add(act, &new_bans, "detection").await?;
    }
    for (agent, batch, nets) in rows {
        act.subject(&agent.pbx_name);
        blocked_ips::note_networks(act, nets.into_iter());
        act.detail("batch", batch.to_string());
        act.also_by(agent.actor());
    }
    Ok(store::ban_set::read(&mut act.tx).await?.seq)
}

/// What is known of the sources that are reported, as it changes with each that is kept.
struct Ledger {
    now: OffsetDateTime,
    known: HashSet<BanId>,
    allowed: Vec<IpNet>,
    holding: HashMap<IpNet, BanEntry>,
    times: HashMap<IpNet, i64>,
}

impl Ledger {
    async fn read(act: &mut Act<'_>, reports: &[Report]) -> Result<Self, ActError> {
        let now = act.now;
        let mut ledger =
            Self { now, known: HashSet::new(), allowed: Vec::new(), holding: HashMap::new(), times: HashMap::new() };
        let detected: Vec<&DetectedBan> = reports
            .iter()
            .flat_map(|report| &report.batch.events)
            .filter_map(|event| if let ReportEvent::Detected(ban) = event { Some(ban) } else { None })
            .collect();
        if detected.is_empty() {
            return Ok(ledger);
        }
        let ids: Vec<BanId> = detected.iter().map(|ban| ban.id).collect();
        let nets: Vec<IpNet> = detected.iter().map(|ban| ban.net).collect();
        ledger.known = store::blocked_ips::known(&mut act.tx, &ids).await?;
        let allowed = store::allowed_ips::entries(&mut act.tx, now).await?;
        ledger.allowed = allowed
            .into_iter()
            .filter_map(|entry| if let AllowedTarget::Net(net) = entry.target { Some(net) } else { None })
            .collect();
        let holding = store::blocked_ips::holding(&mut act.tx, &nets).await?;
        ledger.holding = holding.into_iter().map(|(net, (_, entry))| (net, entry)).collect();
        ledger.times = store::blocked_ips::times_banned(&mut act.tx, &nets).await?;
        Ok(ledger)
    }

    /// A reported ban as it is kept; `None` when it was kept before, or when its source has been allowed meanwhile.
    fn accept(&mut self, pbx_id: PbxId, ban: DetectedBan) -> Option<NewBan> {
        if net::unusable(&ban.net).is_some()
            || net::source_key(ban.net.addr()) != ban.net
            || self.allowed.iter().any(|allowed| allowed.contains(&ban.net))
            || !self.known.insert(ban.id)
        {
            return None;
        }
        let expires_at = blocked_ips::whole_seconds(Some(ban.expires_at));
        if let Some(holding) = self.holding.get(&ban.net)
            && holding.expires_at.is_none_or(|ends| Some(ends) >= expires_at)
        {
            // Another PBX, or an administrator, was faster and blocks it for at least as long.
            return None;
        }
        let entry = BanEntry { net: ban.net, expires_at };
        self.holding.insert(ban.net, entry);
        let times = self.times.entry(ban.net).or_insert(0);
        *times += 1;
        let times_banned = i32::try_from(*times).unwrap_or(i32::MAX);
        Some(NewBan {
            id: ban.id,
            entry,
            source: BanSource::Detection,
            reason: ban.reason,
            account: Some(ban.account).filter(|account| !account.is_empty()),
            pbx_id: Some(pbx_id),
            blocked_by: None,
            times_banned: times_banned.max(i32::try_from(ban.times_banned).unwrap_or(i32::MAX)),
            evidence: ban.evidence,
            // A PBX whose clock is ahead does not put bans into the future.
            created_at: ban.at.min(self.now),
        })
    }
}

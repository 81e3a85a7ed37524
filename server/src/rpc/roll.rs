//! The agents whose streams this node serves, by tenant. One task for each tenant hears the hints, looks into the database for what was
//! missed, and writes the heartbeats down: once for all of the tenant's agents, not once for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actions::agents::{self, Agent, Health, Tenancy};
use actions::bus::Topic;
use actions::{ActError, Ctx, chain};
use policy::ids::{PbxId, TenantId};
use policy::snapshot::PolicySnapshot;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often is looked for changes whose notification was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often heartbeats are written down.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Hints that come within this time lead to one look.
const TOGETHER: Duration = Duration::from_millis(20);

/// All streams of this node.
#[derive(Debug, Clone)]
pub(super) struct Roll {
    ctx: Ctx,
    tenants: Arc<Mutex<HashMap<TenantId, Arc<Tenant>>>>,
}

/// What a stream is told.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    /// The stream must end.
    pub(super) end: Option<End>,
    /// The PBX's name, if it was looked at.
    pub(super) name: Option<String>,
    /// When the policy may have changed.
    pub(super) policy: Option<Instant>,
    /// Rises when the bans may have changed.
    pub(super) bans: u64,
    /// The revision that the policy had at the last look.
    pub(super) revision: Option<i64>,
}

/// Why a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Revoked, removed, or its certificate has expired.
    Unknown,
    /// Another stream of the same PBX is newer.
    TakenOver,
}

/// The streams of one tenant's agents.
#[derive(Debug)]
pub(super) struct Tenant {
    id: TenantId,
    links: Mutex<HashMap<Uuid, Linked>>,
    look_soon: Notify,
    policy: tokio::sync::Mutex<Option<(Instant, Arc<PolicySnapshot>)>>,
}

#[derive(Debug)]
struct Linked {
    pbx: PbxId,
    fingerprint: Vec<u8>,
    entered: Instant,
    news: watch::Sender<News>,
    /// What the agent said last and isn't written down.
    health: Option<Health>,
}

/// A stream's place; dropped, it is off the roll.
#[derive(Debug)]
pub(super) struct Place {
    tenant: Arc<Tenant>,
    id: Uuid,
    news: watch::Receiver<News>,
}

impl Roll {
    /// An empty roll, kept up to date until `stopping`.
    pub(super) fn new(ctx: Ctx, stopping: CancellationToken) -> Self {
        let roll = Self { ctx, tenants: Arc::default() };
        let listening = roll.clone();
        // Before anybody is on it: a hint is missed by nobody.
        let changes = roll.ctx.bus().subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = listening.listen(changes) => {}
            }
        });
        roll
    }

    /// Puts a stream on the roll.
    pub(super) fn enter(&self, agent: &Agent, id: Uuid) -> Place {
        let (news, told) = watch::channel(News::default());
        let linked = Linked {
            pbx: agent.pbx_id,
            fingerprint: agent.fingerprint().to_vec(),
            entered: Instant::now(),
            news,
            health: None,
        };
        let mut tenants = locked(&self.tenants);
        let tenant = tenants.entry(agent.tenant_id).or_insert_with(|| {
            let tenant = Arc::new(Tenant {
                id: agent.tenant_id,
                links: Mutex::default(),
                look_soon: Notify::new(),
                policy: tokio::sync::Mutex::default(),
            });
            tokio::spawn(self.clone().keep(Arc::clone(&tenant)));
            tenant
        });
        locked(&tenant.links).insert(id, linked);
        Place { tenant: Arc::clone(tenant), id, news: told }
    }

    async fn listen(&self, mut changes: broadcast::Receiver<actions::bus::Change>) {
        loop {
            let (tenant_id, topic) = match changes.recv().await {
                Ok(change) => (change.tenant_id, change.topic),
                Err(broadcast::error::RecvError::Lagged(_)) => (None, Topic::Everything),
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let tenants: Vec<Arc<Tenant>> = match tenant_id {
                Some(id) => locked(&self.tenants).get(&id).cloned().into_iter().collect(),
                None => locked(&self.tenants).values().cloned().collect(),
            };
            for tenant in tenants {
                tenant.hint(topic);
            }
        }
    }

    /// Looks after one tenant's streams until there are none.
    async fn keep(self, tenant: Arc<Tenant>) {
        let mut look = interval(LOOK_EVERY);
        let mut write = interval(WRITE_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        write.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = tenant.look_soon.notified() => {
                    tokio::time::sleep(TOGETHER).await;
                    tenant.look(&self.ctx).await;
                }
                _ = look.tick() => {
                    tenant.look(&self.ctx).await;
                    // Under both locks: nobody enters in between.
                    let mut tenants = locked(&self.tenants);
                    if locked(&tenant.links).is_empty() {
                        tenants.remove(&tenant.id);
                        return;
                    }
                }
                _ = write.tick() => tenant.write(&self.ctx).await,
            }
        }
    }
}

impl Tenant {
    fn hint(&self, topic: Topic) {
        let all =
            |change: fn(&mut News)| locked(&self.links).values().for_each(|linked| linked.news.send_modify(change));
        match topic {
            Topic::Policy => all(|news| news.policy = Some(Instant::now())),
            Topic::Bans => all(|news| news.bans += 1),
            Topic::Pbxes => self.look_soon.notify_one(),
            Topic::Everything => {
                all(|news| {
                    news.policy = Some(Instant::now());
                    news.bans += 1;
                });
                self.look_soon.notify_one();
            }
            Topic::AllowedIps | Topic::BlockedIps | Topic::Audit | Topic::Sessions => {}
        }
    }

    /// What holds of each stream by the database.
    async fn look(&self, ctx: &Ctx) {
        let begun = Instant::now();
        let tenancy = match agents::look(ctx, self.id).await {
            Ok(tenancy) => tenancy,
            // It may be away for a moment; the next look asks again.
            Err(error) => {
                tracing::warn!(tenant.id = %self.id, error = chain(&error), "looking for changes");
                return;
            }
        };
        // Of a stream that came meanwhile the rows may not have known yet.
        for (id, linked) in locked(&self.links).iter().filter(|(_, linked)| linked.entered < begun) {
            let end = ends(&tenancy, linked, *id);
            let name = tenancy.certificates.get(&linked.fingerprint).map(|certified| certified.name.clone());
            linked.news.send_modify(|news| {
                news.end = news.end.or(end);
                news.name = name.or(news.name.take());
                news.revision = Some(tenancy.revision);
                news.bans += 1;
            });
        }
    }

    async fn write(&self, ctx: &Ctx) {
        let beats: Vec<(PbxId, Uuid, Health)> = locked(&self.links)
            .iter_mut()
            .filter_map(|(id, linked)| linked.health.take().map(|health| (linked.pbx, *id, health)))
            .collect();
        if beats.is_empty() {
            return;
        }
        if let Err(error) = agents::heard(ctx, self.id, &beats).await {
            tracing::warn!(tenant.id = %self.id, error = chain(&error), "writing heartbeats down");
        }
    }
}

fn ends(tenancy: &Tenancy, linked: &Linked, id: Uuid) -> Option<End> {
    match tenancy.certificates.get(&linked.fingerprint) {
        None => Some(End::Unknown),
        Some(certified) if certified.id != linked.pbx => Some(End::Unknown),
        // It may be about to be noted.
        Some(certified) if certified.link_id.is_none() => None,
        Some(certified) => (certified.link_id != Some(id)).then_some(End::TakenOver),
    }
}

impl Place {
    /// The agent is alive.
    pub(super) fn beat(&self, health: Health) {
        if let Some(linked) = locked(&self.tenant.links).get_mut(&self.id) {
            linked.health = Some(health);
        }
    }

    /// What the stream is told.
    pub(super) fn news(&self) -> watch::Receiver<News> {
        self.news.clone()
    }

    /// The tenant's policy as it was read last, for whichever agent.
    pub(super) async fn kept_policy(&self, ctx: &Ctx) -> Result<Arc<PolicySnapshot>, ActError> {
        let kept = self.tenant.policy.lock().await.as_ref().map(|(_, policy)| Arc::clone(policy));
        match kept {
            Some(policy) => Ok(policy),
            None => self.policy(ctx, Instant::now()).await,
        }
    }

    /// The tenant's policy, read no earlier than `since`; for all its agents together it is read once.
    pub(super) async fn policy(&self, ctx: &Ctx, since: Instant) -> Result<Arc<PolicySnapshot>, ActError> {
        let mut kept = self.tenant.policy.lock().await;
        if let Some((_, policy)) = kept.as_ref().filter(|(read, _)| *read > since) {
            return Ok(Arc::clone(policy));
        }
        let begun = Instant::now();
        let policy = Arc::new(agents::policy(ctx, self.tenant.id).await?);
        *kept = Some((begun, Arc::clone(&policy)));
        Ok(policy)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.tenant.links).remove(&self.id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

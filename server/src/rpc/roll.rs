//! The agents whose streams this node serves, by tenant. What concerns all agents of a tenant is done once for all of them: hearing
//! hints, looking into the database for those that were lost, reading the policy and the changes of bans, storing reports, writing
//! down what they have applied.

mod ban_window;
mod intake;
mod tenant;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actions::agents::{self, Agent, BanSync, Told};
use actions::bus::{Change, Topic};
use actions::{ActError, Ctx, chain};
use policy::bans::BanDigest;
use policy::ids::TenantId;
use policy::metrics::{AGENTS, LOOKS};
use policy::reports::ReportBatch;
use policy::snapshot::PolicySnapshot;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use tenant::Tenant;

/// How often is looked for changes whose notification was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// So many transactions store reports at a time: more would take the database from everything else, and reports that wait are stored
/// together with those that come meanwhile.
const STORING: usize = 4;

/// All streams of this node.
#[derive(Debug, Clone)]
pub(super) struct Roll {
    ctx: Ctx,
    tenants: Arc<Mutex<HashMap<TenantId, Arc<Tenant>>>>,
    /// How many tenants' reports may be stored at this moment.
    storing: Arc<Semaphore>,
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
    /// When the bans may have changed.
    pub(super) bans: Option<Instant>,
}

/// Why a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Revoked, removed, or its certificate was replaced.
    Unknown,
    /// Another stream of the same PBX is newer.
    TakenOver,
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
        let roll = Self { ctx, tenants: Arc::default(), storing: Arc::new(Semaphore::new(STORING)) };
        let listening = roll.clone();
        let looking = roll.clone();
        // Before anybody is on it: a hint is missed by nobody.
        let changes = roll.ctx.bus().subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = listening.listen(changes) => {}
                () = looking.look() => {}
            }
        });
        roll
    }

    /// Puts a stream on the roll, with what is written down of what its agent has in force; an older one of the same PBX ends.
    pub(super) fn enter(&self, agent: &Agent, id: Uuid, written: Told) -> Place {
        let mut tenants = locked(&self.tenants);
        let tenant = tenants.entry(agent.tenant_id).or_insert_with(|| {
            let tenant = Arc::new(Tenant::new(agent.tenant_id, Arc::clone(&self.storing)));
            tokio::spawn(self.clone().keep(Arc::clone(&tenant)));
            tenant
        });
        let news = tenant.enter(agent, id, written);
        metrics::gauge!(AGENTS.name).increment(1);
        Place { tenant: Arc::clone(tenant), id, news }
    }

    async fn listen(&self, mut changes: broadcast::Receiver<Change>) {
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

    /// Looks, for all tenants with one statement, whether a hint was lost.
    async fn look(&self) {
        let mut turns = interval(LOOK_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let ids: Vec<TenantId> = locked(&self.tenants).keys().copied().collect();
            if ids.is_empty() {
                continue;
            }
            let looked = agents::marks(&self.ctx, &ids).await;
            metrics::counter!(LOOKS.name, "outcome" => if looked.is_ok() { "done" } else { "failed" }).increment(1);
            match looked {
                Ok(marks) => {
                    for marks in marks {
                        let tenant = locked(&self.tenants).get(&marks.tenant_id).cloned();
                        if let Some(tenant) = tenant {
                            tenant.looked(marks);
                        }
                    }
                }
                // It may be away for a moment; the next look asks again.
                Err(error) => tracing::warn!(error = chain(&error), "looking for changes"),
            }
        }
    }

    /// Looks after one tenant's streams until there are none.
    async fn keep(self, tenant: Arc<Tenant>) {
        while tenant.work(&self.ctx).await.is_some() {
            // Under both locks: nobody enters in between.
            let mut tenants = locked(&self.tenants);
            if tenant.is_empty() {
                tenants.remove(&tenant.id());
                return;
            }
        }
    }
}

impl Place {
    /// What the agent says of itself; it is written down soon, with what the others say.
    pub(super) fn tell(&self, told: Told) {
        self.tenant.tell(self.id, told);
    }

    /// Writes down at once what was told.
    pub(super) async fn settle(&self, ctx: &Ctx) {
        self.tenant.write(ctx).await;
    }

    /// What the stream is told.
    pub(super) fn news(&self) -> watch::Receiver<News> {
        self.news.clone()
    }

    /// The tenant's policy as it was read last, for whichever agent.
    pub(super) async fn kept_policy(&self, ctx: &Ctx) -> Result<Arc<PolicySnapshot>, ActError> {
        self.tenant.kept_policy(ctx).await
    }

    /// The tenant's policy, read no earlier than `since`; for all its agents together it is read once.
    pub(super) async fn policy(&self, ctx: &Ctx, since: Instant) -> Result<Arc<PolicySnapshot>, ActError> {
        self.tenant.policy(ctx, since).await
    }

    /// What an agent that holds the set of bans as of `seq` needs, as of a moment no earlier than `since`.
    pub(super) async fn bans_since(
        &self,
        ctx: &Ctx,
        since: Instant,
        seq: i64,
        digest: Option<BanDigest>,
    ) -> Result<BanSync, ActError> {
        self.tenant.bans_since(ctx, since, seq, digest).await
    }

    /// Whether the set of bans can have had this digest after change `seq`.
    pub(super) async fn bans_fit(&self, ctx: &Ctx, seq: i64, digest: BanDigest) -> Result<bool, ActError> {
        self.tenant.bans_fit(ctx, seq, digest).await
    }

    /// Stores a batch, together with what the tenant's other agents report at the moment, whether or not the answer is waited for: the
    /// number of the last change of the set of bans.
    pub(super) fn report(
        &self,
        ctx: &Ctx,
        agent: &Agent,
        batch: ReportBatch,
    ) -> impl Future<Output = Result<i64, ActError>> + use<> {
        self.tenant.report(ctx, agent, batch)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tenant.leave(self.id);
        metrics::gauge!(AGENTS.name).decrement(1);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

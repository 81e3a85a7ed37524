//! The streams of one tenant's agents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actions::agents::{self, Agent, BanSync, Health, Marks, Report, Tenancy, Told};
use actions::bus::Topic;
use actions::{ActError, Ctx, chain};
use policy::bans::BanDigest;
use policy::ids::{PbxId, TenantId};
use policy::reports::ReportBatch;
use policy::snapshot::PolicySnapshot;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, watch};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::ban_window::BanWindow;
use super::intake::Intake;
use super::{End, News, locked};

/// How often is written down how agents are, and looked whether any is left.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// What comes within this time leads to one look, or is written down together.
const TOGETHER: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Tenant {
    id: TenantId,
    links: Mutex<HashMap<Uuid, Linked>>,
    marks: Mutex<Option<Marks>>,
    look_soon: Notify,
    write_soon: Notify,
    /// When policy and bans were last heard to have changed: what was read before will do for nobody, nor for who comes later.
    heard: Mutex<(Option<Instant>, Option<Instant>)>,
    policy: AsyncMutex<Option<(Instant, Arc<PolicySnapshot>)>>,
    bans: AsyncMutex<BanWindow>,
    intake: Intake,
}

#[derive(Debug)]
struct Linked {
    pbx: PbxId,
    fingerprint: Vec<u8>,
    entered: Instant,
    news: watch::Sender<News>,
    /// What the agent said last, and what of it is written down.
    told: Told,
    written: Told,
}

impl Tenant {
    /// Of its own and all other tenants' reports no more are stored at a time than `storing` has room for.
    pub(super) fn new(id: TenantId, storing: Arc<Semaphore>) -> Self {
        Self {
            id,
            links: Mutex::default(),
            marks: Mutex::default(),
            look_soon: Notify::new(),
            write_soon: Notify::new(),
            heard: Mutex::default(),
            policy: AsyncMutex::default(),
            bans: AsyncMutex::default(),
            intake: Intake::new(storing),
        }
    }

    pub(super) fn id(&self) -> TenantId {
        self.id
    }

    pub(super) fn is_empty(&self) -> bool {
        locked(&self.links).is_empty()
    }

    pub(super) fn enter(&self, agent: &Agent, id: Uuid, written: Told) -> watch::Receiver<News> {
        let (news, told) = watch::channel(News::default());
        let linked = Linked {
            pbx: agent.pbx_id,
            fingerprint: agent.fingerprint().to_vec(),
            entered: Instant::now(),
            news,
            told: Told::default(),
            written,
        };
        let mut links = locked(&self.links);
        for older in links.values().filter(|older| older.pbx == agent.pbx_id) {
            older.news.send_modify(|news| news.end = news.end.or(Some(End::TakenOver)));
        }
        links.insert(id, linked);
        told
    }

    pub(super) fn leave(&self, id: Uuid) {
        locked(&self.links).remove(&id);
    }

    /// One turn of what is to be done; `Some` always, for `while`.
    pub(super) async fn work(&self, ctx: &Ctx) -> Option<()> {
        tokio::select! {
            () = self.look_soon.notified() => {
                sleep(TOGETHER).await;
                self.look(ctx).await;
            }
            () = self.write_soon.notified() => {
                sleep(TOGETHER).await;
                self.write(ctx).await;
            }
            () = sleep(WRITE_EVERY) => self.write(ctx).await,
        }
        Some(())
    }

    fn all(&self, change: impl Fn(&mut News)) {
        locked(&self.links).values().for_each(|linked| linked.news.send_modify(&change));
    }

    pub(super) fn hint(&self, topic: Topic) {
        let now = Some(Instant::now());
        match topic {
            Topic::Policy => {
                locked(&self.heard).0 = now;
                self.all(|news| news.policy = now);
            }
            Topic::Bans => {
                locked(&self.heard).1 = now;
                self.all(|news| news.bans = now);
            }
            Topic::Roster => self.look_soon.notify_one(),
            Topic::Everything => {
                *locked(&self.heard) = (now, now);
                self.all(|news| (news.policy, news.bans) = (now, now));
                // The database may have been away, and taken back what didn't wait for its disk.
                locked(&self.links).values_mut().for_each(|linked| linked.written = Told::default());
                self.look_soon.notify_one();
                self.write_soon.notify_one();
            }
            Topic::Pbxes | Topic::AllowedIps | Topic::BlockedIps | Topic::Audit | Topic::Sessions | Topic::People => {}
        }
    }

    /// What the look of all tenants found.
    pub(super) fn looked(&self, marks: Marks) {
        let before = locked(&self.marks).replace(marks);
        if before == Some(marks) {
            return;
        }
        // A hint that came in time has led to the same, unless it was lost. Who says himself that he is up to date needs none: a fleet that
        // comes back with all that it had isn't read everything once more.
        let behind = |told: fn(&Told) -> Option<i64>, newest| {
            locked(&self.links).values().any(|linked| told(&linked.told) != Some(newest))
        };
        let (policy, bans) = (marks.policy_revision, marks.ban_seq);
        if before.is_none_or(|before| before.policy_revision != policy)
            && behind(|told| told.policy.map(|policy| policy.revision), policy)
        {
            self.hint(Topic::Policy);
        }
        if before.is_none_or(|before| before.ban_seq != bans) && behind(|told| told.bans.map(|bans| bans.seq), bans) {
            self.hint(Topic::Bans);
        }
        if before.is_none_or(|before| before.roster != marks.roster) {
            self.hint(Topic::Roster);
        }
    }

    /// What holds of each stream by the database.
    async fn look(&self, ctx: &Ctx) {
        let begun = Instant::now();
        let tenancy = match agents::look(ctx, self.id).await {
            Ok(tenancy) => tenancy,
            Err(error) => {
                tracing::warn!(tenant.id = %self.id, error = chain(&error), "looking after streams");
                // The look of all tenants finds the same mark again, and nothing to do.
                locked(&self.marks).take();
                return;
            }
        };
        // Of a stream that came meanwhile the rows may not have known yet.
        for (id, linked) in locked(&self.links).iter().filter(|(_, linked)| linked.entered < begun) {
            let end = ends(&tenancy, linked, *id);
            let name = tenancy.certificates.get(&linked.fingerprint).map(|certified| certified.name.clone());
            linked.news.send_if_modified(|news| {
                let before = (news.end, news.name.clone());
                news.end = news.end.or(end);
                news.name = name.or(news.name.take());
                before != (news.end, news.name.clone())
            });
        }
    }

    /// Notes what an agent has told. What it has applied, and what people look for at once, is written down soon.
    pub(super) fn tell(&self, id: Uuid, told: Told) {
        let Told { health, policy, bans } = told;
        let mut soon = policy.is_some() || bans.is_some();
        if let Some(linked) = locked(&self.links).get_mut(&id) {
            let watched = |health: Option<Health>| health.map(|health| (health.registered, health.dropped));
            soon |= health.is_some() && watched(health) != watched(linked.told.health);
            linked.told = Told {
                health: health.or(linked.told.health),
                policy: policy.or(linked.told.policy),
                bans: bans.or(linked.told.bans),
            };
        }
        if soon {
            self.write_soon.notify_one();
        }
    }

    pub(super) async fn write(&self, ctx: &Ctx) {
        let news: Vec<(PbxId, Uuid, Told)> = locked(&self.links)
            .iter_mut()
            .filter_map(|(id, linked)| {
                let news = newer(linked.told, linked.written);
                linked.written = linked.told;
                (news != Told::default()).then_some((linked.pbx, *id, news))
            })
            .collect();
        if news.is_empty() {
            return;
        }
        if let Err(error) = agents::told(ctx, self.id, &news).await {
            tracing::warn!(tenant.id = %self.id, error = chain(&error), "writing down what agents have applied");
            let mut links = locked(&self.links);
            for (_, id, _) in news {
                if let Some(linked) = links.get_mut(&id) {
                    linked.written = Told::default();
                }
            }
        }
    }

    pub(super) async fn kept_policy(&self, ctx: &Ctx) -> Result<Arc<PolicySnapshot>, ActError> {
        let kept = self.policy.lock().await.as_ref().map(|(_, policy)| Arc::clone(policy));
        match kept {
            Some(policy) => Ok(policy),
            None => self.policy(ctx, Instant::now()).await,
        }
    }

    pub(super) async fn policy(&self, ctx: &Ctx, since: Instant) -> Result<Arc<PolicySnapshot>, ActError> {
        let mut kept = self.policy.lock().await;
        let since = locked(&self.heard).0.map_or(since, |heard| heard.max(since));
        if let Some((_, policy)) = kept.as_ref().filter(|(read, _)| *read > since) {
            return Ok(Arc::clone(policy));
        }
        let begun = Instant::now();
        let policy = Arc::new(agents::policy(ctx, self.id).await?);
        *kept = Some((begun, Arc::clone(&policy)));
        Ok(policy)
    }

    pub(super) async fn bans_since(
        &self,
        ctx: &Ctx,
        since: Instant,
        seq: i64,
        digest: Option<BanDigest>,
    ) -> Result<BanSync, ActError> {
        let sync = {
            let mut window = self.bans.lock().await;
            let since = locked(&self.heard).1.map_or(since, |heard| heard.max(since));
            window.refresh(ctx, self.id, since).await?;
            window.since(seq, digest)
        };
        match sync {
            Some(sync) => Ok(sync),
            None => agents::bans_since(ctx, self.id, seq, digest).await,
        }
    }

    pub(super) async fn bans_fit(&self, ctx: &Ctx, seq: i64, digest: BanDigest) -> Result<bool, ActError> {
        let mut window = self.bans.lock().await;
        if !window.knows(seq) {
            window.refresh(ctx, self.id, Instant::now()).await?;
        }
        Ok(window.fits(seq, digest))
    }

    pub(super) fn report(
        self: &Arc<Self>,
        ctx: &Ctx,
        agent: &Agent,
        batch: ReportBatch,
    ) -> impl Future<Output = Result<i64, ActError>> + use<> {
        let (tenant, ctx, report) = (Arc::clone(self), ctx.clone(), Report { agent: agent.clone(), batch });
        // A task of its own: others' batches may be in the same transaction.
        let stored = tokio::spawn(async move { tenant.intake.store(&ctx, report).await });
        async { stored.await.map_err(ActError::internal)? }
    }
}

/// What of `told` differs from what is written.
fn newer(told: Told, written: Told) -> Told {
    Told {
        health: told.health.filter(|_| told.health != written.health),
        policy: told.policy.filter(|_| told.policy != written.policy),
        bans: told.bans.filter(|_| told.bans != written.bans),
    }
}

fn ends(tenancy: &Tenancy, linked: &Linked, id: Uuid) -> Option<End> {
    match tenancy.certificates.get(&linked.fingerprint) {
        None => Some(End::Unknown),
        Some(certified) if certified.id != linked.pbx => Some(End::Unknown),
        // Nobody's, too: it was noted before it got here, and a stream that was noted later has ended.
        Some(certified) => (certified.link_id != Some(id)).then_some(End::TakenOver),
    }
}

#[cfg(test)]
mod tests {
    use actions::agents::Certified;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn only_the_pbxs_own_stream_stays() {
        let (pbx, id) = (PbxId(Uuid::from_u128(1)), Uuid::from_u128(2));
        let linked = Linked {
            pbx,
            fingerprint: vec![1],
            entered: Instant::now(),
            news: watch::Sender::default(),
            told: Told::default(),
            written: Told::default(),
        };
        let noted = |link_id| {
            let certified = Certified {
                id: pbx,
                name: String::new(),
                link_id,
                issued_at: OffsetDateTime::UNIX_EPOCH,
                expires_at: OffsetDateTime::UNIX_EPOCH,
            };
            Tenancy { certificates: HashMap::from([(vec![1], certified)]) }
        };
        assert_eq!(ends(&noted(Some(id)), &linked, id), None);
        assert_eq!(ends(&noted(Some(Uuid::nil())), &linked, id), Some(End::TakenOver));
        // An older one was noted after it, and has ended.
        assert_eq!(ends(&noted(None), &linked, id), Some(End::TakenOver));
        assert_eq!(ends(&Tenancy { certificates: HashMap::new() }, &linked, id), Some(End::Unknown));
    }
}

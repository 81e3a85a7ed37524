//! Stores what a tenant's agents report: whatever waits while a batch is being stored goes into the next transaction together.

use std::sync::{Arc, Mutex};

use actions::agents::{self, Report};
use actions::{ActError, Ctx};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, oneshot};

use super::locked;

/// Events in one transaction, unless a single batch has more.
const EVENTS: usize = 2_000;

#[derive(Debug)]
pub(super) struct Intake {
    waiting: Mutex<Vec<Waiting>>,
    /// Held by who stores.
    turn: AsyncMutex<()>,
    /// Room for transactions, of all tenants.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Waiting {
    report: Report,
    stored: oneshot::Sender<Result<i64, ActError>>,
}

impl Intake {
    pub(super) fn new(room: Arc<Semaphore>) -> Self {
        Self { waiting: Mutex::default(), turn: AsyncMutex::default(), room }
    }

    /// Stores a batch. Answers the number of the last change of the set of bans.
    pub(super) async fn store(&self, ctx: &Ctx, report: Report) -> Result<i64, ActError> {
        let (stored, mut answer) = oneshot::channel();
        locked(&self.waiting).push(Waiting { report, stored });
        let _turn = self.turn.lock().await;
        loop {
            // Who had the turn before may have stored this one, too.
            match answer.try_recv() {
                Ok(result) => return result,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(ActError::internal("whoever was to store a report is gone"));
                }
                Err(oneshot::error::TryRecvError::Empty) => self.store_some(ctx).await,
            }
        }
    }

    async fn store_some(&self, ctx: &Ctx) {
        let _room = self.room.acquire().await;
        let group = self.take();
        let Some(tenant) = group.first().map(|first| first.report.agent.tenant_id) else { return };
        if group.len() > 1 {
            let reports = group.iter().map(|waiting| waiting.report.clone()).collect();
            if let Ok(seq) = agents::report(ctx, tenant, reports).await {
                for Waiting { stored, .. } in group {
                    let _ = stored.send(Ok(seq));
                }
                return;
            }
            // One of them can't be stored; the others shall not suffer.
        }
        for Waiting { report, stored } in group {
            let _ = stored.send(agents::report(ctx, tenant, vec![report]).await);
        }
    }

    fn take(&self) -> Vec<Waiting> {
        let mut waiting = locked(&self.waiting);
        let mut events = 0;
        let fit = waiting
            .iter()
            .take_while(|one| {
                events += one.report.batch.events.len();
                events <= EVENTS
            })
            .count();
        let count = fit.max(1).min(waiting.len());
        waiting.drain(..count).collect()
    }
}

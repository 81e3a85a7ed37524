//! What runs by itself on every node. Each job is safe to run on several nodes at once.

use std::future::Future;
use std::time::Duration;

use actions::mail::Mailer;
use actions::{ActError, Ctx, chain, jobs};
use policy::metrics::{JOB_FAILURES, JOB_SECONDS};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts all jobs; they end with `stopping`.
pub fn start(ctx: &Ctx, mailer: Option<Mailer>, stopping: &CancellationToken) -> TaskTracker {
    let tasks = TaskTracker::new();
    let living = ctx.clone();
    tasks.spawn(every(Duration::from_secs(2), "saying that this node is alive", stopping.clone(), move || {
        let ctx = living.clone();
        async move { jobs::beat(&ctx).await }
    }));
    let expiring = ctx.clone();
    tasks.spawn(every(Duration::from_secs(1), "ending what has expired", stopping.clone(), move || {
        let ctx = expiring.clone();
        async move { jobs::expire(&ctx).await }
    }));
    let sweeping = ctx.clone();
    tasks.spawn(every(Duration::from_mins(1), "clearing up", stopping.clone(), move || {
        let ctx = sweeping.clone();
        async move { jobs::sweep(&ctx).await }
    }));
    if let Some(mailer) = mailer {
        let delivering = ctx.clone();
        tasks.spawn(every(Duration::from_secs(1), "delivering mail", stopping.clone(), move || {
            let (ctx, mailer) = (delivering.clone(), mailer.clone());
            async move { jobs::deliver_mail(&ctx, &mailer).await }
        }));
    }
    tasks.close();
    tasks
}

/// Runs a job again and again. One that fails is logged and has its next turn; a run that has begun is completed.
async fn every<F: Future<Output = Result<(), ActError>>>(
    period: Duration,
    name: &'static str,
    stopping: CancellationToken,
    job: impl Fn() -> F,
) {
    let mut turns = interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(turns.tick()).await.is_some() {
        let begun = Instant::now();
        let done = job().await;
        metrics::histogram!(JOB_SECONDS.name, "job" => name).record(begun.elapsed());
        if let Err(error) = done {
            metrics::counter!(JOB_FAILURES.name, "job" => name).increment(1);
            tracing::error!(job = name, error = %chain(&error), "a job failed");
        }
    }
}

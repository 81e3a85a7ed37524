//! Whether this process lives, and whether it can serve. Load balancers ask without a login, and as often as they like: the database is
//! asked once a second at most.

use std::sync::Arc;
use std::time::Duration;

use actions::Ctx;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An answer of the database counts so long.
const FRESH: Duration = Duration::from_secs(1);

/// What one word says is missing.
type Readiness = Result<(), &'static str>;

/// The health of this node.
#[derive(Debug, Clone)]
pub struct Health {
    ctx: Ctx,
    stopping: CancellationToken,
    kept: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

impl Health {
    /// Of a node that drains once `stopping` is cancelled.
    pub fn new(ctx: Ctx, stopping: CancellationToken) -> Self {
        Self { ctx, stopping, kept: Arc::default() }
    }

    /// `/healthz`: the process answers. `/readyz`: it can serve, or 503 and what is missing.
    pub fn routes(self) -> Router {
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(self)
    }

    /// Whether this node can serve; otherwise `draining`, `database`, `schema` or `keys`.
    ///
    /// # Errors
    /// The first that is missing.
    pub async fn ready(&self) -> Readiness {
        if self.stopping.is_cancelled() {
            return Err("draining");
        }
        // Held while the database is asked: who comes meanwhile gets that answer.
        let mut kept = self.kept.lock().await;
        if let Some((_, readiness)) = kept.filter(|(at, _)| at.elapsed() < FRESH) {
            return readiness;
        }
        let readiness = self.ctx.ready().await;
        if let Err(missing) = readiness
            && kept.is_none_or(|(_, before)| before.is_ok())
        {
            tracing::warn!(missing, "This node is not ready");
        }
        *kept = Some((Instant::now(), readiness));
        readiness
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("{missing}\n")),
    }
}

/// As gauges of instants have it.
#[expect(clippy::cast_precision_loss, reason = "to the second for millions of years")]
pub(super) fn unix_seconds(at: OffsetDateTime) -> f64 {
    at.unix_timestamp() as f64
}

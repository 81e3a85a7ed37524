//! What operators watch: metrics, health and traces. Metrics have a listener of their own, since they tell of all tenants together and
//! ask for no login; without one nothing is measured.

pub mod agents;
pub mod health;
pub mod http;
mod process;
pub mod telemetry;

use std::sync::OnceLock;
use std::time::Duration;

use actions::{Ctx, chain, jobs};
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use policy::metrics::{
    BUCKETS, BUILD, DB_CONNECTIONS, DB_CONNECTIONS_MAX, Kind, Metric, PROCESS, PROCESS_START, READY, SERVER, Unit,
};
use tokio_util::sync::CancellationToken;

use health::Health;

/// Values of histograms are put into their buckets, and mails counted, at least so often.
const UPKEEP: Duration = Duration::from_secs(5);
/// As scrapers take it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    ctx: Ctx,
    health: Health,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Begins to measure; ends with `stopping`.
    ///
    /// # Errors
    /// When something else measures in this process.
    pub fn start(ctx: Ctx, health: Health, stopping: CancellationToken) -> anyhow::Result<Self> {
        static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let handle = RECORDER.get_or_init(|| recorder().map_err(|error| error.to_string()));
        let handle = handle.clone().map_err(anyhow::Error::msg)?;
        metrics::gauge!(BUILD.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!(PROCESS_START.name).set(health::unix_seconds(ctx.now()));
        let (kept, counted) = (handle.clone(), ctx.clone());
        tokio::spawn(stopping.run_until_cancelled_owned(async move {
            loop {
                if let Err(error) = jobs::measure(&counted).await {
                    tracing::debug!(error = chain(&error), "counting mails for the metrics");
                }
                tokio::time::sleep(UPKEEP).await;
                kept.run_upkeep();
            }
        }));
        Ok(Self { handle, ctx, health })
    }

    /// The routes of the metrics' listener.
    pub fn router(self) -> Router {
        let health = self.health.clone();
        Router::new().route("/metrics", get(show)).with_state(self).merge(health.routes())
    }

    /// All of them, as Prometheus reads them.
    pub async fn text(&self) -> String {
        let (open, idle, most) = self.ctx.store().connections();
        metrics::gauge!(DB_CONNECTIONS.name, "state" => "used").set(open - idle);
        metrics::gauge!(DB_CONNECTIONS.name, "state" => "idle").set(idle);
        metrics::gauge!(DB_CONNECTIONS_MAX.name).set(most);
        metrics::gauge!(READY.name).set(f64::from(u8::from(self.health.ready().await.is_ok())));
        process::measure();
        self.handle.render()
    }
}

async fn show(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, TEXT)], metrics.text().await)
}

fn recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    for Metric { name, kind, unit, help, .. } in [PROCESS, SERVER].into_iter().flatten() {
        let unit = match unit {
            Unit::Count => metrics::Unit::Count,
            Unit::Seconds => metrics::Unit::Seconds,
            Unit::Bytes => metrics::Unit::Bytes,
        };
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, unit, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, unit, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, unit, *help),
        }
    }
    // What has no labels is there from the beginning: rates of what happened once would be missing otherwise.
    for metric in SERVER.iter().filter(|metric| metric.labels.is_empty() && metric.kind == Kind::Counter) {
        metrics::counter!(metric.name).absolute(0);
    }
    Ok(handle)
}

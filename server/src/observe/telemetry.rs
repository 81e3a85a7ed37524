//! The log, and traces over OTLP when a collector is configured. To the collector go only the spans that `actions::trace` and its callers
//! make for it; the log takes everything else, so that what is logged can never slip into a trace.

use std::io::IsTerminal as _;

use actions::trace::TARGET;
use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};
use url::Url;

/// Sends what is traced until [`Self::stop`].
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Begins to log, and to send traces if there is somewhere to send them. Once in a process, within its runtime.
    ///
    /// # Errors
    /// When the collector's address is of no use.
    pub fn start(otlp: Option<&Url>) -> anyhow::Result<Self> {
        let provider = otlp.map(provider).transpose()?;
        // RUST_LOG decides; a session whose end a browser has not noticed is no news.
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
            EnvFilter::new("info,sqlx=warn,async_nats=warn,tower_sessions_core=error,tower_sessions=error")
        });
        let log = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter.and(filter_fn(|about| about.target() != TARGET)));
        let traces = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("ringfence"))
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(
                    filter_fn(|about| about.is_span() && about.target() == TARGET)
                        .with_max_level_hint(LevelFilter::INFO),
                )
        });
        tracing_subscriber::registry().with(log).with(traces).try_init().context("beginning to log")?;
        Ok(Self(provider))
    }

    /// Sends what is left; waits for the collector for a few seconds at most.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "sending the last traces");
        }
    }
}

fn provider(endpoint: &Url) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .build()
        .context("tracing.otlp_endpoint")?;
    let resource = Resource::builder_empty()
        .with_service_name("ringfence")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

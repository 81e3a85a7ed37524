//! The log, and traces over OTLP when a collector is configured and this program is built for it (`otlp`). To the collector go only spans
//! of the target [`TARGET`], which the log does not take; they name revisions, never addresses or accounts.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use policy::snapshot::PolicySnapshot;
use tracing::Span;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The target of spans that are sent, and of nothing else.
pub const TARGET: &str = "ringfence_trace";

/// Sends what is traced until [`Self::stop`].
pub struct Telemetry(Option<Box<dyn FnOnce() + Send>>);

impl Telemetry {
    /// Begins to log, and to send traces if there is somewhere to send them. Once in a process, within its runtime.
    ///
    /// # Errors
    /// When the collector's address is of no use, or this program can't send traces.
    pub fn start(otlp: Option<&str>) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter.and(filter_fn(|about| about.target() != TARGET)));
        let registry = tracing_subscriber::registry().with(log);
        #[cfg(not(feature = "otlp"))]
        {
            anyhow::ensure!(otlp.is_none(), "otlp_endpoint: this program is built without traces");
            registry.try_init().context("beginning to log")?;
            Ok(Self(None))
        }
        #[cfg(feature = "otlp")]
        {
            let provider = otlp.map(exporting::provider).transpose()?;
            registry.with(provider.as_ref().map(exporting::layer)).try_init().context("beginning to log")?;
            Ok(Self(provider.map(exporting::end)))
        }
    }

    /// Sends what is left; waits for the collector for a few seconds at most.
    pub fn stop(self) {
        if let Some(end) = self.0 {
            end();
        }
    }
}

/// The span of a policy being applied, as a part of the push that brought it.
pub fn applying(policy: &PolicySnapshot) -> Span {
    let Some(parent) = &policy.trace_parent else { return Span::none() };
    let span = tracing::info_span!(target: TARGET, "apply", otel.kind = "consumer", policy.revision = policy.revision);
    #[cfg(feature = "otlp")]
    exporting::follow(&span, parent);
    #[cfg(not(feature = "otlp"))]
    let _ = parent;
    span
}

#[cfg(feature = "otlp")]
mod exporting {
    use anyhow::Context as _;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
    };
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::WithExportConfig as _;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use policy::trace_parent::TraceParent;
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::{LevelFilter, filter_fn};
    use tracing_subscriber::registry::LookupSpan;

    pub(super) fn provider(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
        anyhow::ensure!(
            endpoint.starts_with("http://"),
            "otlp_endpoint: must begin with http://, such as http://127.0.0.1:4317"
        );
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .context("otlp_endpoint")?;
        let resource = Resource::builder_empty()
            .with_service_name("ringfence-agent")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
    }

    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
        provider: &SdkTracerProvider,
    ) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("ringfence-agent"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(
                filter_fn(|about| about.is_span() && about.target() == super::TARGET)
                    .with_max_level_hint(LevelFilter::INFO),
            )
    }

    /// What sends the last traces.
    pub(super) fn end(provider: SdkTracerProvider) -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            if let Err(error) = provider.shutdown() {
                tracing::warn!(%error, "Sending the last traces");
            }
        })
    }

    pub(super) fn follow(span: &Span, parent: &TraceParent) {
        let (trace, id, flags) = parent.parts();
        let (Ok(trace), Ok(id), Ok(flags)) =
            (TraceId::from_hex(trace), SpanId::from_hex(id), u8::from_str_radix(flags, 16))
        else {
            return;
        };
        let remote = SpanContext::new(trace, id, TraceFlags::new(flags), true, TraceState::default());
        // It fails for a span that is not sent, and then there is nothing to follow.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }
}

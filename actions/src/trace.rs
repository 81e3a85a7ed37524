//! Traces from a click to what PBXes enforce. Nothing of this costs anything until a server sends traces somewhere: its spans have a
//! target of their own, which no log takes. They name ids, operations and revisions; never addresses, accounts or what somebody typed.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use policy::trace_parent::TraceParent;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of spans that are sent, and of nothing else.
pub const TARGET: &str = "ringfence_trace";

/// Whether traces are sent anywhere.
pub fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO)
}

/// Where in a trace a span is; `None` when it is in none that is kept.
pub fn parent_of(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let text = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    TraceParent::parse(&text).filter(|_| context.is_sampled())
}

/// Makes a new span a part of a trace that began elsewhere.
pub fn follow(span: &Span, parent: &TraceParent) {
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

/// A span of something being done, if the running one is in a trace; jobs and agents begin none of their own.
#[macro_export]
macro_rules! step {
    ($name:literal $(, $($field:tt)*)?) => {
        if $crate::trace::is_traced() {
            tracing::info_span!(target: $crate::trace::TARGET, $name $(, $($field)*)?)
        } else {
            tracing::Span::none()
        }
    };
}

/// Whether the running span is in a trace.
pub fn is_traced() -> bool {
    is_on() && parent_of(&Span::current()).is_some()
}

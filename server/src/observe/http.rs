//! Counts and times every request, by its route as it is declared, never by what was asked for; begins the trace of a click.

use actions::trace;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use policy::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// The middleware, around all others.
pub async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let span = span(&request, &route);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    metrics::histogram!(HTTP_SECONDS.name, "route" => route.clone()).record(began.elapsed());
    metrics::counter!(HTTP_REQUESTS.name, "route" => route, "status" => class(response.status())).increment(1);
    response
}

/// Only what a page asks the server to do is traced: no files, no streams, no probes.
fn span(request: &Request, route: &str) -> Span {
    if !route.starts_with("/api/") || !trace::is_on() {
        return Span::none();
    }
    tracing::info_span!(
        target: trace::TARGET,
        "http",
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = Empty,
    )
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

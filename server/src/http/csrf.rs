//! Requests that change something must come from our own pages: `Sec-Fetch-Site: same-origin`, or the `Origin` of our public
//! address. A request with neither, as no browser of these years sends it, passes only without a session.

use std::sync::Arc;

use app::error::ApiError;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method, header};

use super::api_errors;

/// Our own origin, as browsers write it: `https://ringfence.example`.
#[derive(Debug, Clone)]
pub struct OwnOrigin(pub Arc<str>);

/// Middleware of everything.
pub async fn guard(State(own): State<OwnOrigin>, request: Request, next: Next) -> Response {
    if allowed(request.method(), request.headers(), &own.0) {
        next.run(request).await
    } else {
        tracing::warn!(path = request.uri().path(), "refused a change that another site sent");
        api_errors::refuse(ApiError::Forbidden)
    }
}

fn allowed(method: &Method, headers: &HeaderMap, own: &str) -> bool {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return true;
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin == own,
        (None, None) => !headers.contains_key(header::COOKIE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        allowed(&Method::POST, &headers, "https://ringfence.example")
    }

    #[test]
    fn only_our_own_pages_may_change_something() {
        assert!(post(&[("sec-fetch-site", "same-origin"), ("cookie", "a=b")]));
        assert!(post(&[("origin", "https://ringfence.example"), ("cookie", "a=b")]));
        for foreign in ["cross-site", "same-site", "none"] {
            assert!(!post(&[("sec-fetch-site", foreign)]));
        }
        assert!(!post(&[("sec-fetch-site", "cross-site"), ("origin", "https://ringfence.example")]));
        assert!(!post(&[("origin", "https://evil.example")]));
        assert!(!post(&[("origin", "null"), ("cookie", "a=b")]));
        assert!(!post(&[("cookie", "a=b")]));
        assert!(post(&[]), "a tool without a session");
    }

    #[test]
    fn reading_is_free() {
        assert!(allowed(
            &Method::GET,
            &HeaderMap::from_iter([("sec-fetch-site".parse().unwrap(), "cross-site".parse().unwrap())]),
            ""
        ));
    }
}

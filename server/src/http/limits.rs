//! How much one source may ask: a wide limit on everything, a narrow one on what can be guessed or sends mail.

use std::sync::Arc;
use std::time::Duration;

use app::context::ClientAddress;
use app::error::ApiError;
use axum::body::Body;
use axum::response::Response;
use governor::middleware::NoOpMiddleware;
use http::Request;
use ipnet::IpNet;
use policy::net::source_key;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

use super::api_errors;

/// The source of a request as [`ClientAddress`] has it.
#[derive(Debug, Clone, Copy)]
pub struct BySource;

impl KeyExtractor for BySource {
    type Key = IpNet;

    fn extract<T>(&self, request: &Request<T>) -> Result<Self::Key, GovernorError> {
        let ClientAddress(address) = *request.extensions().get().ok_or(GovernorError::UnableToExtractKey)?;
        Ok(source_key(address))
    }
}

/// How often something may be asked.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// At once.
    pub burst: u32,
    /// One more after so long.
    pub refill: Duration,
}

/// The limits of an installation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Any request.
    pub all: Limit,
    /// Login, sign-up, codes, passwords; and, counted apart, how strong a password is.
    pub account: Limit,
    /// Enrolment of agents.
    pub enrolment: Limit,
}

impl Default for Limits {
    /// A person who clicks fast stays far below; a page asks for a dozen things when it opens.
    fn default() -> Self {
        Self {
            all: Limit { burst: 300, refill: Duration::from_millis(20) },
            account: Limit { burst: 60, refill: Duration::from_secs(1) },
            enrolment: Limit { burst: 20, refill: Duration::from_secs(6) },
        }
    }
}

/// The layer of a limit. Forgets sources that have been quiet for long enough, once a minute, as long as the layer lives.
///
/// # Panics
/// When the limit is zero, which is no limit but an outage.
pub fn layer(limit: Limit) -> GovernorLayer<BySource, NoOpMiddleware, Body> {
    let config = GovernorConfigBuilder::default()
        .key_extractor(BySource)
        .period(limit.refill)
        .burst_size(limit.burst)
        .finish()
        .expect("no limit is zero");
    let limiter = Arc::downgrade(config.limiter());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            let Some(limiter) = limiter.upgrade() else { return };
            limiter.retain_recent();
        }
    });
    GovernorLayer::new(config).error_handler(refuse)
}

fn refuse(error: GovernorError) -> Response<Body> {
    match error {
        GovernorError::TooManyRequests { wait_time, .. } => {
            api_errors::refuse(ApiError::TooMany { retry_after_seconds: wait_time.max(1) })
        }
        GovernorError::UnableToExtractKey | GovernorError::Other { .. } => {
            api_errors::refuse(actions::ActError::internal("a request without an address").into())
        }
    }
}

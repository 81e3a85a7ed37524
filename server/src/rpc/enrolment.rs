//! `Enrolment`: a one-time token becomes a certificate.

use std::net::IpAddr;
use std::num::NonZeroU32;

use actions::{ActError, Ctx, agents};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use policy::net::source_key;
use proto::{convert, pb};
use tonic::{Request, Response, Status};

use super::status;
use crate::http::limits::Limit;

/// Above so many sources those that have been quiet are forgotten.
const REMEMBERED: usize = 10_000;

/// The service.
pub(super) struct Enrolment {
    ctx: Ctx,
    limiter: DefaultKeyedRateLimiter<IpNet>,
}

impl Enrolment {
    pub(super) fn new(ctx: Ctx, limit: Limit) -> Self {
        let quota = Quota::with_period(limit.refill).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
        Self { ctx, limiter: RateLimiter::keyed(quota.allow_burst(burst)) }
    }

    fn check_limit(&self, source: IpAddr) -> Result<(), ActError> {
        if self.limiter.len() > REMEMBERED {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&source_key(source)).map_err(|until| ActError::TooMany {
            retry_after_seconds: until.wait_time_from(DefaultClock::default().now()).as_secs() + 1,
        })
    }
}

#[tonic::async_trait]
impl pb::enrolment_server::Enrolment for Enrolment {
    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolResponse>, Status> {
        let source = super::source(&request)?;
        self.check_limit(source).map_err(status)?;
        let convert::Enrolment { token, csr_pem, agent_version, hostname } = request.into_inner().try_into()?;
        let request = agents::EnrolRequest { token, csr_pem, agent_version, hostname };
        let agents::Enrolled { certificate_pem, ca_pem, pbx_name } =
            agents::enrol(&self.ctx, source, request).await.map_err(status)?;
        Ok(Response::new(pb::EnrolResponse { certificate_pem, ca_pem, pbx_name }))
    }
}

//! Streams of agents and what is pushed over them, as metrics and traces have it.

use actions::agents::Agent;
use actions::trace;
use policy::metrics::{POLICIES_PUSHED, PUSH_TO_APPLIED, STREAMS_ENDED};
use policy::snapshot::PolicySnapshot;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Span;

/// Counts the end of a stream.
pub fn stream_ended(end: &Result<(), Status>) {
    let reason = match end.as_ref().map_err(Status::code) {
        Ok(()) => "closed",
        Err(Code::Unavailable) => "stopping",
        Err(Code::DeadlineExceeded) => "silent",
        Err(Code::NotFound) => "unknown",
        Err(Code::Aborted) => "taken_over",
        Err(Code::InvalidArgument | Code::FailedPrecondition) => "protocol",
        Err(Code::Internal) => "failed",
        Err(
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated,
        ) => "broken",
    };
    metrics::counter!(STREAMS_ENDED.name, "reason" => reason).increment(1);
}

/// A policy on its way to an agent, until it says that it is in force.
#[derive(Debug)]
pub struct Push {
    revision: i64,
    sent: Instant,
    span: Span,
}

impl Push {
    /// Begins; what is done at the agent belongs to it.
    pub fn begin(policy: &mut PolicySnapshot, agent: &Agent) -> Self {
        metrics::counter!(POLICIES_PUSHED.name).increment(1);
        let mut span = Span::none();
        if let Some(parent) = policy.trace_parent.take() {
            span = tracing::info_span!(
                target: trace::TARGET,
                "push",
                otel.kind = "producer",
                pbx.id = %agent.pbx_id,
                policy.revision = policy.revision,
            );
            trace::follow(&span, &parent);
            policy.trace_parent = trace::parent_of(&span);
        }
        Self { revision: policy.revision, sent: Instant::now(), span }
    }

    /// The agent says that a revision is in force: whether it is this one.
    pub fn is(&self, revision: i64) -> bool {
        self.revision == revision
    }

    /// Ends it; what comes of the agent's word belongs to the span that is answered.
    pub fn applied(self) -> Span {
        metrics::histogram!(PUSH_TO_APPLIED.name).record(self.sent.elapsed());
        if self.span.is_disabled() {
            return Span::none();
        }
        tracing::info_span!(target: trace::TARGET, parent: &self.span, "applied", policy.revision = self.revision)
    }
}

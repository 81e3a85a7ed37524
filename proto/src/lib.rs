//! The wire between server and agent. Generated code under `pb`; `convert` holds the only translation from and to `policy` types.

// Left out while the generated code is written, which it may not fit yet.
#[cfg(not(feature = "regenerate"))]
pub mod convert;

/// Generated from `proto/ringfence/agent/v1/agent.proto` by the `regenerate` binary.
#[expect(clippy::pedantic, clippy::allow_attributes, missing_docs, reason = "generated code")]
pub mod pb {
    include!("gen/ringfence.agent.v1.rs");
}

/// What a server that is shut down ends its streams with, as `UNAVAILABLE`: another one may take over at once.
pub const LEAVING: &str = "the portal stops";

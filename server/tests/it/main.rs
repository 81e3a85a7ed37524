//! The server as a whole: every server function, stream, file route and RPC over a database of its own, as people and agents
//! reach them.
#![recursion_limit = "512"]
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "in a test whatever is not expected fails it")]

mod account;
mod agent_port;
mod audit_coverage;
mod authz_matrix;
mod bad_input;
mod first_version;
mod http_layers;
mod live;
mod nodes;
mod observe;
mod rpc;
mod samples;
mod sessions;
mod support;
mod tenant_isolation;

//! The domain of Ringfence as plain data and plain functions: what an address is, who may do what, when a source is
//! banned and for how long, what a PBX must enforce. No I/O, no async, no clock, no randomness: time and ids come in as
//! parameters. Compiled natively for the server and the agent, and to wasm32 for instant feedback in forms.

pub mod account;
pub mod allowed_ips;
pub mod audit;
pub mod authz;
pub mod bans;
pub mod blocked_ips;
pub mod csv_text;
pub mod detection;
pub mod enforcement;
pub mod fields;
pub mod ids;
pub mod metrics;
pub mod net;
pub mod overview;
pub mod paging;
pub mod pbxes;
pub mod people;
pub mod reports;
pub mod ruleset;
pub mod safety;
pub mod sessions;
pub mod snapshot;
pub mod sync;
pub mod trace_parent;

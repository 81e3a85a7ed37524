//! The Ringfence agent. It runs on a PBX, detects attacks there, drops their packets in the kernel, and enforces what administrators
//! decide in the portal; all of it goes on while the portal is away.
//!
//! `engine` decides, `firewall` enforces, `pbx` and `link` feed it, `state` remembers. `link`, `enrol` and `bans` know nothing of this
//! machine and serve a simulated fleet as well.

pub mod attempts;
pub mod bans;
pub mod clock;
pub mod config;
pub mod dns;
pub mod doctor;
pub mod engine;
pub mod enrol;
pub mod firewall;
pub mod fleet;
pub mod http;
pub mod link;
pub mod metrics;
pub mod pbx;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod tls;

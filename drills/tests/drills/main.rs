//! The drills; what holds in each of them is asserted by `Drill::end`. They need root.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod identity;
mod kills;
mod machine;
mod network;

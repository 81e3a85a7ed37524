//! What people, agents and jobs can do, against a real database as the restricted roles, by a clock that the tests move.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod agents;
mod allowed_ips;
mod at_once;
mod audit;
mod ban_sync;
mod blocked_ips;
mod hints;
mod jobs;
mod login;
mod login_guard;
mod pbxes;
mod people;
mod permissions;
mod portal;

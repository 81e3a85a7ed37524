//! The database as the restricted roles see it: what row security lets through, what the catalogue promises, and what each
//! module of the store does.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod allowed_ips;
mod audit;
mod blocked_ips;
mod catalogue;
mod isolation;
mod net_range;
mod pbxes;
mod people;
mod plans;
mod sessions_and_mails;
mod world;

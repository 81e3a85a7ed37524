//! All the SQL of Ringfence, checked at compile time. Tables of tenants are reached through [`TenantTx`] only, which
//! sets the tenant for PostgreSQL's row security; tables of the installation through [`PlatformTx`].
//! Remembers; decides nothing.

mod db;

pub mod agents;
pub mod allowed_ips;
pub mod audit;
pub mod ban_set;
pub mod blocked_ips;
pub mod invitations;
pub mod jobs;
pub mod login_failures;
pub mod mails;
pub mod members;
pub mod nodes;
pub mod notify;
pub mod pbxes;
pub mod people;
pub mod rollups;
pub mod secrets;
pub mod sessions;
pub mod tenants;

#[cfg(feature = "testing")]
pub mod testing;

pub use db::{PlatformTx, Store, StoreError, TenantTx, migrate};

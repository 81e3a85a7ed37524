//! What drops packets. Enforcers are behind one small trait: `nftables` for real, `memory` for tests, for the demonstration and
//! for machines without the privilege.

mod memory;
mod netlink;
mod nflog;
mod nftables;
mod render;

use async_trait::async_trait;
use policy::bans::{BanChange, BanEntry};
use policy::ruleset::Coverage;
use time::OffsetDateTime;

pub use memory::Memory;
pub use nflog::PacketLog;
pub use nftables::{Nftables, version as nft_version};

/// Keeps the never-block set and the bans of one machine. Expired entries end by themselves.
#[async_trait]
pub trait Firewall: Send {
    /// `nftables` or `memory`.
    fn name(&self) -> &'static str;

    /// Replaces everything in one transaction: no packet meets a half-loaded firewall.
    async fn load(&mut self, allowed: &[BanEntry], bans: &[BanEntry], now: OffsetDateTime)
    -> Result<(), FirewallError>;

    /// Replaces the never-block set in one transaction; bans stay as they are.
    async fn load_allowed(&mut self, allowed: &[BanEntry], now: OffsetDateTime) -> Result<(), FirewallError>;

    /// Bans and lifts. Adding what is there changes when it ends; lifting what isn't there is fine.
    async fn apply(&mut self, changes: &[BanChange], now: OffsetDateTime) -> Result<(), FirewallError>;

    /// Reads back what is in force.
    async fn inspect(&mut self, now: OffsetDateTime) -> Result<Inspection, FirewallError>;
}

/// What is in force, read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Whether all sets and all rules are there.
    pub complete: bool,
    /// Ranges that are never blocked.
    pub allowed: usize,
    /// Banned addresses, IPv6 /64s and ranges.
    pub bans: usize,
}

/// Why the firewall could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The nft command could not be run.
    #[error("running nft")]
    Command(#[source] std::io::Error),
    /// nft refused.
    #[error("nft: {0}")]
    Refused(String),
    /// The kernel refused a single change.
    #[error("nfnetlink: {0}")]
    Kernel(rustix::io::Errno),
    /// The kernel answered with something else than asked.
    #[error("nfnetlink: {0}")]
    Protocol(&'static str),
}

/// Whether an entry still counts at `now`.
fn live(entry: &BanEntry, now: OffsetDateTime) -> bool {
    entry.expires_at.is_none_or(|end| end > now)
}

/// How many elements `entries` make in the kernel's sets: ranges that overlap or touch are one.
pub fn element_count(entries: &[BanEntry]) -> usize {
    let (hashed, ranges): (Vec<BanEntry>, Vec<BanEntry>) =
        entries.iter().partition(|entry| render::home(entry.net) != render::Home::Interval);
    hashed.len() + Coverage::of(&ranges).spans().len()
}

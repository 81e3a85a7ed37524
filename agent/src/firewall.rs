//! What drops packets. Enforcers are behind one small trait: `nftables` for real, `memory` for tests, for the demonstration and
//! for machines without the privilege.

mod memory;
mod netlink;
mod nflog;
mod nftables;
mod render;

use std::net::IpAddr;

use async_trait::async_trait;
use policy::bans::{BanChange, BanEntry};
use policy::ruleset::{Coverage, Span};
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// What isn't as this agent loaded it, in words; none when all of it is.
    pub problems: Vec<String>,
    /// What filters before us, and may drop what we let pass, in words. Not ours to change.
    pub ahead: Vec<String>,
    /// Ranges that are never blocked, sorted, first and last address of each.
    pub allowed: Vec<(IpAddr, IpAddr)>,
    /// Banned addresses, IPv6 /64s and ranges.
    pub bans: usize,
}

impl Inspection {
    /// Whether all of a range is never blocked.
    pub fn allows(&self, span: &Span) -> bool {
        let after = self.allowed.partition_point(|(first, _)| *first <= span.first);
        after
            .checked_sub(1)
            .and_then(|at| self.allowed.get(at))
            .is_some_and(|(first, last)| first.is_ipv4() == span.first.is_ipv4() && *last >= span.last)
    }
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

/// How many elements `entries` make in the kernel's sets: ranges that overlap or touch are one.
pub fn element_count(entries: impl IntoIterator<Item = BanEntry>) -> usize {
    let mut hashed = 0;
    let ranges: Vec<BanEntry> = entries
        .into_iter()
        .filter(|entry| {
            let range = render::home(entry.net) == render::Home::Interval;
            hashed += usize::from(!range);
            range
        })
        .collect();
    hashed + Coverage::of(&ranges).spans().len()
}

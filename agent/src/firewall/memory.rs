//! A firewall that only remembers. It drops nothing and says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use ipnet::IpNet;
use policy::bans::{BanChange, BanEntry};
use policy::ruleset::{Coverage, Ruleset, Verdict};
use time::OffsetDateTime;

use super::{Firewall, FirewallError, Inspection};

/// Remembers what a real firewall would enforce.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    allowed: Vec<BanEntry>,
    bans: BTreeMap<IpNet, BanEntry>,
}

impl Memory {
    /// What would happen to a packet from `addr`.
    pub fn verdict(&self, addr: IpAddr, now: OffsetDateTime) -> Verdict {
        Ruleset { allowed: self.allowed.clone(), bans: self.bans.values().copied().collect() }.verdict(addr, now)
    }
}

#[async_trait]
impl Firewall for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(
        &mut self,
        allowed: &[BanEntry],
        bans: &[BanEntry],
        _now: OffsetDateTime,
    ) -> Result<(), FirewallError> {
        self.allowed = allowed.to_vec();
        self.bans = bans.iter().map(|entry| (entry.net, *entry)).collect();
        Ok(())
    }

    async fn load_allowed(&mut self, allowed: &[BanEntry], _now: OffsetDateTime) -> Result<(), FirewallError> {
        self.allowed = allowed.to_vec();
        Ok(())
    }

    async fn apply(&mut self, changes: &[BanChange], now: OffsetDateTime) -> Result<(), FirewallError> {
        for change in changes {
            match change {
                BanChange::Add(entry) => self.bans.insert(entry.net, *entry),
                BanChange::Remove(net) => self.bans.remove(net),
            };
        }
        self.bans.retain(|_, entry| entry.holds(now));
        Ok(())
    }

    async fn inspect(&mut self, now: OffsetDateTime) -> Result<Inspection, FirewallError> {
        let allowed = Coverage::of(self.allowed.iter().filter(|entry| entry.holds(now)));
        Ok(Inspection {
            allowed: allowed.spans().iter().map(|span| (span.first, span.last)).collect(),
            bans: self.bans.values().filter(|entry| entry.holds(now)).count(),
            ..Inspection::default()
        })
    }
}

//! What the firewall of a PBX must do with a packet, as a plain model that every enforcer is tested against.

use std::net::IpAddr;

use ipnet::IpNet;
use time::OffsetDateTime;

use crate::bans::BanEntry;

/// What happens to a packet from an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The PBX itself: never filtered.
    Loopback,
    /// Never blocked, whatever else holds.
    Allowed,
    /// Dropped.
    Blocked,
    /// Passes on to whatever else filters on that machine.
    Passed,
}

/// The never-blocked networks and the bans of one PBX.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Never blocked, each until its expiry.
    pub allowed: Vec<BanEntry>,
    /// Blocked, each until its expiry.
    pub bans: Vec<BanEntry>,
}

impl Ruleset {
    /// The verdict on a packet from `addr` at `now`: loopback, then allowed, then banned; else it passes.
    pub fn verdict(&self, addr: IpAddr, now: OffsetDateTime) -> Verdict {
        let addr = addr.to_canonical();
        let holds = |entry: &BanEntry| entry.net.contains(&addr) && entry.holds(now);
        if addr.is_loopback() {
            Verdict::Loopback
        } else if self.allowed.iter().any(holds) {
            Verdict::Allowed
        } else if self.bans.iter().any(holds) {
            Verdict::Blocked
        } else {
            Verdict::Passed
        }
    }
}

/// A range of addresses of one family, first and last included, and until when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
    /// Until when; `None` for ever.
    pub expires_at: Option<OffsetDateTime>,
}

/// Networks with expiries as sorted ranges that don't overlap, since interval sets of the kernel refuse overlaps. Each address is
/// covered for exactly as long as by the entry that covers it longest, so nothing has to be done when one of them ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(Vec<Span>);

impl Coverage {
    /// The coverage of `entries`, which may overlap in any way.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a BanEntry>) -> Self {
        let mut nets: Vec<(IpNet, Option<OffsetDateTime>)> =
            entries.into_iter().map(|entry| (entry.net, entry.expires_at)).collect();
        // IPv4 before IPv6; a network before those within it.
        nets.sort_unstable_by_key(|(net, _)| (net.network(), net.prefix_len()));
        let mut sweep = Sweep::default();
        for (net, expires_at) in nets {
            sweep.open(net, expires_at);
        }
        sweep.close_before(None);
        Self(sweep.done)
    }

    /// The ranges, sorted: IPv4 first.
    pub fn spans(&self) -> &[Span] {
        &self.0
    }

    /// Whether `addr` is covered at `now`.
    pub fn covers(&self, addr: IpAddr, now: OffsetDateTime) -> bool {
        let addr = addr.to_canonical();
        let after = self.0.partition_point(|span| span.first <= addr);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|span| span.last >= addr && span.expires_at.is_none_or(|end| end > now))
    }
}

/// Goes through sorted networks and keeps those that are open, each within the one before.
#[derive(Default)]
struct Sweep {
    done: Vec<Span>,
    /// Last address and expiry of each open network; the inner ones last at least as long as the outer ones.
    open: Vec<(IpAddr, Option<OffsetDateTime>)>,
    /// First address that isn't in `done` yet; `None` behind the last address of all.
    at: Option<IpAddr>,
}

impl Sweep {
    fn open(&mut self, net: IpNet, expires_at: Option<OffsetDateTime>) {
        let first = net.network();
        self.close_before(Some(first));
        let mut expires_at = expires_at;
        if let Some((_, outer)) = self.open.last().copied() {
            if let Some(before) = previous(first) {
                self.emit(before, outer);
            }
            expires_at = longer(expires_at, outer);
        }
        self.at = Some(first);
        self.open.push((net.broadcast(), expires_at));
    }

    /// Closes the networks that end before `first`, or all.
    fn close_before(&mut self, first: Option<IpAddr>) {
        while let Some((last, expires_at)) = self.open.pop_if(|(last, _)| first.is_none_or(|first| *last < first)) {
            self.emit(last, expires_at);
            self.at = next(last);
        }
    }

    /// From where the sweep stands to `last`.
    fn emit(&mut self, last: IpAddr, expires_at: Option<OffsetDateTime>) {
        let Some(first) = self.at.filter(|first| first.is_ipv4() == last.is_ipv4() && *first <= last) else { return };
        match self.done.last_mut() {
            Some(before) if before.expires_at == expires_at && next(before.last) == Some(first) => before.last = last,
            _ => self.done.push(Span { first, last, expires_at }),
        }
    }
}

fn longer(a: Option<OffsetDateTime>, b: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// The address after `addr` in its family.
pub fn next(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// The address before `addr` in its family.
pub fn previous(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(addr) => addr.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;

    use super::*;

    fn entry(net: &str, seconds: Option<i64>) -> BanEntry {
        BanEntry { net: net.parse().unwrap(), expires_at: seconds.map(at) }
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn spans(entries: &[BanEntry]) -> Vec<String> {
        Coverage::of(entries)
            .spans()
            .iter()
            .map(|span| {
                format!("{}-{} {}", span.first, span.last, span.expires_at.map_or(0, OffsetDateTime::unix_timestamp))
            })
            .collect()
    }

    #[test]
    fn overlaps_become_disjoint_and_last_as_long_as_the_longest() {
        assert_eq!(
            spans(&[entry("10.0.0.0/8", Some(10)), entry("10.1.0.0/16", Some(20)), entry("10.2.0.0/16", Some(5))]),
            ["10.0.0.0-10.0.255.255 10", "10.1.0.0-10.1.255.255 20", "10.2.0.0-10.255.255.255 10"]
        );
        assert_eq!(spans(&[entry("10.0.0.0/9", None), entry("10.128.0.0/9", None)]), ["10.0.0.0-10.255.255.255 0"]);
        assert_eq!(spans(&[entry("10.0.0.0/8", Some(9)), entry("10.0.0.0/8", None)]), ["10.0.0.0-10.255.255.255 0"]);
        assert_eq!(
            spans(&[
                entry("255.255.255.0/24", Some(1)),
                entry("255.255.255.255/32", Some(2)),
                entry("::/1", None),
                entry("ffff::/16", None)
            ]),
            [
                "255.255.255.0-255.255.255.254 1",
                "255.255.255.255-255.255.255.255 2",
                "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0",
                "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0",
            ]
        );
    }

    /// Few addresses, so that random networks overlap often.
    fn any_entry() -> impl Strategy<Value = BanEntry> {
        (any::<bool>(), any::<u8>(), 0u8..=8, prop::option::of(0i64..20)).prop_map(|(v4, low, length, seconds)| {
            let net = if v4 {
                IpNet::new(IpAddr::from([203, 0, 113, low]), 24 + length)
            } else {
                IpNet::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)]), 120 + length)
            };
            BanEntry { net: net.unwrap().trunc(), expires_at: seconds.map(at) }
        })
    }

    fn any_addr() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), any::<u8>()).prop_map(|(v4, low)| {
            if v4 {
                IpAddr::from([203, 0, 113, low])
            } else {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)])
            }
        })
    }

    proptest! {
        #[test]
        fn coverage_agrees_with_the_entries(
            entries in prop::collection::vec(any_entry(), 0..12), addr in any_addr(), now in 0i64..20,
        ) {
            let coverage = Coverage::of(&entries);
            for pair in coverage.spans().windows(2) {
                prop_assert!(pair[0].last < pair[1].first, "{pair:?}");
            }
            let plain = entries.iter().any(|entry| entry.net.contains(&addr) && entry.expires_at.is_none_or(|end| end > at(now)));
            prop_assert_eq!(coverage.covers(addr, at(now)), plain);
        }

        #[test]
        fn allowed_always_wins(
            allowed in prop::collection::vec(any_entry(), 0..6), bans in prop::collection::vec(any_entry(), 0..6), addr in any_addr(), now in 0i64..20,
        ) {
            let verdict = Ruleset { allowed: allowed.clone(), bans: bans.clone() }.verdict(addr, at(now));
            let expected = match (Coverage::of(&allowed).covers(addr, at(now)), Coverage::of(&bans).covers(addr, at(now))) {
                (true, _) => Verdict::Allowed,
                (false, true) => Verdict::Blocked,
                (false, false) => Verdict::Passed,
            };
            prop_assert_eq!(verdict, expected);
        }
    }

    #[test]
    fn loopback_and_mapped_addresses() {
        let bans = vec![entry("203.0.113.0/24", None)];
        let ruleset = Ruleset { allowed: vec![], bans };
        assert_eq!(ruleset.verdict("127.0.0.1".parse().unwrap(), at(0)), Verdict::Loopback);
        assert_eq!(ruleset.verdict("::ffff:203.0.113.9".parse().unwrap(), at(0)), Verdict::Blocked);
    }
}

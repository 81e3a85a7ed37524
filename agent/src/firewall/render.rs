//! The text that nft loads: the whole table, or the never-block set anew. One transaction each.
//!
//! Order of verdicts: loopback, never-block set, bans; whatever else filters on the machine comes after. The chain sits
//! before connection tracking: SIP over UDP from an attacker counts as established after our first answer.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use policy::bans::BanEntry;
use policy::net;
use policy::ruleset::{Coverage, Span};
use time::OffsetDateTime;

/// The table that is ours alone.
pub(super) const TABLE: &str = "inet ringfence";
/// The table's name without its family.
pub(super) const TABLE_NAME: &str = "ringfence";
/// Where in the hook our chain stands: before connection tracking.
pub(super) const PRIORITY: i64 = -300;
/// All sets: name, type, flags.
pub(super) const SETS: [(&str, &str, &str); 7] = [
    ("allow4", "ipv4_addr", "interval, timeout"),
    ("allow6", "ipv6_addr", "interval, timeout"),
    ("ban4", "ipv4_addr", "timeout"),
    ("ban6", "ipv6_addr", "timeout"),
    // One IPv6 source is a /64: a hash set of them, so that detection never waits for an interval set.
    ("ban64", "ipv6_addr", "timeout"),
    ("bannet4", "ipv4_addr", "interval, timeout"),
    ("bannet6", "ipv6_addr", "interval, timeout"),
];
const RULES: [&str; 8] = [
    "iifname \"lo\" accept",
    "ip saddr @allow4 accept",
    "ip6 saddr @allow6 accept",
    "ip saddr @ban4 counter drop",
    "ip6 saddr @ban6 counter drop",
    "ip6 saddr & ffff:ffff:ffff:ffff:: @ban64 counter drop",
    "ip saddr @bannet4 counter drop",
    "ip6 saddr @bannet6 counter drop",
];
/// How many rules a complete table has.
pub(super) const RULE_COUNT: usize = RULES.len();

const DAY_MS: u64 = 86_400_000;

/// Where a banned network is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// An element of a hash set, under this key.
    Hash(&'static str, IpAddr),
    /// Part of an interval set.
    Interval,
}

pub(super) fn home(net: IpNet) -> Home {
    match net {
        IpNet::V4(_) if net::is_single(&net) => Home::Hash("ban4", net.network()),
        IpNet::V6(_) if net::is_single(&net) => Home::Hash("ban6", net.network()),
        IpNet::V6(v6) if v6.prefix_len() == 64 => Home::Hash("ban64", net.network()),
        IpNet::V4(_) | IpNet::V6(_) => Home::Interval,
    }
}

/// The interval set for bans of the family of `addr`.
pub(super) fn interval_set(addr: IpAddr) -> &'static str {
    if addr.is_ipv4() { "bannet4" } else { "bannet6" }
}

/// The whole table with all it holds. What was there before, of whatever version, goes in the same transaction.
pub(super) fn whole(allowed: &[BanEntry], bans: &[BanEntry], now: OffsetDateTime) -> String {
    // Adding first makes deleting work when there is none yet.
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    for (name, kind, flags) in SETS {
        push(&mut text, format_args!("add set {TABLE} {name} {{ type {kind}; flags {flags}; }}"));
    }
    push(
        &mut text,
        format_args!("add chain {TABLE} guard {{ type filter hook prerouting priority {PRIORITY}; policy accept; }}"),
    );
    for rule in RULES {
        push(&mut text, format_args!("add rule {TABLE} guard {rule}"));
    }
    push_allowed(&mut text, allowed, now);
    let mut hashed: [(&str, Vec<String>); 3] = [("ban4", vec![]), ("ban6", vec![]), ("ban64", vec![])];
    for entry in bans.iter().filter(|entry| entry.holds(now)) {
        if let Home::Hash(set, key) = home(entry.net)
            && let Some((_, elements)) = hashed.iter_mut().find(|(name, _)| *name == set)
        {
            elements.push(element(&key.to_string(), entry.expires_at, now));
        }
    }
    for (set, elements) in hashed {
        push_elements(&mut text, set, &elements);
    }
    let spans = Coverage::of(bans.iter().filter(|entry| entry.holds(now) && home(entry.net) == Home::Interval));
    push_spans(&mut text, "bannet4", "bannet6", spans.spans(), now);
    text
}

/// Empties the never-block set and fills it anew.
pub(super) fn allowed_only(allowed: &[BanEntry], now: OffsetDateTime) -> String {
    let mut text = format!("flush set {TABLE} allow4\nflush set {TABLE} allow6\n");
    push_allowed(&mut text, allowed, now);
    text
}

/// Empties the interval sets of bans and fills them anew.
pub(super) fn intervals_only(spans: &[Span], now: OffsetDateTime) -> String {
    let mut text = format!("flush set {TABLE} bannet4\nflush set {TABLE} bannet6\n");
    push_spans(&mut text, "bannet4", "bannet6", spans, now);
    text
}

fn push_allowed(text: &mut String, allowed: &[BanEntry], now: OffsetDateTime) {
    let coverage = Coverage::of(allowed.iter().filter(|entry| entry.holds(now)));
    push_spans(text, "allow4", "allow6", coverage.spans(), now);
}

fn push_spans(text: &mut String, set4: &str, set6: &str, spans: &[Span], now: OffsetDateTime) {
    for (set, ipv4) in [(set4, true), (set6, false)] {
        let elements: Vec<String> = spans
            .iter()
            .filter(|span| span.first.is_ipv4() == ipv4)
            .map(|span| {
                let range = if span.first == span.last {
                    span.first.to_string()
                } else {
                    format!("{}-{}", span.first, span.last)
                };
                element(&range, span.expires_at, now)
            })
            .collect();
        push_elements(text, set, &elements);
    }
}

/// Lines of at most 1,000 elements: nft's parser is slow with very long ones.
fn push_elements(text: &mut String, set: &str, elements: &[String]) {
    for chunk in elements.chunks(1_000) {
        push(text, format_args!("add element {TABLE} {set} {{ {} }}", chunk.join(", ")));
    }
}

fn element(key: &str, expires_at: Option<OffsetDateTime>, now: OffsetDateTime) -> String {
    match timeout_ms(expires_at, now) {
        None => key.to_owned(),
        // nft takes no number of more than eight digits.
        Some(ms) => format!("{key} timeout {}d{}ms", ms / DAY_MS, ms % DAY_MS),
    }
}

/// What is left until the expiry, for the kernel: at least one clock tick, at most what it takes and nobody lives to see; `None` for ever.
pub(super) fn timeout_ms(expires_at: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<u64> {
    expires_at.map(|end| u64::try_from((end - now).whole_milliseconds()).unwrap_or(0).clamp(10, 36_500 * DAY_MS))
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String can't fail");
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn the_whole_table() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let entry = |net: &str, seconds: Option<i64>| BanEntry {
            net: net.parse().unwrap(),
            expires_at: seconds.map(|seconds| now + Duration::seconds(seconds)),
        };
        let allowed =
            [entry("203.0.113.0/24", None), entry("203.0.113.9/32", Some(60)), entry("2001:db8::1/128", Some(60))];
        let bans = [
            entry("198.51.100.7/32", Some(3600)),
            entry("198.51.100.8/32", None),
            entry("198.51.100.9/32", Some(0)),
            entry("2001:db8:bad::1/128", None),
            entry("2001:db8:bad:1::/64", Some(90)),
            entry("10.0.0.0/8", Some(100)),
            entry("10.1.0.0/16", None),
            entry("2001:db8:f00::/48", None),
        ];
        insta::assert_snapshot!(whole(&allowed, &bans, now));
        insta::assert_snapshot!(allowed_only(&allowed, now));
    }
}

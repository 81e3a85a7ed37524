//! Nobody locks himself out: what a PBX takes back by itself when a change cuts it off from the server or from its phones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::net;
use crate::snapshot::PolicySnapshot;

/// How long a change is on trial: by then the server must have been heard again, and the phones must still be there.
pub const TRIAL: Duration = Duration::seconds(10);
/// A change after which the server wasn't heard is tried this often. Once more than once, since the server may have been away for
/// a reason of its own.
pub const TRIES: u32 = 2;
/// Most things that one PBX tells it withholds, and most lines of what a policy would change.
pub const WITHHELD_MAX: usize = 50;

/// How many of the registered phones, in percent, a change may cost before a PBX takes it back. 100 is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PhoneLossLimit(u32);

impl Default for PhoneLossLimit {
    fn default() -> Self {
        Self(20)
    }
}

impl PhoneLossLimit {
    /// In percent.
    pub fn percent(self) -> u32 {
        self.0
    }

    /// Whether losing `lost` of `of` phones is too many.
    pub fn exceeded(self, lost: usize, of: usize) -> bool {
        self.0 < 100 && lost.saturating_mul(100) > of.saturating_mul(self.0 as usize)
    }
}

/// The limit as somebody typed it: a whole number of percent.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_phone_loss_limit(text: &str) -> Result<PhoneLossLimit, &'static str> {
    let percent = text.trim().trim_end_matches('%').trim_end().parse::<u32>().map_err(|_| NOT_A_SHARE)?;
    PhoneLossLimit::try_from(percent)
}

const NOT_A_SHARE: &str = "A whole number from 0 to 100.";

impl TryFrom<u32> for PhoneLossLimit {
    type Error = &'static str;

    fn try_from(percent: u32) -> Result<Self, Self::Error> {
        if percent <= 100 { Ok(Self(percent)) } else { Err(NOT_A_SHARE) }
    }
}

impl From<PhoneLossLimit> for u32 {
    fn from(limit: PhoneLossLimit) -> Self {
        limit.0
    }
}

/// What is withheld.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The policy of a revision.
    Policy(i64),
    /// A ban.
    Ban(IpNet),
}

/// A change that a PBX does not enforce although it should, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// What.
    pub change: Change,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether it was in force and was taken back; else it was never loaded.
    pub rolled_back: bool,
    /// Why, in words.
    pub reason: String,
    /// What the policy would change, a line each.
    pub lines: Vec<String>,
}

/// How many phones are registered from each address.
pub type Phones = BTreeMap<IpAddr, usize>;

/// What a PBX found in its firewall that wasn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What, in words.
    pub found: Vec<String>,
    /// Whether all of it was put right.
    pub repaired: bool,
}

/// The phones whose packets come from within `net`.
pub fn phones_within(phones: &Phones, net: IpNet) -> impl Iterator<Item = (IpAddr, usize)> {
    phones.range(net.network()..=net.broadcast()).map(|(addr, count)| (*addr, *count))
}

/// Why a change that would cut these phones off is not loaded.
pub fn would_cut(lost: &Phones, of: usize) -> String {
    let phones = if of == 1 { "phone" } else { "phones" };
    let example = lost.keys().next().map(|addr| format!(", such as {addr}")).unwrap_or_default();
    let count: usize = lost.values().sum();
    format!("It would cut off {count} of {of} registered {phones}{example}. Allow their addresses first.")
}

/// Why a change was taken back after which phones went away.
pub fn phones_fell(from: usize, to: usize) -> String {
    format!("Registered phones fell from {from} to {to}.")
}

/// Why a change was taken back after which the server was not heard.
pub fn not_heard() -> String {
    format!("The server was not heard for {} s.", TRIAL.whole_seconds())
}

/// What makes `after` another policy than `before`, a line each; none when there was none before.
pub fn differences(before: Option<&PolicySnapshot>, after: &PolicySnapshot) -> Vec<String> {
    let entries = |policy: &PolicySnapshot| -> BTreeSet<String> {
        policy.allowed.iter().map(|entry| entry.target.to_string()).collect()
    };
    let (old, new) = (before.map(entries).unwrap_or_default(), entries(after));
    let gone = old.difference(&new).map(|target| format!("no longer allowed: {target}"));
    let come = new.difference(&old).map(|target| format!("newly allowed: {target}"));
    let mut lines: Vec<String> = gone.chain(come).collect();
    if before.is_some_and(|before| before.detection != after.detection) {
        lines.push("another detection rule".to_owned());
    }
    let limits = before.map(|before| (before.phone_loss_limit, after.phone_loss_limit));
    if let Some((old, new)) = limits.filter(|(old, new)| old != new) {
        lines.push(format!("may cost {} % of the phones, before {} %", new.percent(), old.percent()));
    }
    if lines.len() > WITHHELD_MAX {
        let more = lines.len() - (WITHHELD_MAX - 1);
        lines.truncate(WITHHELD_MAX - 1);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// A change as people name it.
pub fn name(change: &Change) -> String {
    match change {
        Change::Policy(revision) => format!("policy revision {revision}"),
        Change::Ban(net) => format!("ban of {}", net::display(net)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::AllowedEntry;

    #[test]
    fn the_limit_is_a_share() {
        let limit = PhoneLossLimit::default();
        assert!(!limit.exceeded(0, 0) && !limit.exceeded(0, 5) && !limit.exceeded(1, 5) && !limit.exceeded(8, 40));
        assert!(limit.exceeded(1, 4) && limit.exceeded(9, 40) && limit.exceeded(1, 1));
        let (none, all) = (PhoneLossLimit(0), PhoneLossLimit(100));
        assert!(none.exceeded(1, 1_000) && !none.exceeded(0, 1_000));
        assert!(!all.exceeded(1_000, 1_000));
        assert!(PhoneLossLimit::try_from(101).is_err());
        assert!(serde_json::from_str::<PhoneLossLimit>("101").is_err());
        for (text, percent) in [("0", 0), (" 35 ", 35), ("100 %", 100)] {
            assert_eq!(parse_phone_loss_limit(text), Ok(PhoneLossLimit(percent)), "{text:?}");
        }
        for text in ["", "%", "-1", "101", "2.5", "1e2", "99999999999", "twenty", "٣"] {
            assert_eq!(parse_phone_loss_limit(text), Err(NOT_A_SHARE), "{text:?}");
        }
    }

    #[test]
    fn phones_are_found_within_networks() {
        let phones: Phones = ["10.0.0.255", "10.0.1.0", "10.0.1.255", "10.0.2.0", "2001:db8::1"]
            .map(|addr| (addr.parse().unwrap(), 3))
            .into();
        let within = |net: &str| {
            phones_within(&phones, net.parse().unwrap()).map(|(addr, _)| addr.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(within("10.0.1.0/24"), ["10.0.1.0", "10.0.1.255"]);
        assert_eq!(within("10.0.2.0/32"), ["10.0.2.0"]);
        assert_eq!(within("::/0"), ["2001:db8::1"]);
        assert!(within("192.0.2.0/24").is_empty());
        let lost = phones_within(&phones, "10.0.1.0/24".parse().unwrap()).collect();
        assert_eq!(
            would_cut(&lost, 15),
            "It would cut off 6 of 15 registered phones, such as 10.0.1.0. Allow their addresses first."
        );
    }

    #[test]
    fn differences_name_what_comes_and_goes() {
        let policy = |targets: &[&str]| PolicySnapshot {
            allowed: targets
                .iter()
                .map(|text| AllowedEntry { target: crate::allowed_ips::parse_target(text).unwrap(), expires_at: None })
                .collect(),
            ..PolicySnapshot::default()
        };
        let mut after = policy(&["203.0.113.7", "sip.example.com"]);
        after.detection.failures = 9;
        after.phone_loss_limit = PhoneLossLimit(35);
        assert_eq!(
            differences(Some(&policy(&["203.0.113.0/24", "sip.example.com"])), &after),
            [
                "no longer allowed: 203.0.113.0/24",
                "newly allowed: 203.0.113.7",
                "another detection rule",
                "may cost 35 % of the phones, before 20 %",
            ]
        );
        assert_eq!(differences(None, &policy(&["10.0.0.1"])), ["newly allowed: 10.0.0.1"]);
        let many: Vec<String> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
        let lines = differences(None, &policy(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (WITHHELD_MAX, "and 151 more"));
    }
}

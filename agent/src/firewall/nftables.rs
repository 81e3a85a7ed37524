//! Enforcement by the kernel: one table of our own, loaded whole by `nft -f`; single bans over nfnetlink. Nobody else's rules are touched,
//! and nothing is taken out when the agent stops.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use async_trait::async_trait;
use ipnet::IpNet;
use policy::bans::{BanChange, BanEntry};
use policy::ruleset::{self, Coverage, Span};
use rustix::io::Errno;
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt as _;

use super::netlink::{Action, Change, Netlink};
use super::render::{self, Home, RULE_COUNT, SETS};
use super::{Firewall, FirewallError, Inspection};

/// More changed intervals than this are loaded as a whole.
const INTERVAL_CHANGES_MAX: usize = 200;
/// How often a ban is tried that may run out or appear in between.
const TRIES: usize = 4;

/// The kernel's firewall.
#[derive(Debug)]
pub struct Nftables {
    netlink: Netlink,
    /// The bans that live in interval sets; hash sets need no memory here.
    nets: BTreeMap<IpNet, BanEntry>,
    /// What the interval sets were last told.
    spans: Vec<Span>,
    /// How the kernel lists the table, without elements, as it was loaded.
    loaded: String,
}

impl Nftables {
    /// Connects to the kernel. Changes nothing yet.
    pub fn open() -> Result<Self, FirewallError> {
        Ok(Self { netlink: Netlink::open()?, nets: BTreeMap::new(), spans: Vec::new(), loaded: String::new() })
    }

    /// Answers a set in which nothing was found to delete.
    fn apply_hashed(&mut self, change: &BanChange, now: OffsetDateTime) -> Result<Option<&'static str>, FirewallError> {
        let (net, entry) = match change {
            BanChange::Add(entry) => (entry.net, Some(entry).filter(|entry| entry.holds(now))),
            BanChange::Remove(net) => (*net, None),
        };
        let Home::Hash(set, key) = render::home(net) else { return Ok(None) };
        let delete = Change { set, key, end: false, action: Action::Delete };
        let Some(entry) = entry else {
            return match self.netlink.commit(&[delete]) {
                Err(FirewallError::Kernel(Errno::NOENT)) => Ok(Some(set)),
                other => other.map(|()| None),
            };
        };
        let add = Change { action: Action::Add { timeout_ms: render::timeout_ms(entry.expires_at, now) }, ..delete };
        // It may be there, it may run out between two tries.
        for _ in 0..TRIES {
            match self.netlink.commit(&[add]) {
                Err(FirewallError::Kernel(Errno::EXIST)) => {}
                other => return other.map(|()| None),
            }
            match self.netlink.commit(&[delete, add]) {
                Err(FirewallError::Kernel(Errno::NOENT)) => {}
                other => return other.map(|()| None),
            }
        }
        Err(FirewallError::Kernel(Errno::AGAIN))
    }

    async fn apply_intervals(&mut self, changes: &[&BanChange], now: OffsetDateTime) -> Result<(), FirewallError> {
        for change in changes {
            match change {
                BanChange::Add(entry) => self.nets.insert(entry.net, *entry),
                BanChange::Remove(net) => self.nets.remove(net),
            };
        }
        self.nets.retain(|_, entry| entry.holds(now));
        let wanted = Coverage::of(self.nets.values());
        let (gone, new) = difference(&self.spans, wanted.spans());
        let small = gone.len() + new.len() <= INTERVAL_CHANGES_MAX;
        let delta = || {
            let deletes = gone
                .iter()
                .filter(|span| span.expires_at.is_none_or(|end| end > now))
                .flat_map(|span| interval(span, Action::Delete));
            let adds = new
                .iter()
                .flat_map(|span| interval(span, Action::Add { timeout_ms: render::timeout_ms(span.expires_at, now) }));
            deletes.chain(adds).collect::<Vec<_>>()
        };
        // Whatever the kernel doesn't take in single steps (something ran out in between) is loaded as a whole.
        if !small || self.netlink.commit(&delta()).is_err() {
            nft(&render::intervals_only(wanted.spans(), now)).await?;
        }
        self.spans = wanted.spans().to_vec();
        Ok(())
    }
}

#[async_trait]
impl Firewall for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn load(
        &mut self,
        allowed: &[BanEntry],
        bans: &[BanEntry],
        now: OffsetDateTime,
    ) -> Result<(), FirewallError> {
        nft(&render::whole(allowed, bans, now)).await?;
        self.nets = bans
            .iter()
            .filter(|entry| entry.holds(now) && render::home(entry.net) == Home::Interval)
            .map(|entry| (entry.net, *entry))
            .collect();
        self.spans = Coverage::of(self.nets.values()).spans().to_vec();
        self.loaded = listing().await?;
        Ok(())
    }

    async fn load_allowed(&mut self, allowed: &[BanEntry], now: OffsetDateTime) -> Result<(), FirewallError> {
        nft(&render::allowed_only(allowed, now)).await
    }

    async fn apply(&mut self, changes: &[BanChange], now: OffsetDateTime) -> Result<(), FirewallError> {
        let (hashed, intervals): (Vec<_>, Vec<_>) = changes.iter().partition(|change| {
            let (BanChange::Add(BanEntry { net, .. }) | BanChange::Remove(net)) = change;
            render::home(*net) != Home::Interval
        });
        let mut missed = BTreeSet::new();
        for change in hashed {
            missed.extend(self.apply_hashed(change, now)?);
        }
        // "Not there" is said of a missing element and of a missing table alike; only the first is fine.
        for set in missed {
            if !self.netlink.has_set(set)? {
                return Err(FirewallError::Kernel(Errno::NOENT));
            }
        }
        if !intervals.is_empty() {
            self.apply_intervals(&intervals, now).await?;
        }
        Ok(())
    }

    async fn inspect(&mut self, _now: OffsetDateTime) -> Result<Inspection, FirewallError> {
        let mut found = Inspection { ahead: filters_before_us().await?, ..Inspection::default() };
        for (set, _, _) in SETS {
            let read = if set.starts_with("allow") {
                self.netlink.ranges(set).map(|ranges| found.allowed.extend(ranges))
            } else {
                self.netlink.count(set).map(|count| found.bans += count)
            };
            match read {
                Err(FirewallError::Kernel(Errno::NOENT)) => found.problems.push(format!("the set {set} is gone")),
                other => other?,
            }
        }
        if !found.problems.is_empty() {
            return Ok(found);
        }
        let listing = listing().await?;
        let rules = listing.lines().filter(|line| line.ends_with(" accept") || line.ends_with(" drop")).count();
        if rules != RULE_COUNT || (!self.loaded.is_empty() && listing != self.loaded) {
            found.problems.push("somebody has changed the rules of our table".to_owned());
        }
        Ok(found)
    }
}

/// Our table as the kernel lists it, without elements and without what its counters say.
async fn listing() -> Result<String, FirewallError> {
    // Asked for one table, nft fetches all elements even when it prints none: a second with 100,000 of them, against 20 ms.
    let all = run(&["-t", "list", "ruleset", "inet"], "").await?;
    let header = format!("table inet {} {{", render::TABLE_NAME);
    let line = |line: &str| match line.split_once("counter packets ") {
        Some((before, after)) => {
            format!(
                "{before}counter {}\n",
                after.split_once(" bytes ").and_then(|(_, rest)| rest.split_once(' ')).map_or("", |(_, rest)| rest)
            )
        }
        None => format!("{line}\n"),
    };
    Ok(all.lines().skip_while(|line| *line != header).take_while(|line| *line != "}").map(line).collect())
}

/// Chains of others that see packets before ours does.
async fn filters_before_us() -> Result<Vec<String>, FirewallError> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Object>,
    }
    #[derive(Deserialize)]
    struct Object {
        chain: Option<Chain>,
    }
    #[derive(Deserialize)]
    struct Chain {
        family: String,
        table: String,
        name: String,
        #[serde(default)]
        hook: String,
        #[serde(default)]
        prio: i64,
    }
    let text = run(&["-j", "list", "chains"], "").await?;
    let listing: Listing = serde_json::from_str(&text).map_err(|_| FirewallError::Protocol("the list of chains"))?;
    let before = |chain: &Chain| match chain.hook.as_str() {
        "ingress" => true,
        "prerouting" => chain.prio < render::PRIORITY,
        _ => false,
    };
    let chains = listing.nftables.into_iter().filter_map(|object| object.chain);
    Ok(chains
        .filter(|chain| before(chain))
        .map(|Chain { family, table, name, .. }| {
            format!("the chain {name} of the table {family} {table} comes before ours")
        })
        .collect())
}

/// What of `old` isn't in `new`, and the other way round. Both are sorted.
fn difference(old: &[Span], new: &[Span]) -> (Vec<Span>, Vec<Span>) {
    let missing = |from: &[Span], within: &[Span]| {
        from.iter()
            .filter(|span| {
                within.binary_search_by_key(&span.first, |other| other.first).ok().map(|at| within[at]) != Some(**span)
            })
            .copied()
            .collect()
    };
    (missing(old, new), missing(new, old))
}

/// The two elements that make an interval; one that reaches the last address of all has no end.
fn interval(span: &Span, action: Action) -> impl Iterator<Item = Change> {
    let set = render::interval_set(span.first);
    let ending = match action {
        Action::Add { .. } => Action::Add { timeout_ms: None },
        Action::Delete => Action::Delete,
    };
    let start = Change { set, key: span.first, end: false, action };
    let end = ruleset::next(span.last).map(|key| Change { set, key, end: true, action: ending });
    std::iter::once(start).chain(end)
}

/// The version of the nft command.
pub async fn version() -> Result<String, FirewallError> {
    run(&["--version"], "").await.map(|text| text.trim().to_owned())
}

pub(super) async fn nft(text: &str) -> Result<(), FirewallError> {
    run(&["-f", "-"], text).await.map(drop)
}

/// Runs `nft`, the only process that the agent starts.
async fn run(arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let mut child = tokio::process::Command::new("nft")
        .args(arguments)
        // Where it is on every distribution, whatever the caller's PATH.
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(FirewallError::Command)?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            // When nft ends early its words on stderr say why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.map_err(FirewallError::Command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(FirewallError::Refused(words.lines().next().unwrap_or("no reason given").chars().take(300).collect()))
}

//! What the kernel does with packets, not what the rules say. Needs root for network namespaces.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use agent::firewall::{Firewall, FirewallError, Inspection, Nftables, PacketLog};
use agent::pbx::Sent;
use ipnet::IpNet;
use policy::bans::{BanChange, BanEntry};
use policy::detection::SecurityEventKind;
use policy::ruleset::{Ruleset, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use time::OffsetDateTime;

use testbed::namespaces::{Namespaces, possible, run};

#[expect(clippy::disallowed_methods, reason = "the kernel's timeouts are real")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn entry(net: &str, seconds: Option<i64>) -> BanEntry {
    let net = net.parse().unwrap_or_else(|_| IpNet::from(net.parse::<IpAddr>().unwrap()));
    BanEntry { net, expires_at: seconds.map(|seconds| now() + time::Duration::seconds(seconds)) }
}

fn ban(net: &str, seconds: Option<i64>) -> BanChange {
    BanChange::Add(entry(net, seconds))
}

fn lift(net: &str) -> BanChange {
    BanChange::Remove(entry(net, None).net)
}

/// The firewall of the PBX's namespace, as the agent would use it.
struct Lab {
    namespaces: Namespaces,
    firewall: Nftables,
}

impl Lab {
    fn new(allowed: &[BanEntry], bans: &[BanEntry]) -> Self {
        let namespaces = Namespaces::new();
        let firewall = namespaces.on_pbx(|| Nftables::open().unwrap());
        let mut lab = Self { namespaces, firewall };
        lab.load(allowed, bans).unwrap();
        lab
    }

    fn load(&mut self, allowed: &[BanEntry], bans: &[BanEntry]) -> Result<(), FirewallError> {
        let firewall = &mut self.firewall;
        self.namespaces.on_pbx(|| wait(firewall.load(allowed, bans, now())))
    }

    fn load_allowed(&mut self, allowed: &[BanEntry]) {
        let firewall = &mut self.firewall;
        self.namespaces.on_pbx(|| wait(firewall.load_allowed(allowed, now())).unwrap());
    }

    fn apply(&mut self, changes: &[BanChange]) -> Result<(), FirewallError> {
        let firewall = &mut self.firewall;
        self.namespaces.on_pbx(|| wait(firewall.apply(changes, now())))
    }

    fn inspect(&mut self) -> Inspection {
        let firewall = &mut self.firewall;
        self.namespaces.on_pbx(|| wait(firewall.inspect(now())).unwrap())
    }

    fn works(&self, source: &str) -> bool {
        self.namespaces.flow(source).works()
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_ban_ends_an_established_flow() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    for source in ["203.0.113.10", "2001:db8:bad::10"] {
        let flow = lab.namespaces.flow(source);
        assert!(flow.works() && flow.works(), "{source}");
        lab.apply(&[ban(source, Some(3600))]).unwrap();
        assert!(!flow.works(), "{source} is banned");
        lab.apply(&[lift(source)]).unwrap();
        assert!(flow.works(), "{source} is lifted");
        lab.apply(&[lift(source)]).unwrap();
    }
}

#[test]
fn ends_may_be_far_away() {
    const DAY: i64 = 86_400;
    if !possible() {
        return;
    }
    let allowed = [entry("203.0.113.10", Some(366 * DAY)), entry("203.0.113.11", Some(7_000 * 365 * DAY))];
    let bans = [entry("203.0.113.0/28", Some(30 * DAY)), entry("198.51.100.7", Some(7 * DAY))];
    let mut lab = Lab::new(&allowed, &bans);
    lab.apply(&[ban("198.51.100.8", Some(366 * DAY)), ban("198.51.100.9", Some(7_000 * 365 * DAY))]).unwrap();
    for source in ["203.0.113.10", "203.0.113.11", "198.51.100.10"] {
        assert!(lab.works(source), "{source}");
    }
    for source in ["203.0.113.12", "198.51.100.7", "198.51.100.8", "198.51.100.9"] {
        assert!(!lab.works(source), "{source} is banned");
    }
}

#[test]
fn networks_are_banned_whole_and_nothing_else() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[entry("203.0.113.64/26", None)]);
    lab.apply(&[
        ban("198.51.100.0/25", Some(3600)),
        ban("2001:db8:bad:1::/64", None),
        ban("2001:db8:f00::/48", Some(3600)),
    ])
    .unwrap();
    for (source, works) in [
        ("203.0.113.63", true),
        ("203.0.113.64", false),
        ("203.0.113.127", false),
        ("203.0.113.128", true),
        ("198.51.100.127", false),
        ("198.51.100.128", true),
        ("2001:db8:bad:1:ffff::9", false),
        ("2001:db8:bad:2::9", true),
        ("2001:db8:f00:ffff::1", false),
        ("2001:db8:f01::1", true),
    ] {
        assert_eq!(lab.works(source), works, "{source}");
    }
    lab.apply(&[lift("198.51.100.0/25")]).unwrap();
    assert!(lab.works("198.51.100.127"));
    assert!(!lab.works("203.0.113.64"), "the other network stays");
}

#[test]
fn allowed_wins_over_every_ban() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    let allowed = [entry("203.0.113.10", None), entry("2001:db8:a::/48", None), entry("203.0.113.32/30", Some(2))];
    lab.load(&allowed, &[entry("203.0.113.0/24", None), entry("2001:db8:a:1::/64", None)]).unwrap();
    lab.apply(&[ban("203.0.113.10", Some(60))]).unwrap();
    assert!(lab.works("203.0.113.10") && lab.works("2001:db8:a:1::5") && lab.works("203.0.113.33"));
    assert!(!lab.works("203.0.113.11"));
    std::thread::sleep(Duration::from_millis(2100));
    assert!(!lab.works("203.0.113.33"), "an allowed entry ends by itself");
    assert!(lab.works("203.0.113.10"));
}

#[test]
fn bans_survive_the_agent_and_policies() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    lab.apply(&[ban("203.0.113.10", Some(3600)), ban("198.51.100.0/24", None)]).unwrap();
    lab.load_allowed(&[entry("203.0.113.99", None)]);
    assert!(!lab.works("203.0.113.10") && !lab.works("198.51.100.9"), "a new policy keeps bans");
    let Lab { namespaces, firewall } = lab;
    drop(firewall);
    let flow = namespaces.flow("203.0.113.10");
    assert!(!flow.works(), "the agent is gone");
    let firewall = namespaces.on_pbx(|| Nftables::open().unwrap());
    let mut lab = Lab { namespaces, firewall };
    lab.load(&[], &[entry("203.0.113.10", Some(3600)), entry("198.51.100.0/24", None)]).unwrap();
    assert!(!flow.works(), "the agent is back");
    // What it did not load itself it can still lift and change.
    lab.apply(&[lift("203.0.113.10"), lift("198.51.100.0/24")]).unwrap();
    assert!(flow.works() && lab.works("198.51.100.9"));
}

#[test]
fn the_kernel_ends_bans_by_itself_and_takes_new_ends() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    lab.load(&[], &[entry("203.0.113.9", Some(2))]).unwrap();
    lab.apply(&[
        ban("203.0.113.10", Some(2)),
        ban("203.0.113.11", Some(2)),
        ban("203.0.113.12", Some(3600)),
        ban("198.51.100.0/24", Some(2)),
    ])
    .unwrap();
    lab.apply(&[ban("203.0.113.11", Some(3600)), ban("203.0.113.12", Some(2)), ban("198.51.100.0/28", Some(3600))])
        .unwrap();
    for source in ["203.0.113.9", "203.0.113.10", "203.0.113.11", "203.0.113.12", "198.51.100.9", "198.51.100.99"] {
        assert!(!lab.works(source), "{source} is banned");
    }
    std::thread::sleep(Duration::from_millis(2100));
    for (source, works) in [
        ("203.0.113.9", true),
        ("203.0.113.10", true),
        ("203.0.113.11", false),
        ("203.0.113.12", true),
        ("198.51.100.9", false),
        ("198.51.100.99", true),
    ] {
        assert_eq!(lab.works(source), works, "{source}");
    }
    // Over what has run out.
    lab.apply(&[ban("203.0.113.10", Some(60)), ban("198.51.100.0/24", Some(60))]).unwrap();
    assert!(!lab.works("203.0.113.10") && !lab.works("198.51.100.99"));
}

#[test]
fn other_tables_are_left_alone_and_old_ones_of_ours_replaced() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    let before = lab.namespaces.on_pbx(|| {
        run("nft", "add table inet other");
        run("nft", "add set inet other ban4 { type ipv4_addr; flags interval; }");
        run("nft", "add element inet other ban4 { 192.0.2.0/24 }");
        run("nft", "delete table inet ringfence");
        run("nft", "add table inet ringfence");
        run("nft", "add set inet ringfence ban4 { type inet_service; }");
        run("nft", "add chain inet ringfence antique");
        run("nft", "list table inet other")
    });
    assert!(!lab.inspect().problems.is_empty());
    assert!(lab.apply(&[ban("203.0.113.10", None)]).is_err(), "the table isn't ours");
    lab.load(&[entry("203.0.113.1", None)], &[entry("203.0.113.10", None), entry("198.51.100.0/24", None)]).unwrap();
    assert!(!lab.works("203.0.113.10"));
    lab.apply(&[ban("203.0.113.11", None)]).unwrap();
    lab.load_allowed(&[entry("203.0.113.2", None), entry("203.0.113.4", None)]);
    let range = |addr: &str| (addr.parse().unwrap(), addr.parse().unwrap());
    let allowed = vec![range("203.0.113.2"), range("203.0.113.4")];
    assert_eq!(lab.inspect(), Inspection { allowed, bans: 3, ..Inspection::default() });
    assert_eq!(lab.namespaces.on_pbx(|| run("nft", "list table inet other")), before);
    lab.namespaces.on_pbx(|| run("nft", "flush chain inet ringfence guard"));
    assert_eq!(lab.inspect().problems, ["somebody has changed the rules of our table"]);
}

#[test]
fn what_is_in_force_is_read_back() {
    if !possible() {
        return;
    }
    let allowed = ["0.0.0.0/1", "203.0.113.0/24", "255.255.255.0/24", "2001:db8::/32", "ffff::/16"]
        .map(|net| entry(net, Some(600)));
    let mut lab = Lab::new(&allowed, &[entry("198.51.100.7", None)]);
    let spans = policy::ruleset::Coverage::of(&allowed);
    let found = lab.inspect();
    assert!((found.problems.is_empty(), found.ahead.is_empty(), found.bans) == (true, true, 1), "{found:?}");
    assert!(spans.spans().iter().all(|span| found.allows(span)), "{found:?}");
    let more = policy::ruleset::Coverage::of(&[entry("203.0.112.0/23", None)]);
    assert!(!found.allows(&more.spans()[0]));

    let nft = |lab: &Lab, command: &str| drop(lab.namespaces.on_pbx(|| run("nft", command)));
    // Counters that count are no change; a rule put in front is, though it looks like ours.
    assert!(!lab.works("198.51.100.7"));
    assert!(lab.inspect().problems.is_empty());
    nft(&lab, "insert rule inet ringfence guard ip saddr 203.0.113.9 drop");
    assert_eq!(lab.inspect().problems.len(), 1);
    lab.load(&allowed, &[]).unwrap();
    nft(&lab, "delete element inet ringfence allow4 { 203.0.113.0-203.0.113.255 }");
    assert!(!spans.spans().iter().all(|span| lab.inspect().allows(span)));
    nft(&lab, "add table ip early");
    nft(&lab, "add chain ip early first { type filter hook prerouting priority -350 ; }");
    assert_eq!(lab.inspect().ahead, ["the chain first of the table ip early comes before ours"]);
}

#[test]
fn loopback_is_never_filtered() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    lab.apply(&[ban("10.9.0.1", None)]).unwrap();
    let answered = lab.namespaces.on_pbx(|| {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(b"hello", "10.9.0.1:5060").unwrap();
        socket.recv(&mut [0; 8]).is_ok()
    });
    assert!(answered, "the machine's own address, over its loopback interface");
}

#[test]
fn many_bans_at_once() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(&[], &[]);
    let start = tokio::time::Instant::now();
    let bans: Vec<BanChange> =
        (0..5_000u32).map(|n| ban(&format!("11.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255), Some(3600))).collect();
    lab.apply(&bans).unwrap();
    eprintln!("5,000 bans one by one: {:?}", start.elapsed());
    let nets: Vec<BanChange> =
        (0..2_000u32).map(|n| ban(&format!("12.{}.{}.0/24", n >> 8, n & 255), Some(3600 + i64::from(n)))).collect();
    lab.apply(&nets).unwrap();
    assert_eq!(lab.inspect().bans, 7_000);
    let start = tokio::time::Instant::now();
    lab.apply(&[ban("13.0.0.0/24", None)]).unwrap();
    eprintln!("one network beside 2,000: {:?}", start.elapsed());
    assert_eq!(lab.inspect().bans, 7_001);
}

#[test]
fn challenges_and_their_answers_are_seen_and_nothing_else() {
    if !possible() {
        return;
    }
    let lab = Lab::new(&[], &[]);
    let log = lab.namespaces.on_pbx(|| {
        wait(PacketLog::load_rules()).unwrap();
        PacketLog::open().unwrap()
    });
    // From the port that answers there; what the other side sends comes back to it.
    let challenge = |to: &str, status: &str| {
        lab.namespaces.on_pbx(|| {
            let socket = UdpSocket::bind(if to.contains(':') { "[::]:5070" } else { "0.0.0.0:5070" }).unwrap();
            let response = format!(
                "SIP/2.0 {status}\r\nWWW-Authenticate: Digest nonce=\"nonce-for-{}\"\r\n\r\n",
                to.replace(':', "-")
            );
            socket.send_to(response.as_bytes(), (to, 5060)).unwrap();
        });
    };
    let answer = |from: &str, nonce_of: &str| {
        let text = format!(
            "REGISTER sip:pbx SIP/2.0\r\nAuthorization: Digest nonce=\"x\"\r\nAuthorization: Digest nonce=\"nonce-for-{}\"\r\n\r\n",
            nonce_of.replace(':', "-")
        );
        lab.namespaces.send(from, 5070, text.as_bytes());
    };
    for (to, status) in [("203.0.113.10", "401 Unauthorized"), ("203.0.113.11", "200 OK"), ("2001:db8::9", "407 Proxy")]
    {
        challenge(to, status);
    }
    answer("203.0.113.10", "203.0.113.10");
    answer("203.0.113.11", "203.0.113.10");
    answer("2001:db8::9", "2001:db8::9");
    answer("2001:db8::9", "203.0.113.10");
    let (mut sent, mut seen) = (Sent::default(), Vec::new());
    for _ in 0..5 {
        log.read(&mut Vec::new(), |packet| seen.extend(sent.see(packet, tokio::time::Instant::now()))).unwrap();
        if seen.len() >= 4 {
            break;
        }
    }
    let event = |kind, who: &str| (kind, who.parse().unwrap(), format!("nonce-for-{}", who.replace(':', "-")));
    let (v4, v6) = ("203.0.113.10", "2001:db8::9");
    assert_eq!(
        seen,
        [
            event(SecurityEventKind::ChallengeSent, v4),
            event(SecurityEventKind::ChallengeSent, v6),
            event(SecurityEventKind::ChallengeAnswered, v4),
            event(SecurityEventKind::ChallengeAnswered, v6),
        ]
    );
}

/// Networks of a few addresses, so that random ones overlap.
fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u8..32, 27u8..=32)
            .prop_map(|(low, length)| IpNet::new(IpAddr::from([203, 0, 113, low]), length).unwrap().trunc()),
        (0u16..8, prop_oneof![Just(61u8), Just(62), Just(63), Just(64), Just(128)]).prop_map(|(low, length)| {
            IpNet::new(IpAddr::from([0x2001, 0xdb8, 0, low, 0, 0, 0, 1]), length).unwrap().trunc()
        }),
    ]
}

/// Ended, for long, for ever.
fn any_entry() -> impl Strategy<Value = BanEntry> {
    (any_net(), prop_oneof![Just(Some(-5)), Just(Some(900)), Just(Some(1800)), Just(None)]).prop_map(
        |(net, seconds)| BanEntry { net, expires_at: seconds.map(|seconds| now() + time::Duration::seconds(seconds)) },
    )
}

#[test]
fn the_kernel_agrees_with_the_model() {
    if !possible() {
        return;
    }
    let lab = std::cell::RefCell::new(Lab::new(&[], &[]));
    let sources: BTreeSet<IpAddr> = (0..32u8)
        .map(|low| IpAddr::from([203, 0, 113, low]))
        .chain((0..8u16).flat_map(|low| [1, 2].map(|host| IpAddr::from([0x2001, 0xdb8, 0, low, 0, 0, 0, host]))))
        .collect();
    let change = prop_oneof![3 => any_entry().prop_map(BanChange::Add), 2 => any_net().prop_map(BanChange::Remove)];
    let entries = || prop::collection::vec(any_entry(), 0..5);
    let steps = prop::collection::vec((prop::option::of(entries()), prop::collection::vec(change, 0..6)), 0..5);
    TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() })
        .run(&(entries(), entries(), steps), |(allowed, bans, steps)| {
            let mut lab = lab.borrow_mut();
            // One entry a network, as in the set that the server sends.
            let mut held: std::collections::BTreeMap<IpNet, BanEntry> =
                bans.iter().map(|entry| (entry.net, *entry)).collect();
            let mut allowed = allowed;
            lab.load(&allowed, &held.values().copied().collect::<Vec<_>>()).unwrap();
            for (new, changes) in std::iter::once((None, vec![])).chain(steps) {
                if let Some(new) = new {
                    allowed = new;
                    lab.load_allowed(&allowed);
                }
                lab.apply(&changes).unwrap();
                for change in changes {
                    match change {
                        BanChange::Add(entry) => held.insert(entry.net, entry),
                        BanChange::Remove(net) => held.remove(&net),
                    };
                }
                let model = Ruleset { allowed: allowed.clone(), bans: held.values().copied().collect() };
                let expected = sources
                    .iter()
                    .copied()
                    .filter(|source| model.verdict(*source, now()) != Verdict::Blocked)
                    .collect();
                prop_assert_eq!(lab.namespaces.answered(&sources, &expected), expected);
            }
            Ok(())
        })
        .unwrap();
}

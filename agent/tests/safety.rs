//! Nobody locks himself out: changes that cut the PBX off from its server or from its phones come back by themselves, with real packets in
//! network namespaces. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

#[path = "support/server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::clock::{SharedClock, SystemClock};
use agent::engine::{Engine, Inputs, Parts};
use agent::firewall::Nftables;
use agent::pbx::PbxEvent;
use agent::state::StateDir;
use agent::{enrol, link, tls};
use policy::allowed_ips::AllowedTarget;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::safety::{self, Change, Phones, Withheld};
use policy::snapshot::{AllowedEntry, PolicySnapshot};
use proto::convert::{BanDelta, FromAgent, FromServer, Hello, snapshot_parts};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use server::{Server, Stream};
use testbed::namespaces::{Flow, Namespaces, enter, possible, run};

/// Where the server really is; the PBX reaches it under another address, as behind a proxy of its own machine.
const SERVER: &str = "203.0.113.50";
/// What the agent takes for the server's address.
const PROXY: &str = "10.9.0.2";
const PHONES: usize = 10;

/// What the PBX says of its phones.
#[derive(Clone, Copy)]
enum Told {
    /// How many there are, not where: they register with names, or from behind a NAT that the PBX doesn't see.
    Number,
    Addresses,
}

/// Two machines: the PBX with its agent and ten phones, and the server.
struct Lab {
    namespaces: Namespaces,
    phones: Vec<Flow>,
    stop: Arc<AtomicBool>,
    pbx: Option<JoinHandle<()>>,
    /// Each stream of the agent: its hello, and what to do next.
    server: tokio::runtime::Runtime,
    listening: Server,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(told: Told) -> Self {
        let namespaces = Namespaces::new();
        let threads = tokio::runtime::Builder::new_multi_thread();
        let (server, listening) = namespaces.on_attacker(|| {
            let runtime = { threads }.worker_threads(1).enable_all().build().unwrap();
            let listening = runtime.block_on(Server::start_at(SERVER, PROXY));
            (runtime, listening)
        });
        let port = listening.address().rsplit_once(':').unwrap().1.to_owned();
        namespaces.on_pbx(|| {
            run("nft", "add table ip proxy");
            run("nft", "add chain ip proxy output { type nat hook output priority -100 ; }");
            run("nft", &format!("add rule ip proxy output ip daddr {PROXY} tcp dport {port} dnat to {SERVER}"));
        });
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let phones =
            || -> Vec<Flow> { (10..10 + PHONES).map(|host| namespaces.flow(&format!("203.0.113.{host}"))).collect() };
        let (token, counted, stopped) = (listening.token(), phones(), Arc::clone(&stop));
        let namespace = namespaces.pbx.clone();
        let pbx = std::thread::spawn(move || {
            enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_agent(state, token, counted, told, stopped));
        });
        Self { phones: phones(), namespaces, stop, pbx: Some(pbx), server, listening, _folder: folder }
    }

    /// The next stream of the agent.
    fn stream(&mut self) -> Stream {
        self.server.block_on(async {
            let stream = tokio::time::timeout(Duration::from_secs(20), self.listening.stream()).await.unwrap();
            stream.beat();
            stream
        })
    }

    fn send(&self, stream: &Stream, message: FromServer) {
        self.server.block_on(stream.send(message));
    }

    /// The next message that `wanted` takes.
    fn next<T>(&self, stream: &mut Stream, wanted: impl Fn(&FromAgent) -> Option<T>) -> T {
        self.try_next(stream, wanted).expect("within 15 s")
    }

    fn try_next<T>(&self, stream: &mut Stream, wanted: impl Fn(&FromAgent) -> Option<T>) -> Option<T> {
        self.server.block_on(async {
            let search = async {
                loop {
                    let message = stream.next().await;
                    if let Some(found) = wanted(&message) {
                        return found;
                    }
                    eprintln!("passed over: {message:?}");
                }
            };
            tokio::time::timeout(Duration::from_secs(15), search).await.ok()
        })
    }

    fn withheld(&self, stream: &mut Stream) -> Vec<Withheld> {
        self.next(
            stream,
            |message| if let FromAgent::Withheld(withheld) = message { Some(withheld.clone()) } else { None },
        )
    }

    fn applied(&self, stream: &mut Stream) -> i64 {
        self.next(
            stream,
            |message| if let FromAgent::PolicyApplied(applied) = message { Some(applied.revision) } else { None },
        )
    }

    fn bans_applied(&self, stream: &mut Stream) -> i64 {
        self.next(
            stream,
            |message| if let FromAgent::BansApplied(applied) = message { Some(applied.seq) } else { None },
        )
    }

    /// Lets the trial of what was sent pass, so that only what comes next is judged.
    fn confirmed() {
        std::thread::sleep(safety::TRIAL.unsigned_abs() + Duration::from_secs(2));
    }

    fn working(&self) -> usize {
        self.phones.iter().filter(|phone| phone.works()).count()
    }

    /// Whether all phones get through again before `seconds` have passed.
    fn back_within(&self, seconds: u64) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if self.working() == PHONES {
                return true;
            }
        }
        false
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pbx) = self.pbx.take() {
            let _ = pbx.join();
        }
    }
}

/// The agent as it runs on a PBX, with the kernel's firewall; its PBX counts the phones whose packets are answered.
async fn run_agent(state: StateDir, token: String, phones: Vec<Flow>, told: Told, stop: Arc<AtomicBool>) {
    let (identity, credentials) = enrol::enrol(&token, None, "pbx-1").await.unwrap();
    state.enrolled(&identity, &credentials).unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let (events, from_pbx) = mpsc::channel(64);
    let (link_events, from_link) = mpsc::channel(64);
    let (_answers, answers) = watch::channel(agent::dns::Answers::default());
    let way = tls::Way::to(&identity.server);
    let engine = Engine::start(Parts {
        clock: Arc::clone(&clock),
        state,
        identity,
        firewall: Box::new(Nftables::open().unwrap()),
        pbx_kind: "asterisk",
        hostname: "pbx-1".into(),
        names: watch::Sender::new(BTreeSet::new()),
        closely: watch::Sender::new(false),
    })
    .await
    .unwrap();
    let about = engine.about();
    let keep: link::Keep = Box::new(|_| Ok(()));
    let counting = Arc::clone(&stop);
    std::thread::spawn(move || {
        while !counting.load(Ordering::Relaxed) {
            let there: Vec<&Flow> = phones.iter().filter(|phone| phone.works()).collect();
            let addresses = match told {
                Told::Number => Phones::new(),
                Told::Addresses => there.iter().map(|phone| (phone.source(), 1)).collect(),
            };
            if events.blocking_send(PbxEvent::Registered(there.len(), addresses)).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    tokio::spawn(async move { link::run(&way, credentials, keep, about, link_events, clock).await });
    let stopped = async move {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    engine.run(Inputs { pbx: from_pbx, link: from_link, answers }, stopped).await;
}

fn policy(revision: i64, allowed: &[&str]) -> FromServer {
    let entry = |net: &&str| AllowedEntry { target: AllowedTarget::Net(net.parse().unwrap()), expires_at: None };
    FromServer::Policy(PolicySnapshot {
        revision,
        allowed: allowed.iter().map(entry).collect(),
        ..PolicySnapshot::default()
    })
}

fn banned(net: &str) -> BanEntry {
    BanEntry { net: net.parse().unwrap(), expires_at: None }
}

fn bans(seq: i64, nets: &[&str]) -> FromServer {
    let bans: Vec<BanEntry> = nets.iter().map(|net| banned(net)).collect();
    FromServer::BanSnapshot(snapshot_parts(seq, &bans).remove(0))
}

fn only(withheld: &[Withheld], change: &Change, rolled_back: bool) -> String {
    let [only] = withheld else { panic!("one thing withheld, not {withheld:?}") };
    assert_eq!((&only.change, only.rolled_back), (change, rolled_back), "{only:?}");
    only.reason.clone()
}

fn revision(hello: &Hello) -> Option<i64> {
    hello.policy.map(|(revision, _)| revision)
}

#[test]
fn a_policy_that_cuts_off_the_server_comes_back_and_is_tried_once_more() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(Told::Number);
    let mut stream = lab.stream();
    // The PBX says nothing of its phones' addresses, and none of ten may be lost: only the server is cut off here, at first unseen.
    lab.send(&stream, policy(1, &["203.0.113.0/28", "203.0.113.16/28", "203.0.113.50/32"]));
    assert_eq!(lab.applied(&mut stream), 1);
    lab.send(&stream, bans(1, &["203.0.113.0/24"]));
    lab.bans_applied(&mut stream);
    assert_eq!(lab.working(), PHONES, "allowed wins over the ban");
    Lab::confirmed();
    let change = Change::Policy(2);
    for attempt in 1..=2 {
        lab.send(&stream, policy(2, &["203.0.113.0/28", "203.0.113.16/28"]));
        let start = Instant::now();
        stream = lab.stream();
        assert!(start.elapsed() < Duration::from_secs(15), "attempt {attempt}: back after {:?}", start.elapsed());
        assert_eq!(revision(&stream.hello), Some(1));
        assert_eq!(only(&stream.hello.withheld, &change, true), "The server was not heard for 10 s.");
        assert_eq!(stream.hello.withheld[0].lines, ["no longer allowed: 203.0.113.50"]);
    }
    // For good, until there is another revision.
    lab.send(&stream, policy(2, &["203.0.113.0/28", "203.0.113.16/28"]));
    assert_eq!(lab.applied(&mut stream), 1);
    only(&lab.withheld(&mut stream), &change, true);
    lab.send(&stream, policy(3, &["203.0.113.0/24"]));
    assert_eq!(lab.applied(&mut stream), 3);
}

#[test]
fn a_policy_after_which_phones_go_away_comes_back() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(Told::Number);
    let mut stream = lab.stream();
    lab.send(&stream, policy(1, &["203.0.113.0/24"]));
    assert_eq!(lab.applied(&mut stream), 1);
    lab.send(&stream, bans(1, &["203.0.113.8/29"]));
    lab.bans_applied(&mut stream);
    Lab::confirmed();
    lab.send(&stream, policy(2, &["203.0.113.50/32"]));
    assert_eq!(lab.applied(&mut stream), 2);
    let start = Instant::now();
    let reason = only(&lab.withheld(&mut stream), &Change::Policy(2), true);
    assert!(reason.starts_with("Registered phones fell from 10 to "), "{reason}");
    assert!(lab.back_within(15u64.saturating_sub(start.elapsed().as_secs())), "all phones get through again");
    // Two of ten may go.
    lab.send(&stream, bans(2, &["203.0.113.10/31"]));
    lab.send(&stream, policy(3, &["203.0.113.50/32"]));
    assert_eq!(lab.applied(&mut stream), 3);
    Lab::confirmed();
    assert_eq!(lab.working(), PHONES - 2);
}

#[test]
fn what_would_cut_off_known_phones_is_never_loaded() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(Told::Addresses);
    let mut stream = lab.stream();
    lab.send(&stream, policy(1, &[]));
    lab.send(&stream, bans(1, &[]));
    lab.bans_applied(&mut stream);
    std::thread::sleep(Duration::from_secs(2));
    let delta = |seq, net: &str, set: &[&str]| {
        let set: Vec<BanEntry> = set.iter().map(|net| banned(net)).collect();
        let changes = vec![BanChange::Add(banned(net))];
        FromServer::BanDelta(BanDelta { from_seq: seq, to_seq: seq, digest: BanDigest::of(&set), changes })
    };
    lab.send(&stream, delta(2, "203.0.113.0/27", &["203.0.113.0/27"]));
    let reason = only(&lab.withheld(&mut stream), &Change::Ban("203.0.113.0/27".parse().unwrap()), false);
    assert_eq!(
        reason,
        "It would cut off 10 of 10 registered phones, such as 203.0.113.10. Allow their addresses first."
    );
    assert_eq!(lab.bans_applied(&mut stream), 2, "the set is the server's all the same");
    assert_eq!(lab.working(), PHONES);
    // Another ban is enforced, the withheld one is forgotten once it is lifted.
    lab.send(&stream, delta(3, "203.0.113.99/32", &["203.0.113.0/27", "203.0.113.99/32"]));
    assert_eq!(lab.bans_applied(&mut stream), 3);
    assert!(!lab.namespaces.flow("203.0.113.99").works());
    let lifted = vec![BanChange::Remove("203.0.113.0/27".parse().unwrap())];
    let digest = BanDigest::of(&[banned("203.0.113.99/32")]);
    lab.send(&stream, FromServer::BanDelta(BanDelta { from_seq: 4, to_seq: 4, digest, changes: lifted }));
    assert!(lab.withheld(&mut stream).is_empty());
}

#[test]
fn a_firewall_that_somebody_flushed_is_put_right_within_a_minute_and_told() {
    if !possible() {
        return;
    }
    let mut lab = Lab::new(Told::Number);
    let mut stream = lab.stream();
    lab.send(&stream, policy(1, &["203.0.113.0/28"]));
    lab.send(&stream, bans(1, &["203.0.113.99/32"]));
    lab.bans_applied(&mut stream);
    let banned = lab.namespaces.flow("203.0.113.99");
    assert!(!banned.works());
    lab.namespaces.on_pbx(|| run("nft", "flush table inet ringfence"));
    assert!(banned.works(), "the rules are gone");
    let start = Instant::now();
    let drift = (0..5).find_map(|_| {
        lab.try_next(
            &mut stream,
            |message| if let FromAgent::Drift(drift) = message { Some(drift.clone()) } else { None },
        )
    });
    let drift = drift.expect("within a minute");
    assert!(start.elapsed() < Duration::from_secs(65));
    assert_eq!((drift.found, drift.repaired), (vec!["somebody has changed the rules of our table".to_owned()], true));
    assert!(!banned.works());
    assert_eq!(lab.working(), PHONES);
}

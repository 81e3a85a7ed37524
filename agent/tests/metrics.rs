//! What a running agent tells of itself over HTTP: metrics, and whether this machine is protected.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

#[path = "support/server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod server;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::clock::{Clock as _, SharedClock, SystemClock};
use agent::engine::{Engine, Inputs, Parts};
use agent::firewall::{Firewall, FirewallError, Inspection, Memory};
use agent::pbx::PbxEvent;
use agent::state::StateDir;
use agent::{enrol, http, link, tls};
use async_trait::async_trait;
use policy::bans::{BanChange, BanEntry};
use policy::detection::{SecurityEvent, SecurityEventKind};
use policy::metrics::{AGENT, Kind, PROCESS};
use policy::snapshot::PolicySnapshot;
use proto::convert::{FromAgent, FromServer, snapshot_parts};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use server::Server;

const ATTACKER: &str = "203.0.113.10";

/// Stands for the kernel's firewall, which fails when it is told to; the real one is tested with packets.
#[derive(Default)]
struct Breakable {
    memory: Memory,
    broken: Arc<AtomicBool>,
}

impl Breakable {
    fn check(&self) -> Result<(), FirewallError> {
        if self.broken.load(Ordering::Relaxed) { Err(FirewallError::Refused("broken".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Firewall for Breakable {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn load(
        &mut self,
        allowed: &[BanEntry],
        bans: &[BanEntry],
        now: OffsetDateTime,
    ) -> Result<(), FirewallError> {
        self.check()?;
        self.memory.load(allowed, bans, now).await
    }

    async fn load_allowed(&mut self, allowed: &[BanEntry], now: OffsetDateTime) -> Result<(), FirewallError> {
        self.check()?;
        self.memory.load_allowed(allowed, now).await
    }

    async fn apply(&mut self, changes: &[BanChange], now: OffsetDateTime) -> Result<(), FirewallError> {
        self.check()?;
        self.memory.apply(changes, now).await
    }

    async fn inspect(&mut self, now: OffsetDateTime) -> Result<Inspection, FirewallError> {
        self.check()?;
        self.memory.inspect(now).await
    }
}

/// A running agent: what its PBX says, and where it answers.
struct Agent {
    pbx: mpsc::Sender<PbxEvent>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Agent {
    async fn start(server: &Server, firewall: Box<dyn Firewall>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let (identity, credentials) = enrol::enrol(&server.token(), None, "pbx-1").await.unwrap();
        state.enrolled(&identity, &credentials).unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let (pbx, from_pbx) = mpsc::channel(64);
        let (link_events, from_link) = mpsc::channel(64);
        let (_, answers) = watch::channel(agent::dns::Answers::default());
        let way = tls::Way::to(&identity.server);
        let keep: link::Keep = Box::new(|_| Ok(()));
        let parts = Parts {
            clock: Arc::clone(&clock),
            state,
            identity,
            firewall,
            pbx_kind: "asterisk",
            hostname: "pbx-1".into(),
            names: watch::Sender::new(BTreeSet::new()),
            closely: watch::Sender::new(false),
        };
        let engine = Engine::start(parts).await.unwrap();
        let about = engine.about();
        let listener: TcpListener = http::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(listener, engine.metrics()));
        tokio::spawn(async move { link::run(&way, credentials, keep, about, link_events, clock).await });
        tokio::spawn(engine.run(Inputs { pbx: from_pbx, link: from_link, answers }, std::future::pending()));
        Self { pbx, address, _folder: folder }
    }

    /// Asks as a scraper does: status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let asked = async {
            loop {
                let (status, body) = self.get(path).await;
                if wanted(status, &body) {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_tells_of_itself() {
    let mut server = Server::start().await;
    let firewall = Breakable::default();
    let broken = Arc::clone(&firewall.broken);
    let agent = Agent::start(&server, Box::new(firewall)).await;
    assert_eq!(agent.get("/readyz").await, (200, "ready\n".to_owned()), "before the server is there");
    assert_eq!(agent.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(agent.get("/").await.0, 404);

    let mut stream = server.stream().await;
    stream.send(FromServer::Policy(PolicySnapshot { revision: 3, ..PolicySnapshot::default() })).await;
    let phones = [("192.0.2.4".parse::<IpAddr>().unwrap(), 7)].into_iter().collect();
    agent.pbx.send(PbxEvent::Up("22.4".into())).await.unwrap();
    agent.pbx.send(PbxEvent::Registered(7, phones)).await.unwrap();
    for number in 0..5 {
        let event = SecurityEvent {
            at: SystemClock.now(),
            kind: SecurityEventKind::ChallengeResponseFailed,
            account: "1007".into(),
            session: number.to_string(),
            remote: ATTACKER.parse().unwrap(),
            transport: "TCP".into(),
            service: "PJSIP".into(),
            challenge: None,
        };
        agent.pbx.send(PbxEvent::Security(event, Instant::now())).await.unwrap();
    }
    while !matches!(stream.next().await, FromAgent::Report(_)) {}

    // What is counted at once is there; what is told each second follows.
    let told =
        ["ringfence_agent_registered_phones 7\n", "ringfence_agent_bans 1\n", "ringfence_agent_policy_revision 3\n"];
    let page = agent.until("/metrics", |_, page| told.iter().all(|line| page.contains(line))).await;
    for line in [
        "ringfence_agent_link_up 1",
        "ringfence_agent_enforced 1",
        "ringfence_agent_bans 1",
        "ringfence_agent_own_bans_total 1",
        "ringfence_agent_policy_revision 3",
        "ringfence_agent_ban_reaction_seconds_count 1",
        "ringfence_agent_ban_reaction_seconds_bucket{le=\"+Inf\"} 1",
        "ringfence_agent_attempts_total{proven=\"yes\"} 5",
        "ringfence_agent_attempts_total{proven=\"no\"} 0",
        "ringfence_agent_pbx_up 1",
        "ringfence_agent_rollbacks_total 0",
        "ringfence_agent_reports_dropped_total 0",
    ] {
        assert!(page.lines().any(|told| told == line), "{line} is missing in\n{page}");
    }
    for metric in [PROCESS, AGENT].into_iter().flatten() {
        let name = metric.name;
        let sampled = match metric.kind {
            Kind::Histogram => page.contains(&format!("\n{name}_count ")),
            Kind::Counter | Kind::Gauge => {
                page.contains(&format!("\n{name} ")) || page.contains(&format!("\n{name}{{"))
            }
        };
        assert!(sampled, "{name} has no value in\n{page}");
    }
    for somebody in [ATTACKER, "192.0.2.4", "1007", "pbx-1", "hq"] {
        assert!(!page.contains(somebody), "{somebody} is told");
    }

    // A change that the kernel doesn't take: this machine isn't what it should be until it does.
    broken.store(true, Ordering::Relaxed);
    let ban = BanEntry { net: "198.51.100.0/24".parse().unwrap(), expires_at: None };
    stream.send(FromServer::BanSnapshot(snapshot_parts(10, &[ban]).remove(0))).await;
    let told = agent.until("/readyz", |status, _| status == 503).await;
    assert_eq!(told, "the kernel lacks rules or bans\n");
    assert_eq!(agent.get("/healthz").await.0, 200);
    broken.store(false, Ordering::Relaxed);
    agent.until("/readyz", |status, _| status == 200).await;
    // The server may be away: the machine is protected all the same.
    drop(stream);
    agent.until("/metrics", |_, page| !page.contains("ringfence_agent_link_breaks_total 0\n")).await;
    assert_eq!(agent.get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_blocks_nothing_is_never_ready() {
    let server = Server::start().await;
    let agent = Agent::start(&server, Box::new(Memory::default())).await;
    assert_eq!(agent.get("/readyz").await, (503, "the firewall is memory: nothing is blocked\n".to_owned()));
}

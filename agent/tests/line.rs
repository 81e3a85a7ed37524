//! The agent from enrolment to reports, against a small server in the same process: TLS, protocol, engine, state on disk.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

#[path = "support/server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod server;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::clock::{Clock as _, SharedClock, SystemClock};
use agent::engine::{Engine, Inputs, Parts};
use agent::firewall::Memory;
use agent::pbx::PbxEvent;
use agent::state::StateDir;
use agent::{enrol, link, tls};
use policy::allowed_ips::AllowedTarget;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::detection::{SecurityEvent, SecurityEventKind};
use policy::reports::ReportEvent;
use policy::snapshot::{AllowedEntry, PolicySnapshot};
use proto::convert::{BanDelta, FromAgent, FromServer, ReportAck, snapshot_parts};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use server::{Server, Stream};

/// A running agent with the memory firewall.
struct Agent {
    state: StateDir,
    pbx: mpsc::Sender<PbxEvent>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start(state: &StateDir) -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let (identity, credentials) = state.identity().zip(state.credentials()).unwrap();
        let (pbx, from_pbx) = mpsc::channel(64);
        let (link_events, from_link) = mpsc::channel(64);
        let (_, answers) = watch::channel(agent::dns::Answers::default());
        let way = tls::Way::to(&identity.server);
        let kept = state.clone();
        let keep: link::Keep = Box::new(move |credentials| kept.renewed(credentials));
        let parts = Parts {
            clock: Arc::clone(&clock),
            state: state.clone(),
            identity,
            firewall: Box::new(Memory::default()),
            pbx_kind: "asterisk",
            hostname: "pbx-1".into(),
            names: watch::Sender::new(BTreeSet::new()),
            closely: watch::Sender::new(false),
        };
        let engine = Engine::start(parts).await.unwrap();
        let about = engine.about();
        tokio::spawn(async move { link::run(&way, credentials, keep, about, link_events, clock).await });
        let (stop, stopped) = oneshot::channel();
        let inputs = Inputs { pbx: from_pbx, link: from_link, answers };
        let done = tokio::spawn(engine.run(inputs, async move { drop(stopped.await) }));
        Self { state: state.clone(), pbx, stop, done }
    }

    /// Five wrong passwords.
    async fn attack(&self, source: &str) {
        for number in 0..5 {
            let event = SecurityEvent {
                at: SystemClock.now(),
                kind: SecurityEventKind::ChallengeResponseFailed,
                account: "1007".into(),
                session: number.to_string(),
                remote: source.parse::<IpAddr>().unwrap(),
                transport: "TCP".into(),
                service: "PJSIP".into(),
                challenge: None,
            };
            self.pbx.send(PbxEvent::Security(event, Instant::now())).await.unwrap();
        }
    }

    async fn stop(self) -> StateDir {
        self.stop.send(()).unwrap();
        self.done.await.unwrap();
        self.state
    }
}

fn policy(revision: i64, allowed: &[&str]) -> FromServer {
    let entry = |net: &&str| AllowedEntry { target: AllowedTarget::Net(net.parse().unwrap()), expires_at: None };
    FromServer::Policy(PolicySnapshot {
        revision,
        allowed: allowed.iter().map(entry).collect(),
        ..PolicySnapshot::default()
    })
}

fn bans(seq: i64, bans: &[BanEntry]) -> FromServer {
    FromServer::BanSnapshot(snapshot_parts(seq, bans).remove(0))
}

fn entry(net: &str) -> BanEntry {
    BanEntry { net: net.parse().unwrap(), expires_at: None }
}

async fn enrolled(server: &Server) -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("state")).unwrap();
    let (identity, credentials) = enrol::enrol(&server.token(), None, "pbx-1").await.unwrap();
    state.enrolled(&identity, &credentials).unwrap();
    (folder, state)
}

/// The next report with a detection; what it bans.
async fn detected(stream: &mut Stream) -> (policy::ids::BatchId, BanEntry) {
    loop {
        if let FromAgent::Report(batch) = stream.next().await
            && let Some(ReportEvent::Detected(ban)) = batch.events.first()
        {
            return (batch.id, BanEntry { net: ban.net, expires_at: Some(ban.expires_at) });
        }
    }
}

async fn applied(stream: &mut Stream) -> proto::convert::BansApplied {
    loop {
        if let FromAgent::BansApplied(applied) = stream.next().await {
            return applied;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_trusts_only_the_ca_of_the_token() {
    let (server, other) = (Server::start().await, Server::start().await);
    let refused = enrol::enrol(&other.token(), Some(&server.address()), "pbx-1").await.err().unwrap();
    assert!(format!("{refused:#}").contains("UnknownIssuer"), "{refused:#}");
    let (identity, credentials) = enrol::enrol(&server.token(), None, "pbx-1").await.unwrap();
    assert_eq!((identity.pbx_name.as_str(), identity.server), ("hq", server.address()));
    assert!(credentials.key_pem.contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line() {
    let mut server = Server::start().await;
    let (_folder, state) = enrolled(&server).await;
    let agent = Agent::start(&state).await;

    // Hello, policy, bans.
    let mut stream = server.stream().await;
    assert_eq!((stream.hello.policy, stream.hello.bans), (None, None));
    stream.send(policy(3, &["203.0.113.99/32"])).await;
    let FromAgent::PolicyApplied(enforced) = stream.next().await else { panic!("no answer to the policy") };
    assert_eq!(enforced.revision, 3);
    stream.send(bans(10, &[entry("198.51.100.0/24")])).await;
    assert_eq!(
        (applied(&mut stream).await.seq, stream.last_digest()),
        (10, BanDigest::of(&[entry("198.51.100.0/24")]))
    );

    // A gap asks for a snapshot once, whatever comes meanwhile.
    let delta = |from_seq| {
        let changes = vec![BanChange::Remove("198.51.100.0/24".parse().unwrap())];
        FromServer::BanDelta(BanDelta { from_seq, to_seq: from_seq, digest: BanDigest::default(), changes })
    };
    stream.send(delta(12)).await;
    assert!(applied(&mut stream).await.resync);
    stream.send(delta(13)).await;
    stream.send(bans(13, &[])).await;
    let after = applied(&mut stream).await;
    assert_eq!((after.seq, after.resync), (13, false));

    // An attack is reported at once; nobody bans the allowed.
    agent.attack("203.0.113.99").await;
    agent.attack("203.0.113.10").await;
    let (batch, ban) = detected(&mut stream).await;
    assert_eq!(ban.net.to_string(), "203.0.113.10/32");

    // The server goes away before it acknowledges; another attack meanwhile; the agent is restarted.
    drop(stream);
    server.refuse(true);
    agent.attack("203.0.113.11").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let agent = Agent::start(&agent.stop().await).await;

    // Both bans are reported, the first under its old batch.
    server.refuse(false);
    let mut stream = server.stream().await;
    assert_eq!((stream.hello.policy.unwrap().0, stream.hello.bans.unwrap().0), (3, 13));
    let (first, second) = (detected(&mut stream).await, detected(&mut stream).await);
    assert_eq!(first, (batch, ban));
    assert_eq!(second.1.net.to_string(), "203.0.113.11/32");

    // Taken over by the server.
    stream.send(FromServer::ReportAck(ReportAck { batch_id: first.0, ban_seq: 14 })).await;
    stream.send(FromServer::ReportAck(ReportAck { batch_id: second.0, ban_seq: 15 })).await;
    let both = [first.1, second.1];
    let taken =
        BanDelta { from_seq: 14, to_seq: 15, digest: BanDigest::of(&both), changes: both.map(BanChange::Add).to_vec() };
    stream.send(FromServer::BanDelta(taken)).await;
    assert_eq!(applied(&mut stream).await.seq, 15);
    let state = agent.stop().await;
    let waiting = std::fs::read_dir(state.file("spool")).unwrap().count();
    assert!(waiting <= 1, "{waiting} batches wait; only attempts of the last moments may");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
    let mut server = Server::start().await;
    server.certificates_last(Duration::from_mins(10));
    let (_folder, state) = enrolled(&server).await;
    let before = state.credentials().unwrap();
    server.certificates_last(Duration::from_hours(1_000));
    let agent = Agent::start(&state).await;
    let mut stream = server.stream().await;
    let first = stream.certificate.clone();
    let FromAgent::Renew(csr) = stream.next().await else { panic!("no request") };
    // One for another key is not taken.
    let other = enrol::enrol(&server.token(), None, "pbx-1").await.unwrap().1;
    stream.send(FromServer::Renewed(other.certificate_pem)).await;
    let mut stream = server.stream().await;
    assert_eq!(stream.certificate, first);
    let FromAgent::Renew(_) = stream.next().await else { panic!("no request") };
    stream.send(FromServer::Renewed(server.sign(&csr))).await;
    let stream = server.stream().await;
    assert_ne!(stream.certificate, first, "the new one is used");
    let state = agent.stop().await;
    let after = state.credentials().unwrap();
    assert_eq!(after.key_pem, before.key_pem);
    assert_ne!(after.certificate_pem, before.certificate_pem);
}

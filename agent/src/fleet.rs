//! Many agents in one process: real clients of the protocol over real TLS, with bans in memory and no firewall, to size an installation and
//! to measure one. Each does what an agent does on the wire: it says hello with what it holds, applies what it gets, reports, beats.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use policy::ids::{BanId, BatchId};
use policy::reports::{DetectedBan, ReportBatch, ReportEvent};
use policy::snapshot::PolicySnapshot;
use proto::convert::{BansApplied, FromAgent, FromServer, Hello, PolicyApplied};
use proto::pb;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::bans::{BanBook, Synced};
use crate::clock::{SharedClock, micros_since};
use crate::link::{self, About, LinkEvent, Outbound};
use crate::state::Credentials;
use crate::tls::Way;

/// So many agents come from one address, a few below what a server takes in handshakes at a time.
const AGENTS_A_SOURCE: usize = 4;

/// An agent of the fleet, as `ringfence fleet-seed` writes it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Member {
    /// The server's `host:port`.
    pub server: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Client certificate, PEM.
    pub certificate_pem: String,
    /// The server's CA, PEM.
    pub ca_pem: String,
}

/// What an agent of the fleet tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The server answered hello.
    Connected,
    /// The stream ended.
    Gone,
    /// It holds the policy of this revision and has said so.
    Policy(i64),
    /// It holds the set of bans with this number and has said so.
    Bans(i64),
    /// The server has stored so many events of it.
    Stored(usize),
}

/// Who tells what, and when.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Which agent, from 0.
    pub member: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub told: Told,
}

/// The running fleet; dropped, all of it is gone at once.
pub struct Fleet {
    members: Vec<mpsc::Sender<usize>>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Reads the members of a fleet, one JSON object a line.
    pub fn read(text: &str) -> anyhow::Result<Vec<Member>> {
        text.lines()
            .enumerate()
            .map(|(at, line)| serde_json::from_str(line).with_context(|| format!("line {}", at + 1)))
            .collect()
    }

    /// Starts all agents, spread over `within`.
    pub fn start(
        members: Vec<Member>,
        within: Duration,
        events: &mpsc::UnboundedSender<Event>,
        clock: &SharedClock,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let attackers = Arc::new(AtomicU32::new(rand::random()));
        let count = u32::try_from(members.len().max(1)).unwrap_or(u32::MAX);
        let members = members
            .into_iter()
            .enumerate()
            .map(|(number, member)| {
                let (orders, ordered) = mpsc::channel(4);
                let agent = Simulated {
                    number,
                    events: events.clone(),
                    clock: Arc::clone(clock),
                    attackers: Arc::clone(&attackers),
                    book: BanBook::default(),
                    policy: None,
                    waiting: Vec::new(),
                    link: None,
                };
                let wait = within / count * u32::try_from(number).unwrap_or(u32::MAX);
                tasks.spawn(async move {
                    tokio::time::sleep(wait).await;
                    agent.run(member, ordered).await;
                });
                orders
            })
            .collect();
        Self { members, _tasks: tasks }
    }

    /// Lets one agent report so many bans in one batch, each of another address.
    pub async fn attack(&self, member: usize, bans: usize) {
        if let Some(orders) = self.members.get(member) {
            // It ends only with the fleet.
            let _ = orders.send(bans).await;
        }
    }
}

/// On this machine's loopback the agents of a fleet come from addresses of their own, as they do in the world: servers count
/// connections by source.
fn source_of(number: usize) -> Option<IpAddr> {
    let source = u32::try_from(number / AGENTS_A_SOURCE).ok()?;
    Some(IpAddr::V4((u32::from(Ipv4Addr::new(127, 1, 0, 1)) + source).into()))
}

struct Simulated {
    number: usize,
    events: mpsc::UnboundedSender<Event>,
    clock: SharedClock,
    /// Counts on through the addresses of a /8, for all of the fleet: no attacker is reported twice.
    attackers: Arc<AtomicU32>,
    book: BanBook,
    policy: Option<PolicySnapshot>,
    /// Batches that the server hasn't stored.
    waiting: Vec<ReportBatch>,
    link: Option<Outbound>,
}

impl Simulated {
    async fn run(mut self, member: Member, mut orders: mpsc::Receiver<usize>) {
        let Member { server, key_pem, certificate_pem, ca_pem } = member;
        let hello = watch::Sender::new(Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: format!("fleet-{}", self.number),
            pbx_kind: "simulated".to_owned(),
            pbx_version: String::new(),
            firewall: "memory".to_owned(),
            policy: None,
            bans: None,
            withheld: Vec::new(),
        });
        let heartbeat = watch::Sender::new(pb::Heartbeat::default());
        let about = About { hello: hello.subscribe(), heartbeat: heartbeat.subscribe() };
        let (link_events, mut from_link) = mpsc::channel(4);
        let clock = Arc::clone(&self.clock);
        let local = server.starts_with("localhost:") || server.starts_with("127.");
        let way = Way { server, from: source_of(self.number).filter(|_| local) };
        let credentials = Credentials { key_pem, certificate_pem, ca_pem };
        let link = async move {
            link::run(&way, credentials, Box::new(|_| Ok(())), about, link_events, clock).await;
        };
        let work = async move {
            loop {
                tokio::select! {
                    event = from_link.recv() => match event {
                        Some(event) => self.on_link(event, &hello),
                        None => return,
                    },
                    Some(bans) = orders.recv() => self.report(bans),
                }
            }
        };
        tokio::join!(link, work);
    }

    fn tell(&self, told: Told) {
        // Who has stopped listening measures nothing any more.
        let _ = self.events.send(Event { member: self.number, at: Instant::now(), told });
    }

    fn say(&self, message: &FromAgent) {
        if let Some(link) = &self.link {
            link.send(message);
        }
    }

    fn on_link(&mut self, event: LinkEvent, hello: &watch::Sender<Hello>) {
        match event {
            LinkEvent::Up(link, _) => {
                self.link = Some(link);
                self.tell(Told::Connected);
                self.waiting.iter().for_each(|batch| self.say(&FromAgent::Report(batch.clone())));
            }
            LinkEvent::Down(..) => {
                if self.link.take().is_some() {
                    self.tell(Told::Gone);
                }
            }
            LinkEvent::Message(message, received) => {
                self.on_message(message, received);
                hello.send_modify(|hello| {
                    hello.policy = self.policy.as_ref().map(|policy| (policy.revision, policy.digest()));
                    hello.bans = self.book.synced();
                });
            }
        }
    }

    fn on_message(&mut self, message: FromServer, received: Instant) {
        let synced = match message {
            FromServer::Welcome(_) | FromServer::Heartbeat(_) | FromServer::Renewed(_) => return,
            FromServer::Policy(policy) => {
                let (revision, digest) = (policy.revision, policy.digest());
                self.policy = Some(policy);
                self.say(&FromAgent::PolicyApplied(PolicyApplied {
                    revision,
                    digest,
                    took_us: micros_since(received),
                }));
                self.tell(Told::Policy(revision));
                return;
            }
            FromServer::ReportAck(ack) => {
                self.book.acked(&ack);
                self.book.settle();
                let stored =
                    self.waiting.extract_if(.., |batch| batch.id == ack.batch_id).map(|batch| batch.events.len());
                let stored = stored.sum();
                self.tell(Told::Stored(stored));
                return;
            }
            FromServer::BanSnapshot(part) => self.book.snapshot(part),
            FromServer::BanDelta(delta) => self.book.delta(&delta),
        };
        let resync = matches!(synced, Synced::Broken(_));
        if matches!(synced, Synced::Applied(_) | Synced::Broken(_))
            && let Some((seq, digest)) = self.book.synced()
        {
            self.say(&FromAgent::BansApplied(BansApplied { seq, digest, took_us: micros_since(received), resync }));
            self.tell(Told::Bans(seq));
        }
    }

    fn report(&mut self, bans: usize) {
        let at = self.clock.now();
        let events = (0..bans).map(|_| {
            let [_, rest @ ..] = self.attackers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let net = Ipv4Addr::new(11, rest[0], rest[1], rest[2]);
            ReportEvent::Detected(DetectedBan {
                id: BanId(Uuid::now_v7()),
                net: IpAddr::V4(net).into(),
                at,
                expires_at: (at + time::Duration::HOUR).replace_nanosecond(0).unwrap_or(at),
                reason: "5 wrong passwords for 1007".to_owned(),
                account: "1007".to_owned(),
                times_banned: 1,
                evidence: Vec::new(),
                took_us: 900,
            })
        });
        let batch = ReportBatch { id: BatchId(Uuid::now_v7()), events: events.collect() };
        self.say(&FromAgent::Report(batch.clone()));
        self.waiting.push(batch);
    }
}

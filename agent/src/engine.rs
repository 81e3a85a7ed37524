//! The heart of the agent: one task that owns the firewall, the bans and the detector, fed by the PBX, the server and DNS. What it decides
//! is in the kernel first, on disk next, on the wire last. It needs neither server nor PBX to go on enforcing.

mod attacks;
mod proof;
mod safety;
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use policy::bans::{BanChange, BanEntry};
use policy::detection::{DetectionRule, Detector};
use policy::metrics::{
    AGENT_ALLOWED, AGENT_BANS, AGENT_CLOCK, AGENT_DROPPED, AGENT_ENFORCED, AGENT_LINK_UP, AGENT_NAME_CHANGES,
    AGENT_PBX_UP, AGENT_PHONES, AGENT_POLICY_REVISION, AGENT_PROVEN_AT, AGENT_SPOOLED, AGENT_WITHHELD,
};
use policy::net;
use policy::ruleset::Coverage;
use policy::snapshot::PolicySnapshot;
use policy::{allowed_ips::AllowedTarget, reports::DetectedBan};
use proto::convert::Hello;
use proto::pb;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info, warn};

use crate::attempts::Attempts;
use crate::bans::BanBook;
use crate::clock::{ServerClock, SharedClock};
use crate::dns::Answers;
use crate::firewall::{Firewall, FirewallError};
use crate::link::{About, LinkEvent};
use crate::metrics::Metrics;
use crate::pbx::PbxEvent;
use crate::state::{Identity, Journal, Spool, StateDir};
use crate::status::{self, LastBan, Status};

use self::safety::{Refusals, Registered, Trial};
use self::server::Uplink;

/// Attempts are reported this often.
const ATTEMPTS_EVERY: u64 = 5;
/// The kernel is read back and compared this often, in seconds.
const PROOF_EVERY: u64 = 60;
/// Events of the PBX that are taken at once.
const EVENTS_AT_ONCE: usize = 64;

/// What feeds the engine.
pub struct Inputs {
    /// Security events.
    pub pbx: mpsc::Receiver<PbxEvent>,
    /// The server.
    pub link: mpsc::Receiver<LinkEvent>,
    /// Addresses of names.
    pub answers: watch::Receiver<Answers>,
}

/// What the engine is made of.
pub struct Parts {
    /// This machine's clock.
    pub clock: SharedClock,
    /// The state directory.
    pub state: StateDir,
    /// Who this agent is.
    pub identity: Identity,
    /// What enforces.
    pub firewall: Box<dyn Firewall>,
    /// `asterisk` or `simulated`.
    pub pbx_kind: &'static str,
    /// Host name of this machine.
    pub hostname: String,
    /// Names whose addresses are wanted.
    pub names: watch::Sender<BTreeSet<String>>,
    /// Whether the phones are to be counted more often than usual.
    pub closely: watch::Sender<bool>,
}

/// The agent at work.
pub struct Engine {
    clock: ServerClock,
    state: StateDir,
    identity: Identity,
    firewall: Box<dyn Firewall>,
    /// The kernel may lack something: it is loaded anew.
    dirty: bool,
    detector: Detector,
    book: BanBook,
    journal: Journal,
    spool: Spool,
    attempts: Attempts,
    /// Bans that are in no batch yet.
    unreported: Vec<DetectedBan>,
    policy: Option<PolicySnapshot>,
    answers: Answers,
    allowed: Vec<BanEntry>,
    coverage: Coverage,
    uplink: Uplink,
    pbx_kind: &'static str,
    pbx_version: String,
    pbx_down_because: String,
    registered: Registered,
    /// Changes in force that aren't confirmed yet.
    trial: Option<Trial>,
    refusals: Refusals,
    /// When all that is never to be blocked was last found in the kernel, and how many ranges that is.
    proven: Option<(OffsetDateTime, usize)>,
    /// What was told to be in our way and still is.
    drift: Option<Vec<String>>,
    closely: watch::Sender<bool>,
    last_ban: Option<LastBan>,
    hello: watch::Sender<Hello>,
    heartbeat: watch::Sender<pb::Heartbeat>,
    names: watch::Sender<BTreeSet<String>>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// Takes up what was left on disk and puts it into the kernel.
    ///
    /// # Errors
    /// The state can't be kept, or the firewall refuses: nothing could be enforced.
    pub async fn start(parts: Parts) -> anyhow::Result<Self> {
        let Parts { clock, state, identity, firewall, pbx_kind, hostname, names, closely } = parts;
        let (journal, records) = Journal::open(&state)?;
        let book = BanBook::replay(records);
        let spool = Spool::open(&state)?;
        let policy = state.policy();
        let answers: Answers = state.read_json("names.json").unwrap_or_default();
        let rule = policy.as_ref().map_or_else(DetectionRule::default, |policy| policy.detection);
        let mut detector = Detector::new(rule);
        book.repeaters().for_each(|(net, times, last)| detector.remember_ban(net, times, last));
        // What was detected but is in no batch any more is reported again; the server takes each ban once.
        let unreported = book
            .pending()
            .iter()
            .filter(|pending| pending.release_at.is_none() && pending.batch.is_none_or(|batch| !spool.holds(batch)))
            .map(|pending| pending.ban.clone())
            .collect();
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname,
            pbx_kind: pbx_kind.to_owned(),
            pbx_version: String::new(),
            firewall: firewall.name().to_owned(),
            policy: None,
            bans: None,
            withheld: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new(clock.now(), firewall.name() == "nftables"));
        let mut engine = Self {
            clock: ServerClock::new(clock),
            state,
            identity,
            firewall,
            dirty: true,
            detector,
            book,
            journal,
            spool,
            attempts: Attempts::default(),
            unreported,
            policy,
            answers,
            allowed: Vec::new(),
            coverage: Coverage::default(),
            uplink: Uplink::default(),
            pbx_kind,
            pbx_version: String::new(),
            pbx_down_because: "not yet connected".to_owned(),
            registered: None,
            trial: None,
            refusals: Refusals::default(),
            proven: None,
            drift: None,
            closely,
            last_ban: None,
            hello: watch::Sender::new(hello),
            heartbeat: watch::Sender::new(pb::Heartbeat::default()),
            names,
            metrics,
        };
        engine.take_up_safety();
        engine.set_allowed();
        engine.reload().await?;
        engine.prove().await;
        engine.publish();
        info!(
            firewall = engine.firewall.name(),
            policy.revision = engine.policy.as_ref().map_or(0, |policy| policy.revision),
            bans = engine.book.count(engine.clock.now()),
            "What is on disk is enforced"
        );
        Ok(engine)
    }

    /// What the link is to say about this agent.
    pub fn about(&self) -> About {
        About { hello: self.hello.subscribe(), heartbeat: self.heartbeat.subscribe() }
    }

    /// What this agent measures of itself.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Works until `stop`. The firewall stays as it is.
    pub async fn run(mut self, mut inputs: Inputs, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seconds = 0;
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            tokio::select! {
                () = &mut stop => break,
                count = inputs.pbx.recv_many(&mut events, EVENTS_AT_ONCE), if !inputs.pbx.is_closed() || !inputs.pbx.is_empty() => {
                    for event in events.drain(..count) {
                        self.on_pbx(event).await;
                    }
                }
                Some(event) = inputs.link.recv() => self.on_link(event).await,
                Ok(()) = inputs.answers.changed() => {
                    let answers = inputs.answers.borrow_and_update().clone();
                    self.on_answers(answers).await;
                }
                _ = second.tick() => {
                    seconds += 1;
                    self.on_second(seconds).await;
                }
            }
        }
        self.report_attempts();
        self.report_bans();
        self.write_status();
        info!("Stopping; the firewall goes on enforcing what it has");
    }

    async fn on_second(&mut self, seconds: u64) {
        let now = self.clock.now();
        if self.dirty {
            let _ = self.reload().await;
        }
        self.judge().await;
        self.state.catch_up();
        self.spool.catch_up();
        self.report_bans();
        if seconds.is_multiple_of(ATTEMPTS_EVERY) {
            self.report_attempts();
        }
        self.send_reports();
        if seconds.is_multiple_of(PROOF_EVERY) {
            self.prove().await;
        }
        let rule = self.policy.as_ref().map_or_else(DetectionRule::default, |policy| policy.detection);
        self.book.forget(now, now - time::Duration::seconds(i64::from(rule.max_ban_seconds) * 2));
        if self.journal.wants_rewriting() {
            self.journal.rewrite(self.book.records());
        }
        self.publish();
        if seconds.is_multiple_of(2) {
            self.write_status();
        }
    }

    /// Makes changes of bans; when the kernel doesn't take them, loads everything anew.
    async fn enforce(&mut self, changes: &[BanChange]) -> Result<(), FirewallError> {
        if changes.is_empty() {
            return Ok(());
        }
        let Err(refused) = self.firewall.apply(changes, self.clock.now()).await else { return Ok(()) };
        warn!(error = %refused, "The firewall did not take a change of bans; loading it anew");
        self.reload().await
    }

    /// Loads everything anew, in one transaction.
    async fn reload(&mut self) -> Result<(), FirewallError> {
        let loaded = self.firewall.load(&self.allowed, &self.book.entries(), self.clock.now()).await;
        self.dirty = loaded.is_err();
        self.metrics.say(&AGENT_ENFORCED, !self.dirty);
        if let Err(refused) = &loaded {
            error!(error = %refused, "The firewall could not be loaded; trying again every second");
        }
        loaded
    }

    /// What is never blocked: the allowed networks, the addresses of the allowed names and of the server.
    fn set_allowed(&mut self) {
        let (server, _) = self.identity.server.rsplit_once(':').unwrap_or((&self.identity.server, ""));
        let server = server.trim_matches(['[', ']']).to_owned();
        let mut names = BTreeSet::from([server.clone()]);
        let addresses = |name: &str| self.answers.get(name).cloned().unwrap_or_default();
        let mut allowed: Vec<BanEntry> =
            addresses(&server).into_iter().map(|addr| BanEntry { net: addr.into(), expires_at: None }).collect();
        for entry in self.policy.iter().flat_map(|policy| &policy.allowed) {
            let expires_at = entry.expires_at;
            match &entry.target {
                AllowedTarget::Net(net) => allowed.push(BanEntry { net: *net, expires_at }),
                AllowedTarget::Domain(name) => {
                    allowed.extend(addresses(name).into_iter().map(|addr| BanEntry { net: addr.into(), expires_at }));
                    names.insert(name.clone());
                }
            }
        }
        // A name may resolve to anything.
        allowed.retain(|entry| net::unusable(&entry.net).is_none());
        self.coverage = Coverage::of(&allowed);
        self.allowed = allowed;
        self.names.send_if_modified(|wanted| {
            let modified = *wanted != names;
            *wanted = names;
            modified
        });
    }

    async fn on_answers(&mut self, answers: Answers) {
        // Names that nobody has answered for since the start keep what they had.
        let wanted = self.names.borrow().clone();
        self.answers.extend(answers);
        self.answers.retain(|name, _| wanted.contains(name));
        let before = std::mem::take(&mut self.allowed);
        self.set_allowed();
        if before == self.allowed {
            return;
        }
        self.metrics.add(&AGENT_NAME_CHANGES, "", 1);
        info!("An allowed name has other addresses; the never-blocked set follows");
        if self.firewall.load_allowed(&self.allowed, self.clock.now()).await.is_err() {
            let _ = self.reload().await;
        }
        if let Err(error) = self.state.write_json("names.json", &self.answers) {
            error!(%error, "The addresses of allowed names could not be kept on disk");
        }
    }

    /// Tells the link how things stand.
    fn publish(&mut self) {
        self.publish_hello();
        let beat = pb::Heartbeat {
            sent_at_ms: 0,
            bans: self.book.count(self.clock.now()) as u64,
            registered: self.phones(),
            spooled: self.spool.len() as u64,
            dropped: self.spool.dropped(),
            proven_at_ms: self.proven.map_or(0, |(at, _)| crate::clock::unix_ms(at)),
            proven_ranges: self.proven.map_or(0, |(_, ranges)| u32::try_from(ranges).unwrap_or(u32::MAX)),
            clock_ahead_ms: self
                .clock
                .is_set()
                .then(|| i64::try_from(self.clock.ahead().whole_milliseconds()).unwrap_or(i64::MAX)),
        };
        self.measure(beat.bans);
        self.heartbeat.send_replace(beat);
    }

    fn measure(&self, bans: u64) {
        let metrics = &self.metrics;
        metrics.say(&AGENT_LINK_UP, self.uplink.is_up());
        metrics.say(&AGENT_ENFORCED, !self.dirty);
        metrics.say(&AGENT_PBX_UP, self.pbx_down_because.is_empty());
        metrics.set(&AGENT_BANS, bans);
        metrics.set(&AGENT_ALLOWED, self.coverage.spans().len() as u64);
        metrics.set(&AGENT_SPOOLED, self.spool.len() as u64);
        metrics.set(&AGENT_DROPPED, self.spool.dropped());
        metrics.set(&AGENT_PHONES, u64::from(self.phones()));
        metrics.set(&AGENT_WITHHELD, self.refusals.told().len() as u64);
        metrics.set_signed(&AGENT_POLICY_REVISION, self.policy.as_ref().map_or(0, |policy| policy.revision));
        metrics.set_signed(&AGENT_CLOCK, self.clock.ahead().whole_seconds());
        metrics.set_time(&AGENT_PROVEN_AT, self.proven.map(|(at, _)| at));
    }

    fn publish_hello(&self) {
        self.hello.send_modify(|hello| {
            hello.pbx_version.clone_from(&self.pbx_version);
            hello.policy = self.policy.as_ref().map(|policy| (policy.revision, policy.digest()));
            hello.bans = self.book.synced();
            hello.withheld = self.refusals.told();
        });
    }

    /// How many phones are registered.
    fn phones(&self) -> u32 {
        self.registered.as_ref().map_or(0, |(count, _)| u32::try_from(*count).unwrap_or(u32::MAX))
    }

    fn write_status(&self) {
        let now = self.clock.now();
        let status = Status {
            at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pbx_name: self.identity.pbx_name.clone(),
            server: self.identity.server.clone(),
            online: self.uplink.is_up(),
            offline_because: self.uplink.down_because().to_owned(),
            firewall: self.firewall.name().to_owned(),
            enforced: !self.dirty,
            pbx_kind: self.pbx_kind.to_owned(),
            pbx_version: self.pbx_version.clone(),
            pbx_down_because: self.pbx_down_because.clone(),
            registered: self.phones(),
            policy_revision: self.policy.as_ref().map_or(0, |policy| policy.revision),
            allowed: self.coverage.spans().len(),
            ban_seq: self.book.synced().map(|(seq, _)| seq),
            bans: self.book.count(now),
            bans_unreported: self.book.pending().len(),
            spooled: self.spool.len(),
            dropped: self.spool.dropped(),
            clock_apart_seconds: self.clock.ahead().whole_seconds(),
            last_ban: self.last_ban.clone(),
            proven_at: self.proven.map(|(at, _)| at),
        };
        let written = serde_json::to_vec_pretty(&status).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|text| self.state.write_unsynced(status::FILE, &text)) {
            error!(%error, "The status could not be written");
        }
    }
}

/// Microseconds since `start`.
fn took(start: Instant) -> u64 {
    crate::clock::micros_since(start)
}

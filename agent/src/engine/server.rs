//! What the server says, and how reports get to it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use policy::bans::BanDigest;
use policy::ids::BatchId;
use policy::metrics::{AGENT_LINK_BREAKS, AGENT_LINK_UP};
use policy::safety::{self, Change, TRIES};
use policy::snapshot::PolicySnapshot;
use proto::convert::{BansApplied, FromAgent, FromServer, Hello, PolicyApplied, PolicyRefused, ReportAck};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use tracing::{Instrument as _, error, info, warn};

use super::{Engine, took};
use crate::bans::Synced;
use crate::link::{LinkEvent, Outbound};
use crate::state::{POLICY_FILE, Record};
use crate::telemetry;

/// Batches that may be on their way at once.
const IN_FLIGHT: usize = 8;
/// A batch that isn't acknowledged by then is sent again.
const ACK_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);
/// A server whose clock differs by more than this is worth a warning.
const CLOCK_TOLERANCE: Duration = Duration::seconds(5);
/// More changes than this are loaded as a whole.
const CHANGES_MAX: usize = 5_000;

/// The way to the server, and what is on it.
#[derive(Default)]
pub(super) struct Uplink {
    link: Option<Outbound>,
    down_because: String,
    in_flight: BTreeSet<BatchId>,
    last_sent: Option<BatchId>,
    /// When the last batch was sent or acknowledged.
    moved: Option<Instant>,
    /// A snapshot was asked for.
    resyncing: bool,
}

impl Uplink {
    pub(super) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn down_because(&self) -> &str {
        &self.down_because
    }

    pub(super) fn send(&self, message: &FromAgent) -> bool {
        self.link.as_ref().is_some_and(|link| link.send(message))
    }

    pub(super) fn close(&self) {
        self.link.iter().for_each(Outbound::close);
    }
}

impl Engine {
    pub(super) async fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(link, said) => {
                self.uplink = Uplink { link: Some(link), ..Uplink::default() };
                self.metrics.say(&AGENT_LINK_UP, true);
                self.correct(&said);
                self.try_bans_again().await;
                self.report_bans();
                self.send_reports();
            }
            LinkEvent::Down(why, _worked_off) => {
                self.uplink = Uplink { down_because: why, ..Uplink::default() };
                self.metrics.add(&AGENT_LINK_BREAKS, "", 1);
                self.metrics.say(&AGENT_LINK_UP, false);
            }
            LinkEvent::Message(message, received) => {
                self.heard(received);
                self.on_message(message, received).await;
            }
        }
    }

    /// Says what was taken back between hello and its answer.
    fn correct(&self, said: &Hello) {
        let hello = self.hello.borrow();
        if hello.policy != said.policy {
            self.say_policy_in_force();
        }
        if hello.withheld != said.withheld {
            self.uplink.send(&FromAgent::Withheld(hello.withheld.clone()));
        }
    }

    async fn on_message(&mut self, message: FromServer, received: Instant) {
        match message {
            FromServer::Welcome(welcome) => {
                self.set_clock(welcome.server_time, received).await;
                if welcome.pbx_name != self.identity.pbx_name {
                    self.identity.pbx_name = welcome.pbx_name;
                    if let Err(error) = self.state.write_json("identity.json", &self.identity) {
                        error!(%error, "The new name of the PBX could not be kept on disk");
                    }
                }
            }
            FromServer::Heartbeat(beat) => {
                // Servers of the first version don't say when. Small differences are the network's.
                let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(beat.sent_at_ms) * 1_000_000);
                if let Ok(time) = time
                    && beat.sent_at_ms != 0
                    && (time - self.clock.at(received)).abs() > CLOCK_TOLERANCE
                {
                    self.set_clock(time, received).await;
                }
            }
            // The link itself answers to it.
            FromServer::Renewed(_) => {}
            FromServer::Policy(policy) => {
                let span = telemetry::applying(&policy);
                self.on_policy(policy, received).instrument(span).await;
            }
            FromServer::BanSnapshot(part) => {
                let synced = self.book.snapshot(part);
                if matches!(synced, Synced::Broken(_)) {
                    error!("A snapshot of the bans doesn't fit its digest or has a gap; asking for it on a new stream");
                    if let Some(link) = &self.uplink.link {
                        link.close();
                    }
                    return;
                }
                let records = matches!(synced, Synced::Applied(_)).then(|| self.book.records());
                self.on_synced(synced, received).await;
                if let Some(records) = records {
                    self.journal.rewrite(records);
                }
            }
            FromServer::BanDelta(delta) => {
                let synced = self.book.delta(&delta);
                let applied = matches!(synced, Synced::Applied(_));
                self.on_synced(synced, received).await;
                if applied {
                    self.journal.append(vec![Record::Changes { seq: delta.to_seq, changes: delta.changes }]);
                }
            }
            FromServer::ReportAck(ack) => self.on_ack(&ack).await,
        }
    }

    /// The server has said what time it was when its message arrived.
    async fn set_clock(&mut self, time: OffsetDateTime, received: Instant) {
        let behind = self.clock.hear(time, received);
        let ahead = self.clock.ahead();
        if ahead.abs() > CLOCK_TOLERANCE {
            warn!(
                seconds = ahead.whole_seconds(),
                "The clocks of this machine and of the server differ; bans end by the server's"
            );
        }
        if behind.abs() > CLOCK_TOLERANCE {
            // What seemed to be over may not be, and the other way round.
            let _ = self.reload().await;
        }
    }

    /// Applies the whole policy, or stays on the one before and says why.
    async fn on_policy(&mut self, policy: PolicySnapshot, received: Instant) {
        let revision = policy.revision;
        if self.refuses_still(&policy) {
            self.say_policy_in_force();
            self.tell_withheld();
            return;
        }
        let (allowed, coverage) = (self.allowed.clone(), self.coverage.clone());
        let before = self.policy.replace(policy);
        self.set_allowed();
        // What only lets more in can't cut anybody off.
        let kept: BTreeSet<IpNet> = self.allowed.iter().map(|entry| entry.net).collect();
        let takes_away = allowed.iter().any(|entry| !kept.contains(&entry.net));
        if let Some(policy) = &self.policy
            && let Some(why) = self.phones_against(&coverage, policy)
        {
            let lines = safety::differences(before.as_ref(), policy);
            self.policy = before;
            self.set_allowed();
            self.withhold(Change::Policy(revision), false, why, lines, TRIES);
            self.say_policy_in_force();
            self.tell_withheld();
            return;
        }
        let mut loaded = self.firewall.load_allowed(&self.allowed, self.clock.now()).await;
        if loaded.is_err() {
            loaded = self.firewall.load(&self.allowed, &self.book.entries(), self.clock.now()).await;
        }
        if let Err(refused) = loaded {
            warn!(error = %refused, revision, "The firewall refused a policy; the one before stays");
            self.policy = before;
            self.set_allowed();
            self.uplink.send(&FromAgent::PolicyRefused(PolicyRefused { revision, reason: refused.to_string() }));
            return;
        }
        let took_us = took(received);
        if let Some(policy) = &self.policy {
            self.detector.set_rule(policy.detection);
        }
        if takes_away {
            self.try_policy(before);
        }
        self.keep_policy();
        self.forget_what_is_gone();
        self.publish_hello();
        info!(policy.revision = revision, took_us, "A policy is in force");
        self.say_policy(took_us);
        self.prove().await;
    }

    pub(super) fn keep_policy(&self) {
        let kept = self.policy.as_ref().map_or_else(
            || {
                self.state.remove(POLICY_FILE);
                Ok(())
            },
            |policy| self.state.keep_policy(policy),
        );
        if let Err(error) = kept {
            error!(%error, "The policy could not be kept on disk; after a restart the one before would hold");
        }
    }

    /// Tells which policy is in force, when it isn't the one that was sent.
    pub(super) fn say_policy_in_force(&self) {
        self.say_policy(0);
    }

    fn say_policy(&self, took_us: u64) {
        if let Some(policy) = &self.policy {
            let (revision, digest) = (policy.revision, policy.digest());
            self.uplink.send(&FromAgent::PolicyApplied(PolicyApplied { revision, digest, took_us }));
        }
    }

    async fn on_synced(&mut self, synced: Synced, received: Instant) {
        let (changes, broken) = match synced {
            Synced::Partial => return,
            Synced::Known => (vec![], false),
            Synced::Applied(changes) => (changes, false),
            Synced::Broken(changes) => (changes, true),
        };
        let changes = self.spare_phones(changes);
        let enforced = if changes.len() > CHANGES_MAX { self.reload().await } else { self.enforce(&changes).await };
        if let Err(refused) = enforced {
            // No answer: the server shows this PBX as behind, which it is. The next second tries again.
            error!(error = %refused, "Changes of bans are not in the kernel yet");
        }
        self.try_bans(&changes);
        self.publish_hello();
        if broken {
            if !std::mem::replace(&mut self.uplink.resyncing, true) {
                warn!("The bans differ from the server's; asking for all of them");
                self.say_applied(took(received), true);
            }
            return;
        }
        self.uplink.resyncing = false;
        if !self.dirty {
            self.say_applied(took(received), false);
        }
    }

    fn say_applied(&self, took_us: u64, resync: bool) {
        let (seq, digest) = self.book.synced().unwrap_or((0, BanDigest::default()));
        self.uplink.send(&FromAgent::BansApplied(BansApplied { seq, digest, took_us, resync }));
    }

    async fn on_ack(&mut self, ack: &ReportAck) {
        self.spool.stored(ack.batch_id);
        self.book.acked(ack);
        let changes = self.book.settle();
        if let Err(refused) = self.enforce(&changes).await {
            error!(error = %refused, "Changes of bans are not in the kernel yet");
        }
        self.journal.append(vec![Record::Acked { batch: ack.batch_id, seq: ack.ban_seq }]);
        self.uplink.in_flight.remove(&ack.batch_id);
        self.uplink.moved = Some(Instant::now());
        self.send_reports();
    }

    /// Sends what waits, oldest first, a few batches at a time.
    pub(super) fn send_reports(&mut self) {
        if !self.uplink.is_up() {
            return;
        }
        if !self.uplink.in_flight.is_empty() && self.uplink.moved.is_none_or(|moved| moved.elapsed() > ACK_WITHIN) {
            self.uplink.in_flight.clear();
            self.uplink.last_sent = None;
        }
        if self.uplink.in_flight.is_empty() {
            self.uplink.last_sent = None;
        }
        let room = IN_FLIGHT.saturating_sub(self.uplink.in_flight.len());
        for batch in self.spool.next(self.uplink.last_sent, room) {
            if !self.uplink.send(&FromAgent::Report(batch.clone())) {
                return;
            }
            self.uplink.in_flight.insert(batch.id);
            self.uplink.last_sent = Some(batch.id);
            self.uplink.moved = Some(Instant::now());
        }
    }
}

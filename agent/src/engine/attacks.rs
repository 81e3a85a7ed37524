//! From a security event to a ban in the kernel, and the reports about it.

use policy::detection::{BanDecision, SecurityEvent};
use policy::ids::{BanId, BatchId};
use policy::metrics::{AGENT_ATTEMPTS, AGENT_OWN_BANS, AGENT_REACTION};
use policy::reports::{DetectedBan, MAX_BATCH_EVENTS, ReportBatch, ReportEvent};
use time::Duration;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{Engine, took};
use crate::pbx::PbxEvent;
use crate::state::Record;
use crate::status::LastBan;

impl Engine {
    pub(super) async fn on_pbx(&mut self, event: PbxEvent) {
        match event {
            PbxEvent::Security(event, received) => self.on_security(event, received).await,
            PbxEvent::Registered(count, phones) => {
                self.registered = Some((count, phones));
                self.judge().await;
            }
            PbxEvent::Up(version) => {
                self.phones_unknown();
                self.pbx_version = version;
                self.pbx_down_because.clear();
                self.publish_hello();
            }
            PbxEvent::Down(why) => {
                self.pbx_down_because = why;
                self.phones_unknown();
            }
        }
    }

    async fn on_security(&mut self, mut event: SecurityEvent, received: Instant) {
        // When it came here, not what the PBX's clock showed, which may be moved in between.
        event.at = self.clock.at(received);
        let event = &event;
        let now = self.clock.now();
        // What was on its way when the ban came must not count towards the next one.
        let exempt = |addr| self.coverage.covers(addr, now) || self.book.holds(addr, now);
        let seen = self.detector.observe(event, exempt);
        if let Some(attempt) = &seen.attempt {
            self.attempts.add(attempt);
            self.metrics.add(&AGENT_ATTEMPTS, if attempt.proven { "yes" } else { "no" }, 1);
        }
        if let Some(decision) = seen.ban {
            self.ban(decision, event, received).await;
        }
    }

    async fn ban(&mut self, decision: BanDecision, event: &SecurityEvent, received: Instant) {
        // Kernel, wire and database agree on whole seconds.
        let expires_at = (event.at + Duration::seconds(decision.ban_seconds)).replace_nanosecond(0).unwrap_or(event.at);
        let mut ban = DetectedBan {
            id: BanId(Uuid::now_v7()),
            net: decision.net,
            at: event.at,
            expires_at,
            reason: decision.reason,
            account: decision.account,
            times_banned: decision.times_banned,
            evidence: decision.evidence,
            took_us: 0,
        };
        let change = self.book.own(ban.clone());
        let enforced = self.enforce(&[change]).await;
        ban.took_us = took(received);
        self.book.set_took(ban.id, ban.took_us);
        self.metrics.add(&AGENT_OWN_BANS, "", 1);
        self.metrics.observe(&AGENT_REACTION, std::time::Duration::from_micros(ban.took_us));
        self.journal.append(vec![Record::Own(ban.clone())]);
        if let Err(refused) = enforced {
            error!(error = %refused, "A ban is not in the kernel yet");
        }
        debug!(net = %ban.net, account = ban.account, "Banned");
        info!(took_us = ban.took_us, times = ban.times_banned, seconds = decision.ban_seconds, "Banned a source");
        self.last_ban = Some(LastBan { net: ban.net, at: ban.at, reason: ban.reason.clone(), took_us: ban.took_us });
        self.unreported.push(ban);
        // While the server is there it hears at once; while it isn't, bans of one second share a file.
        if self.uplink.is_up() {
            self.report_bans();
            self.send_reports();
        }
    }

    /// Puts bans that are in no batch into one.
    pub(super) fn report_bans(&mut self) {
        while !self.unreported.is_empty() {
            let bans: Vec<DetectedBan> = self.unreported.drain(..self.unreported.len().min(MAX_BATCH_EVENTS)).collect();
            let ids = bans.iter().map(|ban| ban.id).collect();
            let batch = ReportBatch {
                id: BatchId(Uuid::now_v7()),
                events: bans.iter().cloned().map(ReportEvent::Detected).collect(),
            };
            if let Err(error) = self.spool.keep(&batch) {
                error!(%error, "A report could not be kept; trying again");
                self.unreported.splice(..0, bans);
                return;
            }
            self.book.batched(batch.id, &ids);
            self.journal.append(vec![Record::Batched { batch: batch.id, bans: ids.into_iter().collect() }]);
        }
    }

    /// Puts the attempts since the last time into batches.
    pub(super) fn report_attempts(&mut self) {
        let (counts, lost) = self.attempts.take();
        self.spool.lost(lost);
        for counts in counts.chunks(MAX_BATCH_EVENTS) {
            let batch = ReportBatch {
                id: BatchId(Uuid::now_v7()),
                events: counts.iter().copied().map(ReportEvent::Attempts).collect(),
            };
            if let Err(error) = self.spool.keep(&batch) {
                warn!(%error, "Attempts could not be kept on disk");
                self.spool.lost(counts.len() as u64);
            }
        }
    }
}

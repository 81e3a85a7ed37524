//! `AgentLink`: the one long stream of an agent, and the task that serves it.

use std::pin::Pin;
use std::time::Duration;

use actions::agents::{self, Agent, AppliedBans, AppliedPolicy, Health, Told};
use actions::{ActError, Ctx, chain};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use policy::bans::BanDigest;
use policy::metrics::{POLICIES_REFUSED, REPORT_SECONDS, STREAMS_OPENED};
use policy::pbxes::HEARTBEAT_SECONDS;
use policy::reports::{ReportBatch, ReportEvent};
use policy::sync::credible;
use proto::LEAVING;
use proto::convert::{FromAgent, FromServer, Hello, ReportAck, Welcome};
use proto::pb;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;
use uuid::Uuid;

use super::arrivals::Arrivals;
use super::outbox::Outbox;
use super::paces::Paces;
use super::roll::{End, News, Place, Roll};
use super::status;
use crate::counted::{Counted, Held};
use crate::observe;

/// Messages that have left us and wait for the network.
const IN_FLIGHT: usize = 4;
/// With so many answers waiting no further message of the agent is read.
const WAITING: usize = 64;
/// With so many of its batches being stored no further message of the agent is read; it has no more under way.
const STORING: usize = 8;
/// How long an agent may take for its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence for three heartbeats ends the stream.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS as u64);
/// How long an agent is waited for when the portal stops.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Who was heard so lately is there, whatever comes in his place.
const LATELY: Duration = Duration::from_secs(HEARTBEAT_SECONDS as u64 + 1);
/// So many bans a second are taken from one PBX in the long run; a real attack brings far fewer, and what a stolen certificate may
/// write has an end. Who reports faster is read later.
const BANS_PER_SECOND: u32 = 50;
/// A PBX may have so many streams at a time with one certificate: its own, and those that haven't noticed yet that they are over.
const STREAMS: usize = 4;
/// A stream that begins sooner than this after the one before is read later.
const A_STREAM: Duration = Duration::from_secs(1);
/// What writes a row of the audit log whenever an agent says it counts like so many bans: a second of reading later.
const AUDITED: u32 = BANS_PER_SECOND;

/// The service.
pub(super) struct Links {
    ctx: Ctx,
    roll: Roll,
    streams: Counted<Vec<u8>>,
    paces: Paces,
    arrivals: Arrivals,
    stopping: CancellationToken,
}

impl Links {
    pub(super) fn new(ctx: Ctx, arrivals: Arrivals, stopping: CancellationToken) -> Self {
        let roll = Roll::new(ctx.clone(), stopping.clone());
        Self { roll, streams: Counted::new(STREAMS), paces: Paces::default(), arrivals, ctx, stopping }
    }
}

#[tonic::async_trait]
impl pb::agent_link_server::AgentLink for Links {
    type LinkStream = ReceiverStream<Result<pb::ServerMessage, Status>>;

    async fn link(&self, request: Request<Streaming<pb::AgentMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let certificates =
            request.peer_certs().ok_or_else(|| Status::unauthenticated("this call needs the certificate of a PBX"))?;
        let certificate =
            certificates.first().ok_or_else(|| Status::unauthenticated("this call needs the certificate of a PBX"))?;
        // By certificate, before it waits for anything: one that was revoked takes no place of the one in use.
        let held = self.streams.take(certificate.to_vec());
        let held = held.ok_or_else(|| Status::resource_exhausted("this PBX has too many streams"))?;
        let tenant = agents::tenant_of(certificate).map_err(status)?;
        let agent = {
            let _turn = self.arrivals.turn(tenant).await;
            agents::identify(&self.ctx, certificate).await.map_err(status)?
        };
        let (out, stream) = mpsc::channel(IN_FLIGHT);
        let agent_id = agent.pbx_id;
        let link = Link {
            ctx: self.ctx.clone(),
            roll: self.roll.clone(),
            agent,
            id: Uuid::new_v4(),
            out,
            storing: FuturesUnordered::new(),
            read_from: self.paces.take(agent_id).unwrap_or_else(Instant::now),
            paces: self.paces.clone(),
            arrivals: self.arrivals.clone(),
            _held: held,
            stopping: self.stopping.clone(),
        };
        tokio::spawn(link.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A batch that is being stored.
type Storing = Pin<Box<dyn Future<Output = Result<ReportAck, Status>> + Send + Sync>>;

/// One stream.
struct Link {
    ctx: Ctx,
    roll: Roll,
    agent: Agent,
    id: Uuid,
    out: mpsc::Sender<Result<pb::ServerMessage, Status>>,
    /// What the agent has reported and is being stored, beside everything else; each ends with its acknowledgement. What the stream
    /// doesn't live to see is stored all the same, and known when the agent sends it again.
    storing: FuturesUnordered<Storing>,
    /// From when on the next message of the agent is read.
    read_from: Instant,
    paces: Paces,
    arrivals: Arrivals,
    _held: Held<Vec<u8>>,
    stopping: CancellationToken,
}

impl Link {
    async fn run(mut self, mut incoming: Streaming<pb::AgentMessage>) {
        let begun = Instant::now();
        let end = match self.begin(&mut incoming).await {
            Ok((outbox, place)) => self.converse(&mut incoming, outbox, &place).await,
            Err(end) => Err(end),
        };
        self.paces.keep(self.agent.pbx_id, self.read_from.max(begun + A_STREAM));
        if let Err(error) = agents::disconnected(&self.ctx, &self.agent, self.id).await {
            tracing::warn!(pbx.id = %self.agent.pbx_id, error = chain(&error), "noting that an agent left");
        }
        observe::agents::stream_ended(&end);
        let reason = match &end {
            Ok(()) => "the agent closed it",
            Err(status) => status.message(),
        };
        tracing::info!(tenant.id = %self.agent.tenant_id, pbx.id = %self.agent.pbx_id, reason, "The stream of an agent ended");
        if let Err(status) = end {
            // Whoever does not read any more learns it from the end of the connection.
            let _ = timeout(Duration::from_secs(1), self.out.send(Err(status))).await;
        }
    }

    /// Hears `hello` and answers `welcome`.
    async fn begin(&mut self, incoming: &mut Streaming<pb::AgentMessage>) -> Result<(Outbox, Place), Status> {
        let first = timeout(HELLO_TIMEOUT, incoming.message());
        let first = self.stopping.run_until_cancelled(first).await.ok_or_else(|| Status::unavailable(LEAVING))?;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello"))??;
        let first = first.ok_or_else(|| Status::cancelled("the stream ended before hello"))?;
        let FromAgent::Hello(Hello {
            agent_version,
            hostname,
            pbx_kind,
            pbx_version,
            firewall,
            policy,
            bans,
            withheld,
        }) = first.try_into()?
        else {
            return Err(Status::failed_precondition("the first message must be hello"));
        };
        let hello = agents::Hello { agent_version, hostname, pbx_kind, pbx_version, firewall, withheld };
        let written = {
            let _turn = self.arrivals.turn(self.agent.tenant_id).await;
            agents::connected(&self.ctx, &self.agent, self.id, hello).await.map_err(status)?
        };
        tracing::info!(tenant.id = %self.agent.tenant_id, pbx.id = %self.agent.pbx_id, "An agent connected");
        metrics::counter!(STREAMS_OPENED.name).increment(1);
        // Not sooner: until then another stream was the PBX's.
        let place = self.roll.enter(&self.agent, self.id, written);
        // So that the portal does not show an agent as behind that has it all.
        if let Some((revision, digest)) = policy {
            self.policy_applied(&place, revision, digest, None).await?;
        }
        if let Some((seq, digest)) = bans {
            self.bans_applied(&place, seq, digest, None).await?;
        }
        let mut outbox = Outbox::new(policy, bans);
        outbox.push(FromServer::Welcome(Welcome {
            heartbeat_seconds: HEARTBEAT_SECONDS,
            server_time: self.ctx.now(),
            pbx_name: self.agent.pbx_name.clone(),
        }));
        Ok((outbox, place))
    }

    async fn converse(
        &mut self,
        incoming: &mut Streaming<pb::AgentMessage>,
        mut outbox: Outbox,
        place: &Place,
    ) -> Result<(), Status> {
        let (stopping, out) = (self.stopping.clone(), self.out.clone());
        let mut news = place.news();
        let mut known = News::default();
        let mut heartbeat = interval(Duration::from_secs(u64::from(HEARTBEAT_SECONDS)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = self.read_from.max(Instant::now()) + SILENCE;
        let mut heard = Instant::now();
        loop {
            let wants_to_send = outbox.wants_to_send();
            let full = self.storing.len() >= STORING;
            let read_from = self.read_from;
            tokio::select! {
                () = stopping.cancelled() => return self.leave(incoming, outbox, place).await,
                () = sleep_until(silent_until), if !full => return Err(Status::deadline_exceeded("the agent was silent for three heartbeats")),
                message = async { sleep_until(read_from).await; incoming.message().await }, if !full && outbox.waiting() < WAITING => {
                    let Some(message) = message? else { return Ok(()) };
                    heard = Instant::now();
                    let bans = self.hear(message.try_into()?, &mut outbox, place).await?;
                    self.read_from = Instant::now().max(read_from) + Duration::from_secs(1) * bans / BANS_PER_SECOND;
                    silent_until = self.read_from + SILENCE;
                }
                Some(stored) = self.storing.next() => {
                    acknowledge(stored?, &mut outbox);
                    silent_until = silent_until.max(Instant::now() + SILENCE);
                }
                told = news.changed() => {
                    told.map_err(|_| Status::unavailable(LEAVING))?;
                    let newest = news.borrow_and_update().clone();
                    if newest.end == Some(End::TakenOver) && heard.elapsed() < LATELY {
                        agents::taken_over(&self.ctx, &self.agent).await.map_err(status)?;
                    }
                    self.take(&newest, &known, &mut outbox)?;
                    known = newest;
                }
                _ = heartbeat.tick() => {
                    if self.ctx.now() >= self.agent.expires_at {
                        return Err(status(ActError::NotFound));
                    }
                    outbox.push(FromServer::Heartbeat(pb::Heartbeat { sent_at_ms: self.now_ms(), ..Default::default() }));
                    outbox.tick();
                }
                permit = out.reserve(), if wants_to_send => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(message) = outbox.next(&self.ctx, &self.agent, place).await.map_err(status)? {
                        permit.send(Ok((&message).into()));
                    }
                }
            }
        }
    }

    /// The portal stops: what the agent has sent, if it may at the moment, is stored and acknowledged. It goes on with another node, with what
    /// isn't.
    async fn leave(
        &mut self,
        incoming: &mut Streaming<pb::AgentMessage>,
        mut outbox: Outbox,
        place: &Place,
    ) -> Result<(), Status> {
        let last = async {
            let mut bans = if self.read_from > Instant::now() { BANS_PER_SECOND } else { 0 };
            while bans < BANS_PER_SECOND
                && let Some(Some(message)) = incoming.message().now_or_never().transpose()?
            {
                bans += self.hear(message.try_into()?, &mut outbox, place).await?.max(1);
            }
            while let Some(stored) = self.storing.next().await {
                acknowledge(stored?, &mut outbox);
            }
            while outbox.waiting() > 0 {
                if let Some(message) = outbox.next(&self.ctx, &self.agent, place).await.map_err(status)?
                    && self.out.send(Ok((&message).into())).await.is_err()
                {
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        timeout(LEAVE_WITHIN, last).await.unwrap_or(Ok(()))?;
        Err(Status::unavailable(LEAVING))
    }

    /// Answers what it cost, in bans.
    async fn hear(&mut self, message: FromAgent, outbox: &mut Outbox, place: &Place) -> Result<u32, Status> {
        match message {
            FromAgent::Hello(_) => return Err(Status::failed_precondition("hello comes once")),
            FromAgent::Heartbeat(beat) => place.tell(Told { health: Some(health(&beat)), ..Told::default() }),
            FromAgent::PolicyApplied(applied) => {
                let push = outbox.policy_applied(applied.revision, applied.digest);
                let noted = self.policy_applied(place, applied.revision, applied.digest, Some(applied.took_us));
                noted.instrument(push).await?;
            }
            FromAgent::PolicyRefused(refused) => {
                outbox.policy_refused(refused.revision);
                metrics::counter!(POLICIES_REFUSED.name).increment(1);
                // That something was applied takes the refusal before it away, not this one.
                place.settle(&self.ctx).await;
                agents::policy_refused(&self.ctx, &self.agent, refused.revision, &refused.reason)
                    .await
                    .map_err(status)?;
                return Ok(AUDITED);
            }
            FromAgent::BansApplied(applied) => {
                outbox.bans_applied(applied.seq, applied.digest, applied.resync);
                if !applied.resync {
                    self.bans_applied(place, applied.seq, applied.digest, Some(applied.took_us)).await?;
                }
            }
            FromAgent::Withheld(withheld) => {
                agents::withheld(&self.ctx, &self.agent, &withheld).await.map_err(status)?;
                return Ok(AUDITED);
            }
            FromAgent::Drift(drift) => {
                agents::drifted(&self.ctx, &self.agent, drift).await.map_err(status)?;
                return Ok(AUDITED);
            }
            FromAgent::Renew(csr_pem) => {
                match agents::renew(&self.ctx, &self.agent, &csr_pem).await {
                    Ok(certificate_pem) => outbox.push(FromServer::Renewed(certificate_pem)),
                    // Its certificate holds; it asks again.
                    Err(error) => {
                        tracing::warn!(pbx.id = %self.agent.pbx_id, error = chain(&error), "renewing a certificate");
                    }
                }
                return Ok(AUDITED);
            }
            FromAgent::Report(batch) => {
                let bans = batch.events.iter().filter(|event| matches!(event, ReportEvent::Detected(_))).count();
                self.store(batch, place);
                return Ok(u32::try_from(bans).unwrap_or(u32::MAX));
            }
        }
        Ok(0)
    }

    /// Begins to store a batch.
    fn store(&self, batch: ReportBatch, place: &Place) {
        let batch_id = batch.id;
        let begun = Instant::now();
        let stored = place.report(&self.ctx, &self.agent, batch);
        self.storing.push(Box::pin(async move {
            let ban_seq = stored.await.map_err(status)?;
            metrics::histogram!(REPORT_SECONDS.name).record(begun.elapsed());
            Ok(ReportAck { batch_id, ban_seq })
        }));
    }

    /// The agent has applied a policy. Noted only when its digest is the one of that revision: what is shown as enforced is.
    async fn policy_applied(
        &self,
        place: &Place,
        revision: i64,
        digest: [u8; 32],
        took_us: Option<u64>,
    ) -> Result<(), Status> {
        // A revision has one content. One that is newer than what is kept came from another node's reading, or is made up.
        let mut wanted = place.kept_policy(&self.ctx).await.map_err(status)?;
        if wanted.revision < revision {
            wanted = place.policy(&self.ctx, Instant::now()).await.map_err(status)?;
        }
        if credible((revision, digest), (wanted.revision, wanted.digest())) {
            let policy = AppliedPolicy { revision, digest, took_us: took_us.map(saturated) };
            place.tell(Told { policy: Some(policy), ..Told::default() });
        }
        Ok(())
    }

    /// The agent holds the set of bans as of a change. Noted only when its digest is the one of that number.
    async fn bans_applied(
        &self,
        place: &Place,
        seq: i64,
        digest: BanDigest,
        took_us: Option<u64>,
    ) -> Result<(), Status> {
        if place.bans_fit(&self.ctx, seq, digest).await.map_err(status)? {
            let bans = AppliedBans { seq, took_us: took_us.map(saturated) };
            place.tell(Told { bans: Some(bans), ..Told::default() });
        }
        Ok(())
    }

    /// Takes what the roll tells.
    fn take(&mut self, news: &News, known: &News, outbox: &mut Outbox) -> Result<(), Status> {
        match news.end {
            Some(End::Unknown) => return Err(status(ActError::NotFound)),
            Some(End::TakenOver) => return Err(Status::aborted("another stream of this PBX has taken over")),
            None => {}
        }
        if let Some(name) = &news.name {
            self.agent.pbx_name.clone_from(name);
        }
        if let Some(at) = news.policy.filter(|_| news.policy != known.policy) {
            outbox.policy_changed(at);
        }
        if let Some(at) = news.bans.filter(|_| news.bans != known.bans) {
            outbox.bans_changed(at);
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.ctx.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// A batch is stored: the agent is told, and gets what it has changed.
fn acknowledge(ack: ReportAck, outbox: &mut Outbox) {
    outbox.push(FromServer::ReportAck(ack));
    outbox.bans_changed(Instant::now());
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn health(beat: &pb::Heartbeat) -> Health {
    let proven_at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(beat.proven_at_ms) * 1_000_000).ok();
    Health {
        bans: saturated(beat.bans),
        registered: i32::try_from(beat.registered).unwrap_or(i32::MAX),
        dropped: saturated(beat.dropped),
        proven_at: proven_at.filter(|_| beat.proven_at_ms > 0),
        proven_ranges: i32::try_from(beat.proven_ranges).unwrap_or(i32::MAX),
        clock_ahead_ms: beat.clock_ahead_ms,
    }
}

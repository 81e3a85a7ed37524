//! `AgentLink`: the one long stream of an agent, and the task that serves it.

use std::time::Duration;

use actions::agents::{self, Agent, Health};
use actions::bus::{Change, Topic};
use actions::{ActError, Ctx, chain};
use policy::pbxes::HEARTBEAT_SECONDS;
use policy::reports::ReportEvent;
use proto::convert::{FromAgent, FromServer, Hello, ReportAck, Welcome};
use proto::pb;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::outbox::Outbox;
use super::status;

/// Messages that have left us and wait for the network.
const IN_FLIGHT: usize = 4;
/// With so many answers waiting no further message of the agent is read.
const WAITING: usize = 64;
/// How long an agent may take for its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence for three heartbeats ends the stream.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS as u64);
/// So many bans a second are taken from one PBX in the long run; a real attack brings far fewer, and what a stolen certificate may
/// write has an end. Who reports faster is read later.
const BANS_PER_SECOND: u32 = 50;
/// How often is looked for changes whose notification was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The service.
pub(super) struct Links {
    ctx: Ctx,
    stopping: CancellationToken,
}

impl Links {
    pub(super) fn new(ctx: Ctx, stopping: CancellationToken) -> Self {
        Self { ctx, stopping }
    }
}

#[tonic::async_trait]
impl pb::agent_link_server::AgentLink for Links {
    type LinkStream = ReceiverStream<Result<pb::ServerMessage, Status>>;

    async fn link(&self, request: Request<Streaming<pb::AgentMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let certificates =
            request.peer_certs().ok_or_else(|| Status::unauthenticated("this call needs the certificate of a PBX"))?;
        let certificate = certificates
            .first()
            .ok_or_else(|| Status::unauthenticated("this call needs the certificate of a PBX"))?
            .to_vec();
        let agent = agents::identify(&self.ctx, &certificate).await.map_err(status)?;
        let (out, stream) = mpsc::channel(IN_FLIGHT);
        let link = Link {
            ctx: self.ctx.clone(),
            certificate,
            agent,
            id: Uuid::new_v4(),
            out,
            stopping: self.stopping.clone(),
        };
        tokio::spawn(link.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// One stream.
struct Link {
    ctx: Ctx,
    certificate: Vec<u8>,
    agent: Agent,
    id: Uuid,
    out: mpsc::Sender<Result<pb::ServerMessage, Status>>,
    stopping: CancellationToken,
}

impl Link {
    async fn run(mut self, mut incoming: Streaming<pb::AgentMessage>) {
        let end = match self.begin(&mut incoming).await {
            Ok(outbox) => self.converse(&mut incoming, outbox).await,
            Err(end) => Err(end),
        };
        if let Err(error) = agents::disconnected(&self.ctx, &self.agent, self.id).await {
            tracing::warn!(pbx.id = %self.agent.pbx_id, error = chain(&error), "noting that an agent left");
        }
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
    async fn begin(&mut self, incoming: &mut Streaming<pb::AgentMessage>) -> Result<Outbox, Status> {
        let first =
            timeout(HELLO_TIMEOUT, incoming.message()).await.map_err(|_| Status::deadline_exceeded("no hello"))??;
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
        agents::connected(&self.ctx, &self.agent, self.id, hello).await.map_err(status)?;
        tracing::info!(tenant.id = %self.agent.tenant_id, pbx.id = %self.agent.pbx_id, "An agent connected");
        // So that the portal does not show an agent as behind that has it all.
        if let Some((revision, digest)) = policy {
            agents::policy_applied(&self.ctx, &self.agent, revision, &digest, None).await.map_err(status)?;
        }
        if let Some((seq, digest)) = bans {
            agents::bans_applied(&self.ctx, &self.agent, seq, digest, None).await.map_err(status)?;
        }
        let mut outbox = Outbox::new(policy, bans);
        outbox.push(FromServer::Welcome(Welcome {
            heartbeat_seconds: HEARTBEAT_SECONDS,
            server_time: self.ctx.now(),
            pbx_name: self.agent.pbx_name.clone(),
        }));
        Ok(outbox)
    }

    async fn converse(&mut self, incoming: &mut Streaming<pb::AgentMessage>, mut outbox: Outbox) -> Result<(), Status> {
        let (stopping, out) = (self.stopping.clone(), self.out.clone());
        let mut changes = self.ctx.bus().subscribe();
        let mut heartbeat = interval(Duration::from_secs(u64::from(HEARTBEAT_SECONDS)));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = Instant::now() + SILENCE;
        let mut read_from = Instant::now();
        loop {
            let wants_to_send = outbox.wants_to_send();
            tokio::select! {
                () = stopping.cancelled() => return Err(Status::unavailable("the portal stops")),
                () = sleep_until(silent_until) => return Err(Status::deadline_exceeded("the agent was silent for three heartbeats")),
                message = async { sleep_until(read_from).await; incoming.message().await }, if outbox.waiting() < WAITING => {
                    let Some(message) = message? else { return Ok(()) };
                    let bans = self.hear(message.try_into()?, &mut outbox).await?;
                    read_from = Instant::now().max(read_from) + Duration::from_secs(1) * bans / BANS_PER_SECOND;
                    silent_until = read_from + SILENCE;
                }
                change = changes.recv() => self.changed(change, &mut outbox).await?,
                _ = heartbeat.tick() => outbox.push(FromServer::Heartbeat(pb::Heartbeat { sent_at_ms: self.now_ms(), ..Default::default() })),
                _ = look.tick() => {
                    self.identify_again().await?;
                    match outbox.look(&self.ctx, &self.agent).await {
                        Err(ActError::Internal { source, error_id }) => {
                            tracing::warn!(error.id = %error_id, error = chain(&*source), "looking for changes");
                        }
                        looked => looked.map_err(status)?,
                    }
                }
                permit = out.reserve(), if wants_to_send => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(message) = outbox.next(&self.ctx, &self.agent).await.map_err(status)? {
                        permit.send(Ok((&message).into()));
                    }
                }
            }
        }
    }

    /// Answers how many bans it brought.
    async fn hear(&mut self, message: FromAgent, outbox: &mut Outbox) -> Result<u32, Status> {
        match message {
            FromAgent::Hello(_) => return Err(Status::failed_precondition("hello comes once")),
            FromAgent::Heartbeat(beat) => {
                let health = health(&beat);
                if !agents::heartbeat(&self.ctx, &self.agent, self.id, health).await.map_err(status)? {
                    self.identify_again().await?;
                    return Err(taken_over());
                }
            }
            FromAgent::PolicyApplied(applied) => {
                outbox.policy_applied(applied.revision, applied.digest);
                agents::policy_applied(
                    &self.ctx,
                    &self.agent,
                    applied.revision,
                    &applied.digest,
                    Some(applied.took_us),
                )
                .await
                .map_err(status)?;
            }
            FromAgent::PolicyRefused(refused) => {
                outbox.policy_refused(refused.revision);
                agents::policy_refused(&self.ctx, &self.agent, refused.revision, &refused.reason)
                    .await
                    .map_err(status)?;
            }
            FromAgent::BansApplied(applied) => {
                outbox.bans_applied(applied.seq, applied.digest, applied.resync);
                if !applied.resync {
                    agents::bans_applied(&self.ctx, &self.agent, applied.seq, applied.digest, Some(applied.took_us))
                        .await
                        .map_err(status)?;
                }
            }
            FromAgent::Withheld(withheld) => {
                agents::withheld(&self.ctx, &self.agent, &withheld).await.map_err(status)?;
            }
            FromAgent::Drift(drift) => agents::drifted(&self.ctx, &self.agent, drift).await.map_err(status)?,
            FromAgent::Renew(csr_pem) => match agents::renew(&self.ctx, &self.agent, &csr_pem).await {
                Ok(certificate_pem) => outbox.push(FromServer::Renewed(certificate_pem)),
                // Its certificate holds; it asks again.
                Err(error) => tracing::warn!(pbx.id = %self.agent.pbx_id, %error, "renewing a certificate"),
            },
            FromAgent::Report(batch) => {
                let batch_id = batch.id;
                let bans = batch.events.iter().filter(|event| matches!(event, ReportEvent::Detected(_))).count();
                let ban_seq = agents::report(&self.ctx, &self.agent, batch_id, batch.events).await.map_err(status)?;
                outbox.push(FromServer::ReportAck(ReportAck { batch_id, ban_seq }));
                outbox.bans_changed();
                return Ok(u32::try_from(bans).unwrap_or(u32::MAX));
            }
        }
        Ok(0)
    }

    async fn changed(
        &mut self,
        change: Result<Change, broadcast::error::RecvError>,
        outbox: &mut Outbox,
    ) -> Result<(), Status> {
        let topic = match change {
            Ok(change) if change.concerns(self.agent.tenant_id) => change.topic,
            Ok(_) => return Ok(()),
            Err(broadcast::error::RecvError::Lagged(_)) => Topic::Everything,
            Err(broadcast::error::RecvError::Closed) => return Err(Status::unavailable("the portal stops")),
        };
        match topic {
            Topic::Policy => outbox.policy_changed(),
            Topic::Bans => outbox.bans_changed(),
            Topic::Pbxes => self.identify_again().await?,
            Topic::Everything => {
                self.identify_again().await?;
                outbox.policy_changed();
                outbox.bans_changed();
            }
            Topic::AllowedIps | Topic::BlockedIps | Topic::Audit | Topic::Sessions => {}
        }
        Ok(())
    }

    /// Whether the certificate still holds and this still is the stream of its PBX; a revoked one is cut off at once, and so is all but
    /// the newest stream.
    async fn identify_again(&mut self) -> Result<(), Status> {
        match agents::identify(&self.ctx, &self.certificate).await {
            Ok(agent) if agent.link_id != Some(self.id) => Err(taken_over()),
            Ok(agent) => {
                self.agent = agent;
                Ok(())
            }
            // The database may be away for a moment; the next look asks again.
            Err(ActError::Internal { source, error_id }) => {
                tracing::warn!(error.id = %error_id, error = chain(&*source), "looking an agent up");
                Ok(())
            }
            Err(error) => Err(status(error)),
        }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.ctx.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }
}

fn taken_over() -> Status {
    Status::aborted("another stream of this PBX has taken over")
}

fn health(beat: &pb::Heartbeat) -> Health {
    let proven_at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(beat.proven_at_ms) * 1_000_000).ok();
    Health {
        bans: i64::try_from(beat.bans).unwrap_or(i64::MAX),
        registered: i32::try_from(beat.registered).unwrap_or(i32::MAX),
        dropped: i64::try_from(beat.dropped).unwrap_or(i64::MAX),
        proven_at: proven_at.filter(|_| beat.proven_at_ms > 0),
        proven_ranges: i32::try_from(beat.proven_ranges).unwrap_or(i32::MAX),
    }
}

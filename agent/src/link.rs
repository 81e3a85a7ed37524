//! The client side of the protocol: one stream to the server, made again whenever it breaks. Knows nothing of firewalls; a fleet
//! simulator uses it as well as the agent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use policy::pbxes::HEARTBEAT_SECONDS;
use proto::LEAVING;
use proto::convert::{FromAgent, FromServer, Hello, PolicyRefused, WireError};
use proto::pb;
use proto::pb::agent_link_client::AgentLinkClient;
use rand::RngExt as _;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tracing::{debug, error, info, warn};

use crate::clock::{SharedClock, unix_ms};
use crate::state::Credentials;
use crate::tls::{self, Way};

/// Messages to the server that may wait; a link that is slower than that is closed and made anew.
const OUTBOUND: usize = 1_024;
const RETRY_FROM: Duration = Duration::from_millis(200);
const RETRY_TO: Duration = Duration::from_secs(2);
/// After another agent with the same certificate has taken the stream over. Sooner, the two would take it from each other all the time.
const RETRY_TAKEN_OVER: Duration = Duration::from_mins(1);
/// A certificate that wasn't renewed is asked for again after this.
const RENEW_AGAIN: Duration = Duration::from_mins(10);
/// Largest message taken: a part of a snapshot has at most 5,000 bans.
const MESSAGE_MAX: usize = 4 << 20;

/// What the link tells.
#[derive(Debug)]
pub enum LinkEvent {
    /// The server answered hello, which may no longer be true: much can happen before a connection comes about.
    Up(Outbound, Box<Hello>),
    /// A checked message, and when it arrived.
    Message(FromServer, Instant),
    /// The stream has ended, and why. It is made anew once the sender is dropped, so that hello tells what all that came before has led
    /// to.
    Down(String, oneshot::Sender<()>),
}

/// The way to the server while the stream lasts.
#[derive(Debug, Clone)]
pub struct Outbound {
    messages: mpsc::Sender<pb::AgentMessage>,
    give_up: Arc<Notify>,
}

impl Outbound {
    /// Sends; never waits. When the server is too slow to take it, the stream is given up: after it comes a new one with a fresh hello.
    pub fn send(&self, message: &FromAgent) -> bool {
        let sent = self.messages.try_send(message.into()).is_ok();
        if !sent {
            self.give_up.notify_one();
        }
        sent
    }

    /// Ends the stream; a new one begins with a fresh hello.
    pub fn close(&self) {
        self.give_up.notify_one();
    }
}

/// What a link says about its agent, always as it is at the moment.
#[derive(Debug, Clone)]
pub struct About {
    /// Sent first on each stream.
    pub hello: watch::Receiver<Hello>,
    /// Sent with each heartbeat; the time is filled in.
    pub heartbeat: watch::Receiver<pb::Heartbeat>,
}

/// Keeps credentials with a new certificate.
pub type Keep = Box<dyn Fn(&Credentials) -> std::io::Result<()> + Send + Sync>;

/// Keeps a stream to the server until nobody listens. The certificate is renewed at two thirds of its life, and handed to `keep`.
pub async fn run(
    way: &Way,
    mut credentials: Credentials,
    keep: Keep,
    about: About,
    events: mpsc::Sender<LinkEvent>,
    clock: SharedClock,
) {
    let mut wait = RETRY_FROM;
    let mut said = String::new();
    while !events.is_closed() {
        let mut welcomed = false;
        let ended = stream(way, &mut credentials, &keep, &about, &events, &clock, &mut welcomed).await;
        let leaving = matches!(ended, Ok(End::ServerLeaves));
        let taken_over = matches!(ended, Ok(End::TakenOver));
        let why = match ended {
            Ok(End::Closed) => "the server closed the stream".to_owned(),
            Ok(End::ServerLeaves) => "the server stops; another one may take over".to_owned(),
            Ok(End::TakenOver) => "another stream of this PBX has taken over".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if taken_over {
            wait = RETRY_TAKEN_OVER;
            error!(
                "Another agent uses this one's certificate; this machine stays protected. Enrol each PBX by itself, or revoke the other"
            );
            said.clear();
        } else if welcomed {
            wait = RETRY_FROM;
            warn!(why, "The link to the server broke; this machine stays protected");
            said.clear();
        } else if said != why {
            warn!(why, "The server isn't reached; this machine stays protected, and goes on trying");
            said.clone_from(&why);
        }
        let (worked_off, dropped) = oneshot::channel();
        if events.send(LinkEvent::Down(why, worked_off)).await.is_err() {
            return;
        }
        let _ = dropped.await;
        // Up to half as long again, so that a thousand agents don't come at once; where another server is likely to be there, at
        // any moment from now on.
        let at_least = if leaving && welcomed { 0.0 } else { 1.0 };
        let pause = wait.mul_f64(at_least + rand::rng().random::<f64>() / 2.0);
        tokio::time::sleep(pause).await;
        wait = if taken_over { RETRY_FROM } else { (wait * 2).min(RETRY_TO) };
    }
}

/// How a stream ended that didn't break.
enum End {
    Closed,
    /// The server is shut down, and has said so.
    ServerLeaves,
    /// Another stream was opened with the same certificate.
    TakenOver,
}

async fn stream(
    way: &Way,
    credentials: &mut Credentials,
    keep: &Keep,
    about: &About,
    events: &mpsc::Sender<LinkEvent>,
    clock: &SharedClock,
    welcomed: &mut bool,
) -> anyhow::Result<End> {
    let channel = tls::connect(way, tls::mutual(credentials)?).await?;
    let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
    let (messages, outbound) = mpsc::channel(OUTBOUND);
    let link = Outbound { messages, give_up: Arc::new(Notify::new()) };
    let hello = about.hello.borrow().clone();
    link.send(&FromAgent::Hello(hello.clone()));
    let patience = Duration::from_secs(u64::from(HEARTBEAT_SECONDS) * 3);
    let mut inbound = tokio::time::timeout(patience, client.link(ReceiverStream::new(outbound)))
        .await
        .context("the server did not answer")?
        .map_err(refusal)?
        .into_inner();
    let mut beat_every = Duration::from_secs(u64::from(HEARTBEAT_SECONDS));
    let mut beat_at = Instant::now() + beat_every;
    let mut heard = Instant::now();
    let mut asked = None::<Instant>;
    loop {
        tokio::select! {
            message = inbound.message() => {
                heard = Instant::now();
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ok(End::Closed),
                    Err(status) if status.code() == Code::Unavailable && status.message() == LEAVING => {
                        return Ok(End::ServerLeaves);
                    }
                    Err(status) if status.code() == Code::Aborted => return Ok(End::TakenOver),
                    Err(status) => return Err(refusal(status)),
                };
                let Some(message) = check(message, &link)? else { continue };
                if let FromServer::Renewed(certificate_pem) = message {
                    renewed(credentials, certificate_pem, keep)?;
                    // The new one counts once a stream is opened with it.
                    return Ok(End::Closed);
                }
                if let FromServer::Welcome(welcome) = &message {
                    *welcomed = true;
                    beat_every = Duration::from_secs(u64::from(welcome.heartbeat_seconds));
                    beat_at = Instant::now();
                    info!(server = way.server, pbx.name = welcome.pbx_name, "Connected to the server");
                    if events.send(LinkEvent::Up(link.clone(), Box::new(hello.clone()))).await.is_err() {
                        return Ok(End::Closed);
                    }
                }
                if events.send(LinkEvent::Message(message, heard)).await.is_err() {
                    return Ok(End::Closed);
                }
            }
            () = tokio::time::sleep_until(beat_at) => {
                anyhow::ensure!(heard.elapsed() < beat_every * 3, "nothing was heard from the server for {} s", heard.elapsed().as_secs());
                let beat = pb::Heartbeat { sent_at_ms: unix_ms(clock.now()), ..*about.heartbeat.borrow() };
                link.send(&FromAgent::Heartbeat(beat));
                if asked.is_none_or(|asked| asked.elapsed() > RENEW_AGAIN) && clock.now() >= tls::renewal_due(credentials)? {
                    asked = Some(Instant::now());
                    link.send(&FromAgent::Renew(tls::request(&credentials.key_pem)?));
                }
                beat_at = Instant::now() + beat_every;
            }
            () = link.give_up.notified() => anyhow::bail!("given up by this side"),
        }
    }
}

/// Takes a new certificate for the key that there is, if it is one.
fn renewed(credentials: &mut Credentials, certificate_pem: String, keep: &Keep) -> anyhow::Result<()> {
    let new = Credentials { certificate_pem, ..credentials.clone() };
    // Building the configuration fails when key and certificate don't belong together.
    tls::mutual(&new).context("the server sent a certificate that doesn't fit")?;
    keep(&new).context("keeping the new certificate")?;
    info!(until = %tls::valid_until(&new)?, "This agent's certificate is renewed");
    *credentials = new;
    Ok(())
}

/// A checked message. A policy that breaks the rules is refused in words; what else breaks them ends the stream, but for kinds of
/// messages that only a later version knows, which are passed over.
fn check(message: pb::ServerMessage, link: &Outbound) -> Result<Option<FromServer>, WireError> {
    let Some(content) = &message.message else {
        debug!("A message of a kind that this version doesn't know");
        return Ok(None);
    };
    let revision = if let pb::server_message::Message::Policy(policy) = content { Some(policy.revision) } else { None };
    match (FromServer::try_from(message), revision) {
        (Ok(message), _) => Ok(Some(message)),
        (Err(error), Some(revision)) => {
            warn!(%error, revision, "The server sent a policy that breaks the rules; it is refused");
            link.send(&FromAgent::PolicyRefused(PolicyRefused {
                revision: revision.max(0),
                reason: error.to_string(),
            }));
            Ok(None)
        }
        (Err(error), None) => Err(error),
    }
}

fn refusal(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn no_new_stream_before_the_old_one_is_worked_off() {
        // Without credentials every stream ends at once.
        let credentials = Credentials { key_pem: String::new(), certificate_pem: String::new(), ca_pem: String::new() };
        let way = Way::to("localhost:1");
        let hello = Hello {
            agent_version: String::new(),
            hostname: String::new(),
            pbx_kind: String::new(),
            pbx_version: String::new(),
            firewall: String::new(),
            policy: None,
            bans: None,
            withheld: Vec::new(),
        };
        let (hello, heartbeat) = (watch::Sender::new(hello), watch::Sender::default());
        let about = About { hello: hello.subscribe(), heartbeat: heartbeat.subscribe() };
        let (events, mut heard) = mpsc::channel(8);
        tokio::spawn(async move {
            run(&way, credentials, Box::new(|_| Ok(())), about, events, Arc::new(SystemClock)).await;
        });
        let first = heard.recv().await;
        let Some(LinkEvent::Down(_, worked_off)) = first else { panic!("{first:?}") };
        let second = tokio::time::timeout(Duration::from_hours(1), heard.recv()).await;
        assert!(second.is_err(), "{second:?}");
        drop(worked_off);
        assert!(matches!(heard.recv().await, Some(LinkEvent::Down(..))));
    }
}

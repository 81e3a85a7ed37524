//! Asterisk over its manager interface.

use std::time::Duration;

use asterisk_rs_ami::RawAmiMessage;
use async_trait::async_trait;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::ami::{AmiError, AmiSession, security_event};
use super::{Pbx, PbxEvent};
use crate::clock::SharedClock;
use crate::config::Config;

/// How often phones are counted; the answer also shows that the connection lives.
const POLL: Duration = Duration::from_secs(10);
/// Without a word for this long, the connection is given up.
const PATIENCE: Duration = Duration::from_secs(35);
const RETRY_FROM: Duration = Duration::from_millis(500);
const RETRY_TO: Duration = Duration::from_secs(10);
/// What Asterisk says when the AMI user's `write` lacks the class of an action.
const NO_PERMISSION: &str = "Permission denied";

/// An Asterisk on this machine.
pub struct Asterisk {
    config: Config,
    clock: SharedClock,
}

impl Asterisk {
    /// The Asterisk that the configuration names.
    pub fn new(config: Config, clock: SharedClock) -> Self {
        Self { config, clock }
    }

    /// One session, to its end.
    async fn session(&self, events: &mpsc::Sender<PbxEvent>) -> Result<(), Ended> {
        let Config { ami_host, ami_port, ami_user, ami_secret, .. } = &self.config;
        let mut session = AmiSession::login(ami_host, *ami_port, ami_user, ami_secret).await?;
        let version = match session.ask("CoreSettings", &[]).await {
            Ok(settings) => settings.get("AsteriskVersion").unwrap_or_default().to_owned(),
            Err(refused @ AmiError::Refused(..)) => {
                warn!(%refused, user = ami_user, "Phones can't be counted: give the user write=system in manager.conf");
                String::new()
            }
            Err(error) => return Err(error.into()),
        };
        info!(version, "Connected to Asterisk");
        events.send(PbxEvent::Up(version)).await?;
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut phones = Phones::default();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = session.next() => {
                    heard = Instant::now();
                    let message = message?;
                    if let Some(event) = security_event(&message, self.clock.now()) {
                        events.send(PbxEvent::Security(event, heard)).await?;
                    } else if let Some(count) = phones.count(&message) {
                        events.send(PbxEvent::Registered(count)).await?;
                    }
                }
                _ = poll.tick() => {
                    if heard.elapsed() > PATIENCE {
                        return Err(AmiError::Silent.into());
                    }
                    phones = Phones { asked: session.send("PJSIPShowRegistrationInboundContactStatuses", &[]).await?, found: 0 };
                }
            }
        }
    }
}

#[async_trait]
impl Pbx for Asterisk {
    fn kind(&self) -> &'static str {
        "asterisk"
    }

    async fn run(self: Box<Self>, events: mpsc::Sender<PbxEvent>) {
        let mut wait = RETRY_FROM;
        loop {
            let began = Instant::now();
            let Err(Ended::Error(error)) = self.session(&events).await else { return };
            if began.elapsed() > RETRY_TO {
                wait = RETRY_FROM;
            }
            let why = chain(&error);
            warn!(why, retry_in = ?wait, "Asterisk isn't reached; no attack is seen meanwhile");
            if events.send(PbxEvent::Down(why)).await.is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_TO);
        }
    }
}

/// Counts the phones in a list of events that answers one action.
#[derive(Default)]
struct Phones {
    asked: String,
    found: u32,
}

impl Phones {
    /// The number, when the list is complete.
    fn count(&mut self, message: &RawAmiMessage) -> Option<u32> {
        if message.get("ActionID") != Some(self.asked.as_str()) {
            return None;
        }
        match message.get("Event") {
            Some("ContactStatusDetail") => self.found = self.found.saturating_add(1),
            Some("ContactStatusDetailComplete") => return Some(self.found),
            // That there are none is an error to Asterisk; so is that one may not ask.
            None if message.get("Response") == Some("Error") => {
                return (message.get("Message") != Some(NO_PERMISSION)).then_some(0);
            }
            _ => {}
        }
        None
    }
}

enum Ended {
    Error(AmiError),
    NobodyListens,
}

impl From<AmiError> for Ended {
    fn from(error: AmiError) -> Self {
        Self::Error(error)
    }
}

impl From<SendError<PbxEvent>> for Ended {
    fn from(_: SendError<PbxEvent>) -> Self {
        Self::NobodyListens
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

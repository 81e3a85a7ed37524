//! Asterisk over its manager interface.

use std::net::IpAddr;
use std::time::Duration;

use asterisk_rs_ami::RawAmiMessage;
use async_trait::async_trait;
use policy::safety::Phones;
use tokio::sync::mpsc::{self, error::SendError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ami::{AmiError, AmiSession, security_event};
use super::{Pbx, PbxEvent};
use crate::clock::SharedClock;
use crate::config::Config;

/// How often phones are counted; the answer also shows that the connection lives.
const POLL: Duration = Duration::from_secs(10);
/// How often while a change is on trial.
const POLL_CLOSELY: Duration = Duration::from_secs(2);
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
    async fn session(&self, events: &mpsc::Sender<PbxEvent>, closely: &mut watch::Receiver<bool>) -> Result<(), Ended> {
        let Config { ami_host, ami_port, ami_user, ami_secret, .. } = &self.config;
        let mut session = AmiSession::login(ami_host, *ami_port, ami_user, ami_secret).await?;
        let asked = tokio::time::timeout(PATIENCE, session.ask("CoreSettings", &[])).await;
        let version = match asked.unwrap_or(Err(AmiError::Silent)) {
            Ok(settings) => settings.get("AsteriskVersion").unwrap_or_default().to_owned(),
            Err(refused @ AmiError::Refused(..)) => {
                warn!(%refused, user = ami_user, "Phones can't be counted: give the user write=system in manager.conf");
                String::new()
            }
            Err(error) => return Err(error.into()),
        };
        info!(version, "Connected to Asterisk");
        events.send(PbxEvent::Up(version)).await?;
        let mut poll_at = Instant::now();
        let mut phones = Counted::default();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = session.next() => {
                    heard = Instant::now();
                    let message = message?;
                    if let Some(event) = security_event(&message, self.clock.now()) {
                        events.send(PbxEvent::Security(event, heard)).await?;
                    } else if let Some((count, phones)) = phones.count(&message) {
                        events.send(PbxEvent::Registered(count, phones)).await?;
                    }
                }
                Ok(()) = closely.changed() => poll_at = Instant::now(),
                () = tokio::time::sleep_until(poll_at) => {
                    if heard.elapsed() > PATIENCE {
                        return Err(AmiError::Silent.into());
                    }
                    phones = Counted {
                        asked: session.send("PJSIPShowRegistrationInboundContactStatuses", &[]).await?,
                        ..Counted::default()
                    };
                    poll_at = Instant::now() + if *closely.borrow_and_update() { POLL_CLOSELY } else { POLL };
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

    async fn run(self: Box<Self>, events: mpsc::Sender<PbxEvent>, mut closely: watch::Receiver<bool>) {
        let mut wait = RETRY_FROM;
        loop {
            let began = Instant::now();
            let Err(Ended::Error(error)) = self.session(&events, &mut closely).await else { return };
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
struct Counted {
    asked: String,
    found: usize,
    phones: Phones,
}

impl Counted {
    /// All of them, when the list is complete. Those that Asterisk can't reach don't count.
    fn count(&mut self, message: &RawAmiMessage) -> Option<(usize, Phones)> {
        if message.get("ActionID") != Some(self.asked.as_str()) {
            return None;
        }
        match message.get("Event") {
            Some("ContactStatusDetail") if message.get("Status") != Some("Unreachable") => {
                self.found = self.found.saturating_add(1);
                if let Some(addr) = message.get("URI").and_then(address_of_contact) {
                    *self.phones.entry(addr).or_default() += 1;
                }
            }
            Some("ContactStatusDetailComplete") => return Some((self.found, std::mem::take(&mut self.phones))),
            // That there are none is an error to Asterisk; so is that one may not ask.
            None if message.get("Response") == Some("Error") => {
                return (message.get("Message") != Some(NO_PERMISSION)).then(|| (0, Phones::new()));
            }
            _ => {}
        }
        None
    }
}

/// The address in a contact such as `sip:1001@203.0.113.7:5060;transport=udp`; none where it is a name. With `rewrite_contact` it
/// is where the phone's packets come from.
fn address_of_contact(uri: &str) -> Option<IpAddr> {
    let (_, rest) = uri.split_once(':')?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => host.split([':', ';', '?', '>']).next()?,
    };
    host.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_have_an_address_or_a_name() {
        for (uri, address) in [
            ("sip:1001@203.0.113.7:5060;transport=udp", Some("203.0.113.7")),
            ("sip:1001@[2001:db8::7]:5060", Some("2001:db8::7")),
            ("sips:203.0.113.7;ob", Some("203.0.113.7")),
            ("sip:user@tricky@203.0.113.8", Some("203.0.113.8")),
            ("sip:1001@phone.example.com", None),
            ("sip:1001@[2001:db8::7", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(address_of_contact(uri), address.map(|text| text.parse().unwrap()), "{uri}");
        }
    }
}

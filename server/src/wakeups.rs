//! How hints travel between nodes: as notifications of the database, or over NATS where it is configured. Hints only: what somebody on the
//! NATS servers says makes nodes look at a bounded pace ([`pace`]), and what he keeps back is found by the next look.

mod pace;

use std::collections::HashSet;
use std::time::Duration;

use actions::bus::{self, Bus, Change, Outgoing, Topic};
use actions::{Ctx, chain};
use anyhow::Context as _;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber};
use futures::StreamExt as _;
use policy::ids::TenantId;
use policy::metrics::{HINTS, HINTS_LOST};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::Wakeups;
use pace::Pace;

/// Messages that wait to be read; what comes on top of them is lost.
const WAITING: usize = 4096;
/// Between two tries to reach a server.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A server that answers no ping twice is gone.
const PING_EVERY: Duration = Duration::from_secs(5);
/// What sending may take: NATS never holds this node up.
const PATIENCE: Duration = Duration::from_secs(1);
/// To look at everything is said no oftener than everybody looks by himself: a connection that comes and goes costs no more.
const EVERYTHING_EVERY: Duration = Duration::from_secs(5);
/// A tenant's id, a colon, a topic.
const LONGEST_MESSAGE: usize = 64;

/// What carries hints between nodes.
#[derive(Debug)]
pub enum Carrier {
    /// Notifications of the database.
    Database(Outgoing),
    /// NATS.
    Nats(Nats),
}

/// The bus of a node, and what carries its hints by the settings.
pub fn configured(wakeups: &Wakeups) -> anyhow::Result<(Bus, Carrier)> {
    let (bus, outgoing) = Bus::new();
    if wakeups.nats_url.is_empty() {
        return Ok((bus, Carrier::Database(outgoing)));
    }
    let mut login = None;
    let mut servers = Vec::new();
    for url in &wakeups.nats_url {
        let mut url: Url = url.expose().parse().context("wakeups.nats_url")?;
        login = login.or_else(|| Login::of(&url));
        let _ = (url.set_username(""), url.set_password(None));
        servers.push(ServerAddr::from_url(url).context("wakeups.nats_url")?);
    }
    Ok((bus, Carrier::Nats(Nats { servers, login, subject: wakeups.subject.clone(), outgoing })))
}

/// Carries hints to and from the node's bus until `ended`, and then what is left for the others.
pub async fn run(ctx: Ctx, carrier: Carrier, ended: CancellationToken) {
    match carrier {
        Carrier::Database(mut outgoing) => {
            ended.run_until_cancelled(bus::run(&ctx, &mut outgoing)).await;
            outgoing.close();
            bus::carry(&ctx, &mut outgoing).await;
        }
        Carrier::Nats(nats) => nats.run(&ctx, &ended).await,
    }
}

/// The NATS of the installation, and the hints that go there.
#[derive(Debug)]
pub struct Nats {
    servers: Vec<ServerAddr>,
    login: Option<Login>,
    subject: String,
    outgoing: Outgoing,
}

#[derive(Clone)]
enum Login {
    User(String, String),
    Token(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    fn of(url: &Url) -> Option<Self> {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        match (url.username(), url.password()) {
            ("", _) => None,
            (token, None) => Some(Self::Token(decode(token))),
            (user, Some(password)) => Some(Self::User(decode(user), decode(password))),
        }
    }
}

/// A connection.
struct Link {
    client: Client,
    hints: Subscriber,
    /// How often it was made so far.
    connected: watch::Receiver<u32>,
}

impl Nats {
    async fn run(mut self, ctx: &Ctx, ended: &CancellationToken) {
        let mut hearing = Hearing::new(ctx.clone());
        let mut said = String::new();
        loop {
            let connected = ended.run_until_cancelled(self.connect()).await;
            match connected {
                None => return,
                Some(Ok(link)) => {
                    said.clear();
                    self.converse(link, &mut hearing, ended).await;
                }
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    if said != error {
                        tracing::warn!(error, "NATS isn't reached; nodes find each other's changes by looking");
                        said = error;
                    }
                }
            }
            if ended.run_until_cancelled(sleep(TRY_AGAIN)).await.is_none() {
                return;
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Link> {
        let (telling, connected) = watch::channel(0);
        let options = ConnectOptions::new()
            .name("ringfence")
            // What this node has done itself it knows already.
            .no_echo()
            .subscription_capacity(WAITING)
            .ping_interval(PING_EVERY)
            .reconnect_delay_callback(|tries| if tries <= 1 { TRY_AGAIN / 10 } else { TRY_AGAIN })
            .event_callback(move |event| {
                match event {
                    Event::Connected => telling.send_modify(|times| *times += 1),
                    Event::Disconnected => {
                        tracing::warn!("The connection to NATS broke; nodes find each other's changes by looking");
                    }
                    event @ (Event::ServerError(_) | Event::ClientError(_) | Event::SlowConsumer(_)) => {
                        tracing::debug!(%event, "NATS");
                    }
                    Event::LameDuckMode | Event::Draining | Event::Closed => {}
                }
                std::future::ready(())
            });
        let options = match self.login.clone() {
            None => options,
            Some(Login::User(user, password)) => options.user_and_password(user, password),
            Some(Login::Token(token)) => options.token(token),
        };
        let client = options.connect(&self.servers).await.map_err(|error| anyhow::anyhow!(chain(&error)))?;
        let hints = client.subscribe(self.subject.clone()).await.context("subscribing")?;
        subscribed(&client).await;
        Ok(Link { client, hints, connected })
    }

    /// Sends and hears until the connection is given up; one that only breaks is made anew by the client.
    async fn converse(&mut self, link: Link, hearing: &mut Hearing, ended: &CancellationToken) {
        let Link { client, mut hints, mut connected } = link;
        // They are of before: this node has heard them, and the others have looked.
        while self.outgoing.try_recv().is_ok() {}
        tracing::info!(subject = self.subject, "NATS is reached");
        hearing.everything = true;
        let mut turns = interval(pace::TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                hint = hints.next() => match hint {
                    Some(hint) => hearing.heard(&hint.payload),
                    None => return,
                },
                _ = turns.tick(), if hearing.pace.is_busy() => hearing.turn(),
                () = sleep_until(hearing.everything_from), if hearing.everything => hearing.look_at_everything(),
                changed = connected.changed() => match changed {
                    Ok(()) => {
                        if *connected.borrow_and_update() > 1 {
                            subscribed(&client).await;
                            tracing::info!("NATS is reached again");
                            hearing.everything = true;
                        }
                    }
                    Err(_) => return,
                },
                count = self.outgoing.recv_many(&mut taken, WAITING) => {
                    if count == 0 {
                        return;
                    }
                    self.send(&client, taken.drain(..).collect()).await;
                }
                () = ended.cancelled() => {
                    self.outgoing.close();
                    let mut last = HashSet::new();
                    while let Some(change) = self.outgoing.recv().await {
                        last.insert(change);
                    }
                    self.send(&client, last).await;
                    let _ = timeout(PATIENCE, client.flush()).await;
                    return;
                }
            }
        }
    }

    async fn send(&self, client: &Client, changes: HashSet<Change>) {
        if client.connection_state() != State::Connected {
            return;
        }
        let sending = async {
            for change in changes {
                if let Some(tenant_id) = change.tenant_id {
                    let message = format!("{tenant_id}:{}", change.topic.as_str());
                    if client.publish(self.subject.clone(), message.into()).await.is_err() {
                        return;
                    }
                }
            }
        };
        let _ = timeout(PATIENCE, sending).await;
    }
}

/// Waits until the server has been told what is wanted of it: what is looked at before that may change unheard.
async fn subscribed(client: &Client) {
    let _ = timeout(PATIENCE, client.flush()).await;
}

/// What this node hears.
struct Hearing {
    ctx: Ctx,
    pace: Pace,
    /// Hints may have been lost, and from when on it may be said.
    everything: bool,
    everything_from: Instant,
}

impl Hearing {
    fn new(ctx: Ctx) -> Self {
        Self { ctx, pace: Pace::default(), everything: true, everything_from: Instant::now() }
    }

    fn heard(&mut self, message: &[u8]) {
        if let Some(change) = read(message)
            && self.pace.admit(change)
        {
            self.tell(change);
        }
    }

    fn turn(&mut self) {
        for change in self.pace.turn() {
            self.tell(change);
        }
    }

    fn tell(&self, change: Change) {
        metrics::counter!(HINTS.name).increment(1);
        self.ctx.bus().send(change);
    }

    fn look_at_everything(&mut self) {
        self.everything = false;
        self.everything_from = Instant::now() + EVERYTHING_EVERY;
        metrics::counter!(HINTS_LOST.name).increment(1);
        self.ctx.bus().send(Change::EVERYTHING);
    }
}

/// A hint of another node; nobody tells this one to look at everything of all tenants.
fn read(message: &[u8]) -> Option<Change> {
    if message.len() > LONGEST_MESSAGE {
        return None;
    }
    let (tenant, topic) = std::str::from_utf8(message).ok()?.split_once(':')?;
    let tenant_id: TenantId = tenant.parse().ok()?;
    let topic = Topic::from_name(topic).filter(|topic| *topic != Topic::Everything)?;
    Some(Change { tenant_id: Some(tenant_id), topic })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "018f2a1e-7c00-7000-8000-000000000001";

    #[test]
    fn only_hints_are_taken() {
        let change = read(format!("{TENANT}:bans").as_bytes()).unwrap();
        assert_eq!((change.tenant_id, change.topic), (TENANT.parse().ok(), Topic::Bans));
        for wrong in [
            "",
            ":",
            "bans",
            "*:bans",
            &format!("{TENANT}:"),
            &format!("{TENANT}:everything"),
            &format!("{TENANT}:bans "),
        ] {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(read(format!("{TENANT}:{}", "x".repeat(1 << 20)).as_bytes()), None);
        assert_eq!(read(&[0xff; 40]), None);
    }

    #[test]
    fn logins_come_from_the_first_address_that_has_one() {
        let login = |urls: &[&str]| {
            let nats_url = urls.iter().map(|url| (*url).to_owned().into()).collect();
            let (_, carrier) = configured(&Wakeups { nats_url, subject: "x".to_owned() }).unwrap();
            let Carrier::Nats(nats) = carrier else { panic!("{carrier:?}") };
            assert!(nats.servers.iter().all(|server| !server.has_user_pass()), "kept where it isn't logged");
            nats.login
        };
        assert!(login(&["nats://a"]).is_none());
        assert!(matches!(login(&["nats://a", "tls://t%40ken@b"]), Some(Login::Token(token)) if token == "t@ken"));
        let named = login(&["nats://me:s%2Fx@a", "nats://b"]);
        assert!(matches!(named, Some(Login::User(user, password)) if user == "me" && password == "s/x"));
    }
}

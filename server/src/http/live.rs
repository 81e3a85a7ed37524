//! `GET /live`: hints to the browser that something of its tenant changed. What changed it reads again through server
//! functions, so a hint holds no data.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use actions::bus::{Change, Topic};
use actions::standing::{self, Standing};
use actions::{ActError, Ctx, Visitor};
use app::context;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use policy::authz::Operation;
use policy::ids::TenantId;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tower_sessions::Session;
use tower_sessions::session::Id;

use super::api_errors::ApiFailure;
use crate::sessions::Sessions;

/// Hints that wait for a slow browser; when there are more it is cut off, reconnects and reads everything again.
const WAITING: usize = 64;
/// How often the session and the role are looked at, and whether something has changed whose hint was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A browser whose stream ended comes back after one to two of these: not all of a node's at once when it goes.
const COME_BACK: Duration = Duration::from_millis(500);

/// Who listens, and what ends it.
struct Listener {
    ctx: Ctx,
    visitor: Visitor,
    tenant_id: TenantId,
    session: Option<Id>,
    stopping: CancellationToken,
}

/// Ends all streams when the server stops: they would hold it up otherwise.
#[derive(Debug, Clone)]
pub struct Stopping(pub CancellationToken);

/// The stream.
pub async fn stream(State(ctx): State<Ctx>, request: Request) -> Result<Response, ApiFailure> {
    let extensions = request.extensions();
    let visitor = context::visitor_of(extensions).await?;
    let caller = actions::caller::caller(&ctx, &visitor).await?;
    if !Operation::WatchLive.allowed_for(caller.role) {
        return Err(ApiFailure(app::error::ApiError::Forbidden));
    }
    let session = extensions.get::<Session>().and_then(Session::id);
    let stopping = extensions.get().map_or_else(CancellationToken::new, |Stopping(token)| token.clone());
    let changes = ctx.bus().subscribe();
    let listener = Listener { ctx, visitor, tenant_id: caller.tenant_id, session, stopping };
    Ok(Sse::new(listener.start(changes)).keep_alive(KeepAlive::default()).into_response())
}

impl Listener {
    fn start(self, mut changes: broadcast::Receiver<Change>) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // Before the browser reads anything: what changes after this is told.
            let mut seen = self.standing().await;
            let come_back = COME_BACK.mul_f64(1.0 + rand::random::<f64>());
            // `try_send` fails when the browser is gone or far behind; either way this stream is over.
            if sender.try_send(Ok(Event::default().event("ready").retry(come_back).data("{}"))).is_err() {
                return;
            }
            let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
            loop {
                let topic = tokio::select! {
                    () = self.stopping.cancelled() => return,
                    () = sender.closed() => return,
                    _ = look.tick() => {
                        match self.right().await {
                            Right::Given => {}
                            Right::Gone => return farewell(&sender),
                            Right::Unknown => return,
                        }
                        let now = self.standing().await;
                        if !tell(&sender, &missed(seen.as_ref(), now.as_ref())) {
                            return;
                        }
                        seen = now;
                        continue;
                    }
                    change = changes.recv() => match change {
                        Ok(change) if change.concerns(self.tenant_id) => change.topic,
                        Ok(_) => continue,
                        Err(broadcast::error::RecvError::Lagged(_)) => Topic::Everything,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                };
                if matches!(topic, Topic::Sessions | Topic::Everything) {
                    match self.right().await {
                        Right::Given => {}
                        Right::Gone => return farewell(&sender),
                        Right::Unknown => return,
                    }
                }
                if !tell(&sender, &[topic]) {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Where the tenant stands; `None` when the database can't be asked.
    async fn standing(&self) -> Option<Standing> {
        standing::read(&self.ctx, self.tenant_id).await.ok()
    }

    /// Whether the session still is, and the person still may watch this tenant.
    async fn right(&self) -> Right {
        let Some(session) = self.session else { return Right::Gone };
        match Sessions::is_alive(&self.ctx, session).await {
            Ok(true) => {}
            Ok(false) => return Right::Gone,
            Err(_) => return Right::Unknown,
        }
        match actions::caller::caller(&self.ctx, &self.visitor).await {
            Ok(caller) if Operation::WatchLive.allowed_for(caller.role) => Right::Given,
            Ok(_) | Err(ActError::SignedOut | ActError::SecondFactorNeeded) => Right::Gone,
            Err(_) => Right::Unknown,
        }
    }
}

/// Whether somebody may go on watching.
enum Right {
    Given,
    Gone,
    /// The database can't be asked. That is no reason to let her go on, nor one to say that her session is over: she comes back.
    Unknown,
}

/// Tells a browser that its session is over, so that it doesn't go on showing what it may no longer see.
fn farewell(sender: &mpsc::Sender<Result<Event, Infallible>>) {
    let _ = sender.try_send(Ok(Event::default().event("ended").data("{}")));
}

/// What has changed since the last look, whether or not it was told. Who doesn't know looks at everything.
fn missed(seen: Option<&Standing>, now: Option<&Standing>) -> Vec<Topic> {
    match (seen, now) {
        (Some(seen), Some(now)) => standing::between(seen, now),
        _ => vec![Topic::Everything],
    }
}

/// Tells a browser; `false` when it is gone or far behind.
fn tell(sender: &mpsc::Sender<Result<Event, Infallible>>, topics: &[Topic]) -> bool {
    let lists: BTreeSet<&str> = topics.iter().flat_map(|topic| touched(*topic)).copied().collect();
    lists.into_iter().all(|list| {
        let hint = Event::default().event("change").data(format!(r#"{{"topic":"{list}"}}"#));
        sender.try_send(Ok(hint)).is_ok()
    })
}

/// What of a page shows something else after a change.
fn touched(topic: Topic) -> &'static [&'static str] {
    match topic {
        Topic::Policy => &["enforcement"],
        Topic::Bans => &["enforcement", "blocked_ips", "overview"],
        Topic::Pbxes => &["pbxes", "enforcement", "overview"],
        Topic::AllowedIps => &["allowed_ips", "overview"],
        Topic::BlockedIps => &["blocked_ips", "overview"],
        Topic::Audit => &["audit"],
        Topic::People => &["people"],
        Topic::Everything => {
            &["enforcement", "pbxes", "allowed_ips", "blocked_ips", "audit", "people", "sessions", "overview"]
        }
        Topic::Sessions => &["sessions"],
        Topic::Roster => &[],
    }
}

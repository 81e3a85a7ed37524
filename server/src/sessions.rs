//! Sessions of browsers in PostgreSQL: `tower-sessions` over `store::sessions`, which knows only the hash of a session's id.
//! A session ends half an hour after its last use, and twelve hours after the login whatever happens.

use actions::{Ctx, Login};
use app::context::{BEGAN, LOGIN};
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use tower_sessions::cookie::SameSite;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, Result};
use tower_sessions::{Expiry, SessionManagerLayer, SessionStore};

/// Ends so long after its last use.
pub const IDLE: Duration = Duration::minutes(30);
/// Ends so long after the login.
pub const ABSOLUTE: Duration = Duration::hours(12);
/// The last use is noted no oftener than this, so that not every request writes.
const NOTED_EVERY: Duration = Duration::minutes(1);

/// The layer that gives every request its session. The cookie itself lives as long as the browser; the database says when
/// the session ends.
pub fn layer(ctx: Ctx, secure: bool) -> SessionManagerLayer<Sessions> {
    SessionManagerLayer::new(Sessions::new(ctx))
        .with_name(if secure { "__Host-ringfence" } else { "ringfence" })
        .with_secure(secure)
        .with_http_only(true)
        // Lax, not Strict: who follows a link of a mail arrives signed in. Changes are guarded by their origin (http::csrf).
        .with_same_site(SameSite::Lax)
        .with_path("/")
        .with_expiry(Expiry::OnSessionEnd)
}

/// The sessions' store.
#[derive(Debug, Clone)]
pub struct Sessions(Ctx);

impl Sessions {
    /// The sessions of an installation.
    pub fn new(ctx: Ctx) -> Self {
        Self(ctx)
    }

    /// Whether a session still is, without counting as a use of it.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn is_alive(ctx: &Ctx, id: Id) -> std::result::Result<bool, store::StoreError> {
        Ok(store::sessions::load(ctx.store(), &hash(id), ctx.now()).await?.is_some())
    }
}

/// What the database keeps of a session's id; who reads it there cannot use it.
fn hash(id: Id) -> Vec<u8> {
    Sha256::digest(id.0.to_be_bytes()).to_vec()
}

fn began(record: &Record, now: OffsetDateTime) -> OffsetDateTime {
    record
        .data
        .get(BEGAN)
        .and_then(serde_json::Value::as_i64)
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .unwrap_or(now)
}

fn person(record: &Record) -> Option<policy::ids::UserId> {
    let login: Login = serde_json::from_value(record.data.get(LOGIN)?.clone()).ok()?;
    Some(login.user_id)
}

fn end(began: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    (now + IDLE).min(began + ABSOLUTE)
}

fn backend(error: impl std::error::Error + 'static) -> Error {
    Error::Backend(actions::chain(&error))
}

#[async_trait]
impl SessionStore for Sessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let data = serde_json::to_value(&record.data).map_err(|error| Error::Encode(error.to_string()))?;
        let now = self.0.now();
        let began = began(record, now);
        loop {
            let made = store::sessions::create(
                self.0.store(),
                &hash(record.id),
                person(record),
                &data,
                began,
                end(began, now),
                now,
            )
            .await;
            if made.map_err(backend)? {
                return Ok(());
            }
            record.id = Id::default();
        }
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let data = serde_json::to_value(&record.data).map_err(|error| Error::Encode(error.to_string()))?;
        let now = self.0.now();
        // A session that has ended meanwhile stays ended.
        store::sessions::update(
            self.0.store(),
            &hash(record.id),
            person(record),
            &data,
            end(began(record, now), now),
            now,
        )
        .await
        .map(drop)
        .map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let now = self.0.now();
        let Some(row) = store::sessions::load(self.0.store(), &hash(*id), now).await.map_err(backend)? else {
            return Ok(None);
        };
        let data = serde_json::from_value(row.data.clone()).map_err(|error| Error::Decode(error.to_string()))?;
        let mut record = Record { id: *id, data, expiry_date: row.expires_at };
        let wanted = end(row.created_at, now);
        // Towards the end of its twelve hours the end no longer moves; that it is used is noted all the same.
        if wanted - row.expires_at > NOTED_EVERY || now - row.last_seen_at > NOTED_EVERY {
            store::sessions::update(self.0.store(), &hash(*id), person(&record), &row.data, wanted, now)
                .await
                .map_err(backend)?;
            record.expiry_date = wanted;
        }
        Ok(Some(record))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        store::sessions::delete(self.0.store(), &hash(*id)).await.map_err(backend)
    }
}

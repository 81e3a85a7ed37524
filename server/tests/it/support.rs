//! A server with a database of its own, tenants, people at every stage of a login, and requests as a browser sends them.

use std::net::SocketAddr;
use std::sync::Arc;

use actions::bus::{self, Bus};
use actions::clock::{Clock as _, SystemClock, TestClock};
use actions::seal::MasterKey;
use actions::{Ctx, Login, Settings};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{Request, StatusCode, header};
use policy::account::Stage;
use policy::authz::{Operation, Role};
use policy::ids::{SessionId, TenantId, UserId};
use policy::sessions::{Factor, Origin};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use server::http::Portal;
use server::http::limits::{Limit, Limits};
use server::sessions::Sessions;
use store::testing::TestDb;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_sessions::SessionStore as _;
use tower_sessions::session::{Id, Record};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The password of everybody made by [`TestServer::person`].
pub const PASSWORD: &str = "correct horse battery staple";

/// The master key of every portal.
pub const MASTER_KEY: [u8; 32] = [7; 32];

/// A running portal.
pub struct TestServer {
    pub ctx: Ctx,
    pub clock: Arc<TestClock>,
    pub stopping: CancellationToken,
    pub router: Router,
    /// The address of the database's administrator.
    pub admin_url: String,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Somebody with a browser.
#[derive(Debug, Clone)]
pub struct Person {
    pub user_id: UserId,
    pub email: String,
    /// The cookie header; empty without a session.
    pub cookie: String,
    /// What pages call the session.
    pub session: SessionId,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with_limits(wide()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::on(&TestDb::new().await, limits).await
    }

    /// One more on a database.
    pub async fn on(db: &TestDb, limits: Limits) -> Self {
        let clock = Arc::new(TestClock::new(SystemClock.now()));
        let settings = Settings {
            public_url: "http://portal.test".to_owned(),
            agent_address: "localhost:1".to_owned(),
            development_mailbox: true,
        };
        let key = MasterKey::new(&Zeroizing::new(MASTER_KEY.to_vec())).unwrap();
        let (bus, mut outgoing) = Bus::new();
        let ctx = Ctx::start_on(bus, db.store.clone(), settings, key, clock.clone()).await.unwrap();
        let stopping = CancellationToken::new();
        let (node, stopped) = (ctx.clone(), stopping.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(bus::run(&node, &mut outgoing)).await });
        let portal = Portal {
            ctx: ctx.clone(),
            origin: "http://portal.test".to_owned(),
            secure_cookies: false,
            trusted_proxies: Vec::new(),
            site: "no-such-folder".into(),
            limits,
            stopping: stopping.clone(),
        };
        Self { router: server::http::router(portal), ctx, clock, stopping, admin_url: db.admin_url.clone() }
    }

    /// A new tenant without people.
    pub async fn tenant(&self, slug: &str) -> TenantId {
        let id = TenantId(Uuid::now_v7());
        let mut tx = self.ctx.store().tenant(id).await.unwrap();
        store::tenants::insert(&mut tx, slug, slug, self.ctx.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// A new person with a role in a tenant, signed in there. Her password is no password: see [`Self::set_password`].
    pub async fn person(&self, tenant: TenantId, role: Role) -> Person {
        self.person_at(tenant, role, Stage::SignedIn).await
    }

    /// The same, at a stage of the login.
    pub async fn person_at(&self, tenant: TenantId, role: Role, stage: Stage) -> Person {
        let user_id = UserId(Uuid::now_v7());
        let email = format!("{}@people.test", user_id.0.simple());
        let mut tx = self.ctx.store().tenant(tenant).await.unwrap();
        store::people::insert(&mut tx, user_id, &email, "-", self.ctx.now()).await.unwrap();
        store::members::insert(&mut tx, user_id, role, "", self.ctx.now()).await.unwrap();
        tx.commit().await.unwrap();
        let tenant_id = (stage == Stage::SignedIn).then_some(tenant);
        let proven_at = tenant_id.map(|_| self.ctx.now());
        let (cookie, session) = self.session(&Login { user_id, stage, tenant_id, proven_at, setup: None }).await;
        Person { user_id, email, cookie, session }
    }

    /// Gives a person a second factor, though nobody has the seed.
    pub async fn with_totp(&self, user: UserId) {
        let mut tx = self.ctx.store().platform().await.unwrap();
        assert!(store::people::set_totp(&mut tx, user, b"seed", "key", 1, self.ctx.now()).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// The cookie of a new session, and what pages call it.
    pub async fn session(&self, login: &Login) -> (String, SessionId) {
        let mut record =
            Record { id: Id::default(), data: std::collections::HashMap::new(), expiry_date: self.ctx.now() };
        record.data.insert(app::context::LOGIN.to_owned(), serde_json::to_value(login).unwrap());
        record.data.insert(app::context::BEGAN.to_owned(), json!(self.ctx.now().unix_timestamp()));
        let id = SessionId(Uuid::new_v4());
        if login.stage == Stage::SignedIn {
            let (address, device) = ("192.0.2.7".to_owned(), "Firefox on Linux".to_owned());
            let origin = Origin { id, address, device, factor: Factor::Totp };
            record.data.insert(app::context::ORIGIN.to_owned(), serde_json::to_value(origin).unwrap());
        }
        Sessions::new(self.ctx.clone()).create(&mut record).await.unwrap();
        (format!("ringfence={}", record.id), id)
    }

    /// Sends a request.
    pub async fn send(&self, request: Request<Body>) -> Response {
        self.send_from([192, 0, 2, 7], request).await
    }

    /// Sends a request from an address.
    pub async fn send_from(&self, address: [u8; 4], mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((address, 4711))));
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Asks for a page or file.
    pub async fn get(&self, person: &Person, path: &str) -> Response {
        let request = Request::get(path).header(header::COOKIE, &person.cookie).body(Body::empty()).unwrap();
        self.send(request).await
    }

    /// Calls a server function with a body, as our pages do.
    pub async fn post(&self, person: &Person, path: &str, body: impl Into<Body>) -> Response {
        let request = Request::post(path)
            .header(header::COOKIE, &person.cookie)
            .header(header::CONTENT_TYPE, "application/json")
            .header("sec-fetch-site", "same-origin")
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    /// Calls an operation, however it is reached.
    pub async fn call(&self, person: &Person, operation: Operation, body: &Value) -> Answer {
        let response = match route(operation) {
            Route::ServerFn(path) => self.post(person, &path, body.to_string()).await,
            Route::Get(path) => self.get(person, path).await,
            Route::Rpc => unreachable!("agents call it"),
        };
        Answer::read(operation, response).await
    }

    /// Calls an operation that must succeed.
    pub async fn done<T: DeserializeOwned>(&self, person: &Person, operation: Operation, body: Value) -> T {
        let answer = self.call(person, operation, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{} {body}: {}", operation.path(), answer.text);
        serde_json::from_str(&answer.text).unwrap()
    }

    /// How many rows an audit log has with an action.
    pub async fn audited(&self, tenant: TenantId, operation: Operation) -> usize {
        let mut tx = self.ctx.store().tenant(tenant).await.unwrap();
        let rows = store::audit::chain(&mut tx, 0, 10_000).await.unwrap();
        tx.commit().await.unwrap();
        rows.iter().filter(|row| row.action == operation.path()).count()
    }
}

/// Limits that nobody reaches.
pub fn wide() -> Limits {
    let wide = Limit { burst: 1_000_000, refill: std::time::Duration::from_micros(1) };
    Limits { all: wide, account: wide, enrolment: wide }
}

/// Nobody.
pub fn stranger() -> Person {
    Person {
        user_id: UserId(Uuid::nil()),
        email: String::new(),
        cookie: String::new(),
        session: SessionId(Uuid::nil()),
    }
}

/// How an operation is reached.
pub enum Route {
    ServerFn(String),
    Get(&'static str),
    Rpc,
}

/// The routes of all operations. Server functions have the path of their operation; what is none is named here.
pub fn route(operation: Operation) -> Route {
    match operation {
        Operation::WatchLive => Route::Get("/live"),
        Operation::ExportAllowedIps => Route::Get("/csv/allowed-ips"),
        Operation::ExportBlockedIps => Route::Get("/csv/blocked-ips"),
        Operation::EnrolAgent | Operation::LinkAgent => Route::Rpc,
        other => Route::ServerFn(format!("/api/{}", other.path())),
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub cookie: Option<String>,
}

impl Answer {
    /// Reads all of it; of a stream only that it began.
    async fn read(operation: Operation, response: Response) -> Self {
        let status = response.status();
        let cookie = response.headers().get(header::SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        let endless = operation == Operation::WatchLive && status.is_success();
        Self { status, text: if endless { String::new() } else { text(response).await }, cookie }
    }

    /// The error's code.
    pub fn code(&self) -> String {
        let value: Value = serde_json::from_str(&self.text).unwrap_or_default();
        value["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// The body of a response.
pub async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

//! What a browser fetches before a page works that is the first one opened, byte for byte as the portal sends it: the page
//! with a screen full of rows, and every file that it names. What is fetched afterwards, while the browser is idle, is not
//! counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use actions::{Caller, Ctx, Login};
use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::{Router, http};
use http::{Request, header};
use policy::account::Stage;
use policy::allowed_ips::AllowedIpForm;
use policy::authz::Role;
use policy::blocked_ips::BlockedIpForm;
use policy::ids::UserId;
use policy::paging::PAGE_ROWS;
use server::http::Portal;
use server::http::limits::{Limit, Limits};
use server::sessions::Sessions;
use store::testing::TestDb;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_sessions::SessionStore as _;
use tower_sessions::session::{Id, Record};
use uuid::Uuid;

use crate::blocked_ips::start;
use crate::report::{Report, say};

const SITE: &str = "target/site";
/// One of each kind; what the others of its kind need is the same.
const PAGES: [&str; 8] = ["/login", "/sign-up", "/forgot", "/", "/pbxes", "/allowed-ips", "/blocked-ips", "/audit"];

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    say("First load in kB as sent: the page itself, and with every file it names");
    if !Path::new(SITE).join("pkg").is_dir() {
        say("  left out: target/site is not built; scripts/build.sh builds it\n");
        return Ok(());
    }
    let browser = Browser::open().await?;
    let mut largest = 0;
    for page in PAGES {
        let (html, itself) = browser.page(page).await?;
        let mut all = itself;
        let files = linked(&html);
        anyhow::ensure!(files.iter().any(|file| file.contains(".wasm")), "{page} names no program");
        for file in &files {
            all += browser.size(file).await?;
        }
        say(&format!("  {page:<14} {:>6.1} {:>6.1} in {} files", kb(itself), kb(all), files.len() + 1));
        largest = largest.max(all);
    }
    say("");
    report.keep("first_load_brotli_kib", kb(largest) / 1.024);
    Ok(())
}

/// Somebody who is signed in to a portal with the built files.
struct Browser {
    router: Router,
    cookie: String,
}

impl Browser {
    async fn open() -> anyhow::Result<Self> {
        let db = TestDb::new().await;
        let ctx = start(&db).await?;
        let (login, caller) = person(&ctx).await?;
        fill(&ctx, &caller).await?;
        let wide = Limit { burst: 1_000_000, refill: Duration::from_micros(1) };
        let portal = Portal {
            ctx: ctx.clone(),
            origin: "http://portal.example".to_owned(),
            secure_cookies: false,
            trusted_proxies: Vec::new(),
            site: SITE.into(),
            limits: Limits { all: wide, account: wide, enrolment: wide },
            stopping: CancellationToken::new(),
        };
        let mut session = Record { id: Id::default(), data: HashMap::new(), expiry_date: ctx.now() };
        session.data.insert(app::context::LOGIN.to_owned(), serde_json::to_value(&login)?);
        session.data.insert(app::context::BEGAN.to_owned(), ctx.now().unix_timestamp().into());
        Sessions::new(ctx).create(&mut session).await?;
        Ok(Self { router: server::http::router(portal), cookie: format!("ringfence={}", session.id) })
    }

    /// A page in plain, and how many bytes it is on the wire.
    async fn page(&self, path: &str) -> anyhow::Result<(String, usize)> {
        let plain = self.get(path, "identity").await?;
        Ok((String::from_utf8(plain).context("a page is UTF-8")?, self.size(path).await?))
    }

    /// How many bytes something is on the wire.
    async fn size(&self, path: &str) -> anyhow::Result<usize> {
        Ok(self.get(path, "br").await?.len())
    }

    async fn get(&self, path: &str, encoding: &str) -> anyhow::Result<Vec<u8>> {
        let mut request =
            Request::get(path).header(header::ACCEPT_ENCODING, encoding).header(header::HOST, "portal.example");
        // Whoever is signed in is sent on from there.
        if !["/login", "/sign-up", "/forgot"].contains(&path) {
            request = request.header(header::COOKIE, &self.cookie);
        }
        let mut request = request.body(Body::empty())?;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 4711))));
        let response = self.router.clone().oneshot(request).await?;
        anyhow::ensure!(response.status() == http::StatusCode::OK, "{path}: {}", response.status());
        Ok(to_bytes(response.into_body(), usize::MAX).await?.to_vec())
    }
}

async fn person(ctx: &Ctx) -> anyhow::Result<(Login, Caller)> {
    let (tenant_id, user_id) = (policy::ids::TenantId(Uuid::now_v7()), UserId(Uuid::now_v7()));
    let (email, role) = ("bench@ringfence.example", Role::SuperAdministrator);
    let mut tx = ctx.store().tenant(tenant_id).await?;
    store::tenants::insert(&mut tx, "First load", "first-load", ctx.now()).await?;
    store::people::insert(&mut tx, user_id, email, "-", ctx.now()).await?;
    store::members::insert(&mut tx, user_id, role, "", ctx.now()).await?;
    tx.commit().await?;
    let login = Login { user_id, stage: Stage::SignedIn, tenant_id: Some(tenant_id), setup: None };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Ok((login, Caller { user_id, email: email.to_owned(), tenant_id, role, address }))
}

/// A page of rows in each list.
async fn fill(ctx: &Ctx, caller: &Caller) -> anyhow::Result<()> {
    for n in 0..PAGE_ROWS {
        let form = AllowedIpForm {
            target: format!("198.51.{n}.0/24"),
            note: format!("Office {n}"),
            expires_at: String::new(),
        };
        actions::allowed_ips::add(ctx, caller, form, true).await?;
        let form = BlockedIpForm {
            net: format!("203.0.113.{n}"),
            duration: "86400".to_owned(),
            reason: format!("{n} wrong passwords for {}", 1000 + n * 7),
        };
        actions::blocked_ips::block(ctx, caller, form, true).await?;
    }
    for name in ["hq", "branch-berlin", "branch-vienna"] {
        actions::pbxes::add(ctx, caller, name.to_owned()).await?;
    }
    Ok(())
}

/// What the links of a page name: style sheet, icon, program.
fn linked(html: &str) -> Vec<String> {
    let tags = html.split("<link ").skip(1).filter_map(|rest| rest.split('>').next());
    tags.filter_map(|tag| Some(tag.split("href=\"").nth(1)?.split('"').next()?.to_owned())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "files are smaller than 2^52 bytes")]
fn kb(bytes: usize) -> f64 {
    bytes as f64 / 1000.0
}

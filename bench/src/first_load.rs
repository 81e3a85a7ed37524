//! What a browser fetches before a page works that is the first one opened, byte for byte as the portal sends it: the page
//! with a screen full of rows, and every file that it names. What is fetched afterwards, while the browser is idle, is not
//! counted.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use actions::{Caller, Ctx, Login};
use anyhow::Context as _;
use policy::allowed_ips::AllowedIpForm;
use policy::authz::Role;
use policy::blocked_ips::BlockedIpForm;
use policy::ids::UserId;
use policy::paging::PAGE_ROWS;
use server::http::limits::{Limit, Limits};
use store::testing::TestDb;
use uuid::Uuid;

use crate::blocked_ips::start;
use crate::browser::{self, Browser, SITE};
use crate::report::{Report, say};

/// One of each kind; what the others of its kind need is the same.
const PAGES: [&str; 8] = ["/login", "/sign-up", "/forgot", "/", "/pbxes", "/allowed-ips", "/blocked-ips", "/audit"];

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    say("First load in kB as sent: the page itself, and with every file it names");
    if !Path::new(SITE).join("pkg").is_dir() {
        say("  left out: target/site is not built; scripts/build.sh builds it\n");
        return Ok(());
    }
    let browser = open().await?;
    let mut largest = 0;
    for page in PAGES {
        let html = String::from_utf8(fetch(&browser, page, "identity").await?).context("a page is UTF-8")?;
        let itself = fetch(&browser, page, "br").await?.len();
        let mut all = itself;
        let files = linked(&html);
        anyhow::ensure!(files.iter().any(|file| file.contains(".wasm")), "{page} names no program");
        for file in &files {
            all += fetch(&browser, file, "br").await?.len();
        }
        say(&format!("  {page:<14} {:>6.1} {:>6.1} in {} files", kb(itself), kb(all), files.len() + 1));
        largest = largest.max(all);
    }
    say("");
    report.keep("first_load_brotli_kib", kb(largest) / 1.024);
    Ok(())
}

async fn open() -> anyhow::Result<Browser> {
    let db = TestDb::new().await;
    let ctx = start(&db).await?;
    let (login, caller) = person(&ctx).await?;
    fill(&ctx, &caller).await?;
    let wide = Limit { burst: 1_000_000, refill: Duration::from_micros(1) };
    let router = browser::portal(&ctx, Limits { all: wide, account: wide, enrolment: wide });
    Browser::new(&router, Ipv4Addr::LOCALHOST.into()).signed_in(&ctx, &login).await
}

/// A file or page as a browser fetches it that is first here. Whoever is signed in is sent on from the pages of the login.
async fn fetch(browser: &Browser, path: &str, encoding: &str) -> anyhow::Result<Vec<u8>> {
    if ["/login", "/sign-up", "/forgot"].contains(&path) {
        browser.signed_out().get(path, encoding).await
    } else {
        browser.get(path, encoding).await
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
    let login = Login::complete(user_id, Some(tenant_id), ctx.now());
    let (address, proven_at) = (IpAddr::V4(Ipv4Addr::LOCALHOST), login.proven_at);
    Ok((login, Caller { user_id, email: email.to_owned(), tenant_id, role, address, proven_at }))
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

//! The login under attack: whether it tells known accounts from unknown ones by its time, and what a spray of passwords costs the sprayers,
//! somebody who logs in meanwhile, and whoever only looks at pages.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actions::Ctx;
use actions::clock::SystemClock;
use actions::passwords::Passwords;
use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::StatusCode;
use policy::authz::Role;
use policy::ids::{TenantId, UserId};
use serde_json::json;
use server::http::limits::Limits;
use store::testing::TestDb;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use crate::blocked_ips::start_at;
use crate::browser::{self, Browser};
use crate::report::{Report, Times, say};

const PASSWORD: &str = "amber kettle walks north";
/// Tries of each kind whose times are compared.
const TRIES: u32 = 200;
/// Nobody tries so often at one account that the account itself slows down.
const TRIES_EACH: u32 = 20;
const ACCOUNTS: u32 = 500;
const SPRAYERS: u8 = 50;
const SPRAYED_EACH: u32 = 200;
/// Looks at a page, before the spray.
const LOOKS: u32 = 400;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let db = TestDb::new().await;
    let ctx = start_at(&db, Arc::new(SystemClock)).await?;
    let router = browser::portal(&ctx, Limits::default());
    let tenant = people(&ctx).await?;
    timing(&router, report).await?;
    spray(&ctx, &router, tenant, report).await
}

fn email(number: u32) -> String {
    format!("person{number}@bench.example")
}

/// A tenant with people who have passwords, and no second factor yet.
async fn people(ctx: &Ctx) -> anyhow::Result<TenantId> {
    let tenant_id = TenantId(Uuid::now_v7());
    let hash = Passwords::new(1).hash(PASSWORD).await?;
    let mut tx = ctx.store().tenant(tenant_id).await?;
    store::tenants::insert(&mut tx, "Login", "login", ctx.now()).await?;
    for number in 0..ACCOUNTS {
        let user = UserId(Uuid::now_v7());
        store::people::insert(&mut tx, user, &email(number), &hash, ctx.now()).await?;
        store::members::insert(&mut tx, user, Role::SuperAdministrator, "", ctx.now()).await?;
    }
    tx.commit().await?;
    Ok(tenant_id)
}

/// Each try comes from an address of its own.
async fn timing(router: &Router, report: &mut Report) -> anyhow::Result<()> {
    say(&format!("Login: milliseconds that a refusal takes, {TRIES} tries each"));
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        let account = n / TRIES_EACH;
        wrong.push(refused(router, n * 2, &email(account)).await?);
        unknown.push(refused(router, n * 2 + 1, &format!("nobody{account}@bench.example")).await?);
    }
    let distance = distance(&wrong, &unknown);
    say(&Times::new(wrong).line("wrong password"));
    say(&Times::new(unknown).line("unknown account"));
    say(&format!("    Kolmogorov-Smirnov distance {distance:.3}; at 5 % they could be told apart from 0.136 on\n"));
    report.keep_fine("login_timing_ks", distance);
    Ok(())
}

async fn refused(router: &Router, from: u32, email: &str) -> anyhow::Result<Duration> {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + from);
    let begun = Instant::now();
    let (status, answer) = log_in(&mut Browser::new(router, address.into()), email, "wrong").await?;
    ensure!(status == StatusCode::UNPROCESSABLE_ENTITY && answer["code"] == "invalid", "{status} {answer}");
    Ok(begun.elapsed())
}

async fn log_in(browser: &mut Browser, email: &str, password: &str) -> anyhow::Result<(StatusCode, serde_json::Value)> {
    browser.call("account/log_in", &json!({ "email": email, "password": password })).await
}

/// The largest distance of two distributions.
#[expect(clippy::cast_precision_loss, reason = "there are few tries")]
fn distance(one: &[Duration], other: &[Duration]) -> f64 {
    let share = |times: &[Duration], at: Duration| {
        times.iter().filter(|time| **time <= at).count() as f64 / times.len().max(1) as f64
    };
    one.iter().chain(other).map(|at| (share(one, *at) - share(other, *at)).abs()).fold(0.0, f64::max)
}

async fn spray(ctx: &Ctx, router: &Router, tenant: TenantId, report: &mut Report) -> anyhow::Result<()> {
    let (total, looker) = (u32::from(SPRAYERS) * SPRAYED_EACH, address(10, 1));
    say(&format!("A spray of {total} passwords over {ACCOUNTS} accounts from {SPRAYERS} addresses"));
    let person = enter(router, address(10, 2), &email(0)).await.context("logging in before it")?;
    let looker = person.moved(looker);
    let mut quiet = Vec::new();
    for _ in 0..LOOKS {
        quiet.push(look(&looker).await?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn({
        let (looker, over) = (looker.clone(), Arc::clone(&over));
        async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                times.push(look(&looker).await?);
            }
            anyhow::Ok(times)
        }
    });
    let begun = Instant::now();
    let mut sprayers = JoinSet::new();
    for sprayer in 0..SPRAYERS {
        let mut browser = Browser::new(router, address(20, sprayer));
        sprayers.spawn(async move {
            let mut looked_at = 0_u32;
            for n in 0..SPRAYED_EACH {
                let account = (u32::from(sprayer) * SPRAYED_EACH + n) % ACCOUNTS;
                let (_, answer) = log_in(&mut browser, &email(account), "Summer2026!").await?;
                looked_at += u32::from(answer["code"] == "invalid");
            }
            anyhow::Ok(looked_at)
        });
    }
    sleep(Duration::from_millis(500)).await;
    let entering = Instant::now();
    enter(router, address(10, 3), &email(1)).await.context("logging in during it")?;
    let entered = entering.elapsed();
    let mut looked_at = Vec::new();
    while let Some(sprayer) = sprayers.join_next().await {
        looked_at.push(sprayer??);
    }
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let (quiet, during) = (Times::new(quiet), Times::new(looking.await??));
    say(&format!(
        "    over after {:.1} s; passwords looked at: {} of {total}, at most {} from one address",
        took.as_secs_f64(),
        looked_at.iter().sum::<u32>(),
        looked_at.iter().max().unwrap_or(&0)
    ));
    say(&format!("    somebody logged in meanwhile with password and code, in {:.1} s", entered.as_secs_f64()));
    say(&quiet.line("/blocked-ips, quiet"));
    say(&during.line("/blocked-ips, during it"));
    let mut tx = ctx.store().tenant(tenant).await?;
    let blocked = store::blocked_ips::entries(&mut tx).await?.len();
    tx.commit().await?;
    say(&format!("    blocked at the PBXes of whom they tried: {blocked} of {SPRAYERS} addresses\n"));
    report.keep("spray_page_ratio_p99", during.percentile(99) / quiet.percentile(99));
    report.keep("spray_looked_at", f64::from(looked_at.iter().sum::<u32>()));
    Ok(())
}

fn address(net: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, net, host).into()
}

/// A page as anybody signed in looks at it.
async fn look(browser: &Browser) -> anyhow::Result<Duration> {
    sleep(BETWEEN_LOOKS).await;
    let begun = Instant::now();
    browser.get("/blocked-ips", "br").await?;
    Ok(begun.elapsed())
}

/// A first login, with password and code.
async fn enter(router: &Router, from: IpAddr, email: &str) -> anyhow::Result<Browser> {
    let mut browser = Browser::new(router, from);
    let (status, answer) = log_in(&mut browser, email, PASSWORD).await?;
    ensure!(status == StatusCode::OK, "{status} {answer}");
    let (_, setup) = browser.call("account/begin_totp", &json!({})).await?;
    let key = setup["key"].as_str().context("no key")?.replace(' ', "");
    let code = Command::new("node").args(["scripts/one-time-code.mjs", &key, "0"]).output().await?;
    let code = String::from_utf8(code.stdout)?;
    let (status, answer) = browser.call("account/confirm_totp", &json!({ "code": code.trim() })).await?;
    ensure!(status == StatusCode::OK, "{status} {answer}");
    Ok(browser)
}

//! What large sets of bans cost: one ban beside 100,000 others against one in an empty set, as the agent tells the server how long it took
//! from the message to the kernel; and 100,000 of them sent as a whole.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::ensure;
use ipnet::IpNet;
use policy::bans::{BanDigest, BanEntry};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::{Lab, attempts, runs};
use crate::node;
use crate::report::{Report, Times, say};

const BANS: u32 = 100_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);
/// Nobody holds so many changes: who missed them gets the whole set.
const JUMP: i64 = 1_000_000;
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn measure(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    say("  Sets of bans; milliseconds; of single bans at the agent, from the message to the kernel");
    let mut db = lab.database().await?;
    lab.portal.reconnect()?;
    lab.portal.unblock_all()?;
    settled(&mut db).await?;
    let empty = single(lab, &mut db, "one ban, set empty").await?;
    let (mut wall, mut agent) = (Vec::new(), Vec::new());
    for turn in 0..runs(3)? {
        if turn > 0 {
            fill(&mut db, 0).await?;
        }
        let (took, applied) = fill(&mut db, BANS).await?;
        wall.push(took);
        agent.push(applied);
    }
    let wall = Times::new(wall);
    say(&wall.line("100,000, from commit"));
    say(&Times::new(agent).line("100,000, at the agent"));
    let full = single(lab, &mut db, "one ban, set of 100,000").await?;
    let rss = node::rss_mib(lab.agent()?)?;
    let idle = attempts::over(lab.agent()?, Duration::from_secs(10)).await?;
    say(&format!(
        "  with {BANS} bans the agent holds {rss:.1} MiB and takes {idle:.1} % of one core when nothing happens"
    ));
    report.keep("ban_into_100k_ratio", full.percentile(50) / empty.percentile(50));
    report.keep("apply_100k_s", wall.percentile(50) / 1000.0);
    report.keep("agent_rss_mib_100k_bans", rss);
    fill(&mut db, 0).await?;
    db.close().await?;
    Ok(())
}

/// Single bans by hand, each lifted before the next.
async fn single(lab: &mut Lab, db: &mut PgConnection, name: &str) -> anyhow::Result<Times> {
    let mut times = Vec::new();
    lab.portal.reconnect()?;
    for _ in 0..runs(60)? {
        let source = lab.source();
        let (ban, _) = lab.portal.block(source)?;
        times.push(settled(db).await?);
        lab.portal.unblock(&ban)?;
        settled(db).await?;
        sleep(Duration::from_millis(20)).await;
    }
    let times = Times::new(times);
    say(&times.line(name));
    Ok(times)
}

/// Waits until the agent holds the set as it is; how long its last change took there.
async fn settled(db: &mut PgConnection) -> anyhow::Result<Duration> {
    let until = Instant::now() + PATIENCE;
    loop {
        let took: Option<i64> = sqlx::query_scalar(
            "SELECT p.applied_took_us FROM pbxes p JOIN tenants t ON t.id = p.tenant_id WHERE p.applied_ban_seq = t.ban_seq",
        )
        .fetch_optional(&mut *db)
        .await?;
        if let Some(took) = took {
            return Ok(Duration::from_micros(u64::try_from(took)?));
        }
        ensure!(Instant::now() < until, "the agent does not hold the bans within {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(2)).await;
    }
}

/// Makes the tenant's set this large at one blow; how long it took from the commit until the agent told that it holds it, and at the agent.
async fn fill(db: &mut PgConnection, count: u32) -> anyhow::Result<(Duration, Duration)> {
    let mut tx = db.begin().await?;
    let end: OffsetDateTime =
        sqlx::query_scalar("SELECT date_trunc('second', now()) + interval '7 days'").fetch_one(&mut *tx).await?;
    let net = |n| IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(FIRST.to_bits() + n)));
    let entries: Vec<BanEntry> = (0..count).map(|n| BanEntry { net: net(n), expires_at: Some(end) }).collect();
    sqlx::query("DELETE FROM ban_changes").execute(&mut *tx).await?;
    sqlx::query("DELETE FROM blocked_ips").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO blocked_ips (tenant_id, id, net, source, reason, account, times_banned, evidence, created_at, expires_at)
         SELECT t.id, gen_random_uuid(), ($1::inet + n)::cidr, 'manual', 'a benchmark', '', 1, '[]', now(), $3
         FROM tenants t, generate_series(0, $2 - 1) AS n",
    )
    .bind(net(0))
    .bind(i64::from(count))
    .bind(end)
    .execute(&mut *tx)
    .await?;
    let tenant: Uuid = sqlx::query_scalar("UPDATE tenants SET ban_seq = ban_seq + $1, ban_digest = $2 RETURNING id")
        .bind(JUMP)
        .bind(BanDigest::of(&entries).to_bytes().to_vec())
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("SELECT pg_notify('ringfence', $1)").bind(format!("{tenant}:bans")).execute(&mut *tx).await?;
    tx.commit().await?;
    let begun = Instant::now();
    let agent = settled(db).await?;
    Ok((begun.elapsed(), agent))
}

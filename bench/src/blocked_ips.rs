//! Pages and searches of Blocked IPs in a tenant with 100,000 bans, beside another with as many: the action that the page calls
//! (permission, row security, list, count), and beside it what comes to mind first: LIKE over text, OFFSET, a full count.

use std::str::FromStr as _;
use std::time::Duration;

use actions::{Caller, Ctx, Settings};
use anyhow::Context as _;
use policy::authz::Role;
use policy::blocked_ips::{BanSource, BlockedIpFilter};
use policy::ids::{PbxId, TenantId, UserId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use store::blocked_ips::Search;
use store::testing::TestDb;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::report::{Report, Times, say};

const BANS: i64 = 100_000;
const RUNS: u32 = 60;
const NAIVE_RUNS: u32 = 8;
const NOW: OffsetDateTime = datetime!(2030-01-01 12:00 UTC);
/// Rows before page 1,000.
const DEEP: i64 = 999 * policy::paging::PAGE_ROWS;

/// One measured question, the n-th of its kind: what people type differs each time.
struct Question {
    name: &'static str,
    /// Whether it counts as a page or as a search in the summary.
    search: bool,
    filter: fn(u32, PbxId) -> BlockedIpFilter,
    deep: bool,
    /// The WHERE of the naive query.
    naive: fn(u32, PbxId) -> String,
}

fn typed(search: String) -> BlockedIpFilter {
    BlockedIpFilter { search, ..BlockedIpFilter::default() }
}

const QUESTIONS: [Question; 8] = [
    Question {
        name: "first page",
        search: false,
        filter: |_, _| BlockedIpFilter::default(),
        deep: false,
        naive: |_, _| "true".to_owned(),
    },
    Question {
        name: "page 1,000",
        search: false,
        filter: |_, _| BlockedIpFilter::default(),
        deep: true,
        naive: |_, _| "true".to_owned(),
    },
    Question {
        name: "source and PBX",
        search: false,
        filter: |_, pbx| BlockedIpFilter {
            source: Some(BanSource::Detection),
            pbx_id: Some(pbx),
            ..BlockedIpFilter::default()
        },
        deep: false,
        naive: |_, pbx| format!("b.source = 'detection' AND b.pbx_id = '{pbx}'"),
    },
    Question {
        name: "address",
        search: true,
        filter: |n, _| typed(format!("11.0.{}.{}", n * 3 % 256, n * 7 % 256)),
        deep: false,
        naive: |n, _| format!("host(b.net) LIKE '%11.0.{}.{}%'", n * 3 % 256, n * 7 % 256),
    },
    Question {
        name: "network",
        search: true,
        filter: |n, _| typed(format!("11.0.{}.0/{}", n * 16 % 256, 20 + n % 5)),
        deep: false,
        naive: |n, _| format!("b.net && '11.0.{}.0/{}'::inet", n * 16 % 256, 20 + n % 5),
    },
    Question {
        name: "wide network",
        search: true,
        filter: |n, _| typed(format!("11.0.0.0/{}", 8 + n % 10)),
        deep: false,
        naive: |n, _| format!("b.net && '11.0.0.0/{}'::inet", 8 + n % 10),
    },
    Question {
        name: "account",
        search: true,
        filter: |n, _| typed(format!("{}", 1000 + n * 61 % 5000)),
        deep: false,
        naive: |n, _| format!("(b.account = '{0}' OR b.reason ILIKE '%{0}%')", 1000 + n * 61 % 5000),
    },
    Question {
        name: "word of the reason",
        search: true,
        filter: |n, _| {
            typed(
                ["wrong PASSWORDS", "zebra", "9 wrong", "for 1234"]
                    .get(n as usize % 4)
                    .copied()
                    .unwrap_or_default()
                    .to_owned(),
            )
        },
        deep: false,
        naive: |n, _| {
            let word =
                ["wrong PASSWORDS", "zebra", "9 wrong", "for 1234"].get(n as usize % 4).copied().unwrap_or_default();
            format!("(b.account = '{word}' OR b.reason ILIKE '%{word}%')")
        },
    },
];

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let db = TestDb::new().await;
    let (tenant, pbx) = make_tenant(&db, "measured").await?;
    make_tenant(&db, "other").await?;
    fill(&db).await.context("filling the tables")?;
    let ctx = start(&db).await?;
    let caller = Caller {
        user_id: UserId(Uuid::now_v7()),
        email: "bench@ringfence.example".to_owned(),
        tenant_id: tenant,
        role: Role::Auditor,
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        proven_at: None,
    };
    let mut naive = PgConnectOptions::from_str(&db.app_url)?.connect().await?;
    sqlx::query("SELECT set_config('ringfence.tenant_id', $1, false)")
        .bind(tenant.to_string())
        .execute(&mut naive)
        .await?;
    let cursor = cursor_of_page_1000(&ctx, tenant).await?;

    say(&format!("Blocked IPs, {BANS} bans in the tenant and as many in another; milliseconds at the server"));
    say(&format!("  {:<20} {:>8} {:>8} {:>12} {:>8}", "", "p50", "p95", "naive p50", "ratio"));
    let (mut page, mut search) = (0.0f64, 0.0f64);
    for question in &QUESTIONS {
        let after = question.deep.then(|| cursor.clone());
        let ours = ask(&ctx, &caller, question, pbx, after.as_deref()).await?;
        let theirs = ask_naively(&mut naive, question, pbx).await?;
        let p95 = ours.percentile(95);
        say(&format!(
            "  {:<20} {:>8.2} {p95:>8.2} {:>12.2} {:>7.1}x",
            question.name,
            ours.percentile(50),
            theirs.percentile(50),
            theirs.percentile(50) / ours.percentile(50)
        ));
        let worst = if question.search { &mut search } else { &mut page };
        *worst = worst.max(p95);
    }
    say("");
    report.keep("blocked_ips_page_ms_p95", page);
    report.keep("blocked_ips_search_ms_p95", search);
    naive.close().await?;
    Ok(())
}

async fn ask(
    ctx: &Ctx,
    caller: &Caller,
    question: &Question,
    pbx: PbxId,
    after: Option<&str>,
) -> anyhow::Result<Times> {
    let mut times = Vec::new();
    for n in 0..RUNS + 5 {
        let filter = (question.filter)(n, pbx);
        let begun = Instant::now();
        actions::blocked_ips::list(ctx, caller, filter, after.map(str::to_owned)).await.context(question.name)?;
        times.push(begun.elapsed());
    }
    // The first few find cold caches and connections.
    Ok(Times::new(times.split_off(5)))
}

async fn ask_naively(connection: &mut PgConnection, question: &Question, pbx: PbxId) -> anyhow::Result<Times> {
    let offset = if question.deep { DEEP } else { 0 };
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..NAIVE_RUNS {
        let from = format!(
            "FROM blocked_ips b LEFT JOIN pbxes p ON p.id = b.pbx_id WHERE b.ended_at IS NULL AND {}",
            (question.naive)(n, pbx)
        );
        let begun = Instant::now();
        let rows = format!("SELECT b.*, p.name {from} ORDER BY b.created_at DESC, b.id DESC LIMIT 50 OFFSET {offset}");
        sqlx::query(AssertSqlSafe(rows)).fetch_all(&mut *connection).await?;
        sqlx::query(AssertSqlSafe(format!("SELECT count(*) {from}"))).fetch_one(&mut *connection).await?;
        times.push(begun.elapsed());
    }
    Ok(Times::new(times))
}

async fn make_tenant(db: &TestDb, slug: &str) -> anyhow::Result<(TenantId, PbxId)> {
    let (tenant, mut last) = (TenantId(Uuid::now_v7()), PbxId(Uuid::nil()));
    let mut tx = db.store.tenant(tenant).await?;
    store::tenants::insert(&mut tx, slug, slug, NOW).await?;
    for name in ["hq", "branch", "lab"] {
        last = PbxId(Uuid::now_v7());
        store::pbxes::insert(&mut tx, last, name, NOW).await?;
    }
    tx.commit().await?;
    Ok((tenant, last))
}

/// Bans as detection makes them, in both tenants; with evidence, which makes rows wide. Then what autovacuum does by itself.
async fn fill(db: &TestDb) -> anyhow::Result<()> {
    let mut admin = PgConnectOptions::from_str(&db.admin_url)?.connect().await?;
    let bans = format!(
        "INSERT INTO blocked_ips (tenant_id, id, net, source, reason, account, pbx_id, times_banned, evidence, created_at, expires_at)
         SELECT t.id, gen_random_uuid(), ('11.' || (n >> 16) || '.' || ((n >> 8) & 255) || '.' || (n & 255))::cidr,
                CASE WHEN n % 10 = 0 THEN 'manual' ELSE 'detection' END, (5 + n % 7) || ' wrong passwords for ' || (1000 + n % 5000),
                (1000 + n % 5000)::text, t.pbxes[1 + n % 3], 1,
                (SELECT jsonb_agg(jsonb_build_object('at', timestamptz '2030-01-01' + make_interval(secs => k), 'kind', 'ChallengeResponseFailed', 'transport', 'UDP',
                                                     'account', (1000 + n % 5000)::text, 'service', 'PJSIP')) FROM generate_series(1, 5) AS k),
                timestamptz '2030-01-01' - make_interval(secs => n), '2030-02-01'
         FROM (SELECT tenant_id AS id, array_agg(id ORDER BY id) AS pbxes FROM pbxes GROUP BY tenant_id) AS t, generate_series(1, {BANS}) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(bans)).execute(&mut admin).await?;
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut admin).await?;
    admin.close().await?;
    Ok(())
}

pub(crate) async fn start(db: &TestDb) -> anyhow::Result<Ctx> {
    start_at(db, std::sync::Arc::new(actions::clock::TestClock::new(NOW))).await
}

pub(crate) async fn start_at(db: &TestDb, clock: std::sync::Arc<dyn actions::clock::Clock>) -> anyhow::Result<Ctx> {
    let settings = Settings {
        public_url: "http://localhost:3000".to_owned(),
        agent_address: "localhost:3443".to_owned(),
        development_mailbox: true,
    };
    let key = actions::seal::MasterKey::new(&zeroize::Zeroizing::new(vec![7; 32])).map_err(anyhow::Error::msg)?;
    Ok(Ctx::start(db.store.clone(), settings, key, clock).await?)
}

/// Where page 1,000 begins, as the page before it says. Walking there page by page would only take longer.
async fn cursor_of_page_1000(ctx: &Ctx, tenant: TenantId) -> anyhow::Result<String> {
    let mut tx = ctx.store().tenant(tenant).await?;
    let rows = store::blocked_ips::list(&mut tx, &Search::default(), None, DEEP).await?;
    tx.rollback().await?;
    let last = rows.last().context("there are no bans")?;
    Ok(format!("{}.{}", last.created_at.unix_timestamp_nanos(), last.id.0.simple()))
}

//! Which way PostgreSQL takes through a tenant with 100,000 bans beside others. The plans are those of the store's very
//! statements: `auto_explain` sends each one to the client as a notice, and the driver logs it.

use std::io;
use std::sync::{Arc, Mutex};

use policy::blocked_ips::BanSource;
use sqlx::AssertSqlSafe;
use store::blocked_ips::{NetRange, Search};
use store::testing::TestDb;
use store::{Store, TenantTx};

use crate::world::{NOW, World, connect};

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap().replace("\\n", "\n")
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 100,000 bans in each tenant and some that have ended.
async fn fill(db: &TestDb) {
    let mut admin = connect(&db.admin_url).await;
    sqlx::raw_sql(
        "INSERT INTO blocked_ips (tenant_id, id, net, source, reason, account, pbx_id, times_banned, evidence, created_at, expires_at, ended_at)
         SELECT t.id, gen_random_uuid(), ('11.' || (n >> 16) || '.' || ((n >> 8) & 255) || '.' || (n & 255))::cidr,
                CASE WHEN n % 10 = 0 THEN 'manual' ELSE 'detection' END, (5 + n % 7) || ' wrong passwords for ' || (1000 + n % 5000),
                (1000 + n % 5000)::text, p.id, 1, jsonb_build_array(repeat('evidence ', 60)),
                timestamptz '2030-01-01' - make_interval(secs => n), '2030-02-01', CASE WHEN n > 100000 THEN timestamptz '2030-01-01' END
         FROM tenants t JOIN pbxes p ON p.tenant_id = t.id, generate_series(1, 110000) AS n",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE blocked_ips").execute(&mut admin).await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut admin).await.unwrap();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_level = 'notice'",
    ] {
        sqlx::raw_sql(AssertSqlSafe(format!("ALTER DATABASE {database} SET {setting}")))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn lists_and_counts_of_100_000_bans_use_their_indexes() {
    let world = World::new().await;
    fill(&world.db).await;
    // Connections of its own: those of the world were made before the setting.
    let store = Store::connect(&world.db.app_url, &world.db.system_url, 1).await.unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let net = |text: &str| Some(NetRange::of(text.parse().unwrap()));
    let holds = |text: &str| Some(text.to_owned());
    let deep = Some((NOW - time::Duration::seconds(12 * 3600 + 50_000), uuid::Uuid::nil().into()));
    let page = "Index Only Scan using blocked_ips_newest_idx";
    let address = "blocked_ips_net_key";
    // Whichever index the statistics of the moment speak for.
    let any = "using blocked_ips_";
    let cases = [
        ("first page", Search::default(), None, page),
        ("deep page", Search::default(), deep, page),
        ("address", Search { range: net("11.0.7.7/32"), ..Search::default() }, None, address),
        ("address that nobody has", Search { range: net("2001:db8::1/128"), ..Search::default() }, None, address),
        ("small network", Search { range: net("11.0.7.0/24"), ..Search::default() }, None, address),
        ("word that many have", Search { word: holds("wrong"), ..Search::default() }, None, any),
        ("word that nobody has", Search { word: holds("zebra"), ..Search::default() }, None, any),
        ("source", Search { source: Some(BanSource::Manual), ..Search::default() }, None, any),
        ("PBX", Search { pbx_id: Some(world.a.pbx), ..Search::default() }, None, any),
    ];
    for (what, search, before, index) in cases {
        log.take();
        let mut tx: TenantTx = store.tenant(world.a.id).await.unwrap();
        store::blocked_ips::list(&mut tx, &search, before, 51).await.unwrap();
        let listed = log.take();
        store::blocked_ips::count(&mut tx, &search).await.unwrap();
        let counted = log.take();
        // A count reads all that a search finds; which index it reads them by depends on the table's statistics.
        for (plan, index) in [(listed, index), (counted, if index == page { any } else { index })] {
            assert!(plan.contains("Query Text"), "{what}: auto_explain sent no plan: {plan}");
            assert!(plan.contains(index), "{what}: not by {index}\n{plan}");
            assert!(!plan.contains("Seq Scan on blocked_ips"), "{what}\n{plan}");
            assert!(
                plan.contains("tenant_id = (NULLIF(current_setting"),
                "{what}: the tenant is no condition of an index\n{plan}"
            );
        }
    }
}

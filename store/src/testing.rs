//! A database of its own for each test, as the restricted roles, copied from a template that is migrated once.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use std::str::FromStr as _;
use uuid::Uuid;

use crate::db::Store;

/// A database that nobody else uses. It goes with the throw-away cluster that holds it.
#[derive(Debug)]
pub struct TestDb {
    /// Connected as `ringfence_app` and `ringfence_system`.
    pub store: Store,
    /// Its administrator's address, for what only an attacker in the database could do.
    pub admin_url: String,
    /// The application's address.
    pub app_url: String,
    /// The jobs' address.
    pub system_url: String,
}

impl TestDb {
    /// Makes one in the cluster that `DATABASE_URL` names, whose role must be a superuser.
    ///
    /// # Panics
    /// When there is no such cluster.
    #[expect(clippy::disallowed_methods, reason = "tests find their cluster in the environment")]
    #[expect(clippy::expect_used, reason = "a test without its database can only fail")]
    pub async fn new() -> Self {
        let admin =
            std::env::var("DATABASE_URL").expect("DATABASE_URL names a throw-away cluster; `make test` starts one");
        let options = PgConnectOptions::from_str(&admin).expect("DATABASE_URL");
        let mut connection = options.clone().database("postgres").connect().await.expect("the test cluster");
        let template = make_template(&mut connection, &admin).await;
        let name = format!("rf_{}", Uuid::now_v7().simple());
        // Copies of one template wait for each other.
        sqlx::raw_sql("SELECT pg_advisory_lock(727366)").execute(&mut connection).await.expect("lock");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template} OWNER ringfence_owner")))
            .execute(&mut connection)
            .await
            .expect("copying the template");
        connection.close().await.expect("close");
        let url = |user: &str| with_user_and_database(&admin, user, &name);
        let (app_url, system_url) = (url("ringfence_app"), url("ringfence_system"));
        let store = Store::connect(&app_url, &system_url, 5).await.expect("the restricted roles");
        Self { store, admin_url: with_database(&admin, &name), app_url, system_url }
    }
}

#[expect(clippy::expect_used, reason = "a test without its database can only fail")]
async fn make_template(connection: &mut PgConnection, admin: &str) -> String {
    let migrator = sqlx::migrate!("../migrations/sql");
    let mark: u64 = migrator
        .iter()
        .flat_map(|migration| migration.checksum.iter())
        .fold(14_695_981_039_346_656_037, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211));
    let template = format!("rf_template_{mark:x}");
    sqlx::raw_sql("SELECT pg_advisory_lock(727367)").execute(&mut *connection).await.expect("lock");
    let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate")
        .bind(&template)
        .fetch_optional(&mut *connection)
        .await
        .expect("pg_database");
    if there.is_none() {
        sqlx::raw_sql(include_str!("../../migrations/roles.sql")).execute(&mut *connection).await.expect("roles");
        sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {template}")))
            .execute(&mut *connection)
            .await
            .expect("drop");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {template} OWNER ringfence_owner")))
            .execute(&mut *connection)
            .await
            .expect("create");
        crate::migrate(&with_database(admin, &template)).await.expect("migrations");
        sqlx::raw_sql(AssertSqlSafe(format!("ALTER DATABASE {template} IS_TEMPLATE true")))
            .execute(&mut *connection)
            .await
            .expect("mark");
    }
    sqlx::raw_sql("SELECT pg_advisory_unlock(727367)").execute(&mut *connection).await.expect("unlock");
    template
}

fn with_database(url: &str, database: &str) -> String {
    // A socket's path in the query holds slashes, too.
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let head = base.rsplit_once('/').map_or(base, |(head, _)| head);
    format!("{head}/{database}{query}")
}

fn with_user_and_database(url: &str, user: &str, database: &str) -> String {
    let url = with_database(url, database);
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) => format!("{}{user}{}", &url[..scheme + 3], &url[at..]),
        _ => url,
    }
}

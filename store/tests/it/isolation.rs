//! What the application's role can do to rows of a tenant that isn't the transaction's, tried on every table of the catalogue.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::catalogue::guarded_tables;
use crate::world::{World, connect};

/// PostgreSQL's code for both a missing grant and a row that a policy refuses.
const REFUSED: &str = "42501";

/// How a statement ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Rows(u64),
    Refused,
    Other(String),
}

/// Runs a statement as the application with a tenant set (or none), and takes back what it did.
async fn attempt(app: &mut PgConnection, tenant: Option<Uuid>, sql: &str) -> Ended {
    sqlx::raw_sql("BEGIN").execute(&mut *app).await.unwrap();
    if let Some(tenant) = tenant {
        sqlx::query("SELECT set_config('ringfence.tenant_id', $1, true)")
            .bind(tenant.to_string())
            .execute(&mut *app)
            .await
            .unwrap();
    }
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *app).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *app).await.unwrap();
    match done {
        Ok(done) => Ended::Rows(done.rows_affected()),
        Err(error) => match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
            Some(code) if code == REFUSED => Ended::Refused,
            code => Ended::Other(format!("{code:?} {error}")),
        },
    }
}

/// Everything that gets at a row it should not; empty when row security holds.
async fn leaks(world: &World) -> Vec<String> {
    let mut admin = connect(&world.db.admin_url).await;
    let mut app = connect(&world.db.app_url).await;
    let (a, b) = (world.a.id.0, world.b.id.0);
    let mut leaks = Vec::new();
    for table in guarded_tables(&mut admin).await {
        let key = if table == "tenants" { "id" } else { "tenant_id" };
        let columns: String = sqlx::query_scalar(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        )
        .bind(&table)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        let of_b: serde_json::Value =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT to_jsonb(t) FROM {table} t WHERE {key} = $1 LIMIT 1")))
                .bind(b)
                .fetch_one(&mut admin)
                .await
                .unwrap_or_else(|_| panic!("{table} has no row of the second tenant: add one to the world"));
        let row = of_b.to_string().replace('\'', "''");
        let insert = format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, '{row}')"
        );
        let mut expect = |what: &str, ended: Ended, fine: &[Ended]| {
            if !fine.contains(&ended) {
                leaks.push(format!("{table}: {what}: {ended:?}"));
            }
        };
        let untouched = [Ended::Rows(0), Ended::Refused];

        for (who, tenant) in
            [("nobody", None), ("tenant A", Some(a)), ("a tenant that isn't there", Some(Uuid::from_u128(1)))]
        {
            let read = attempt(&mut app, tenant, &format!("SELECT * FROM {table} WHERE {key} = '{b}'")).await;
            expect(&format!("{who} reads"), read, &[Ended::Rows(0)]);
            let update =
                attempt(&mut app, tenant, &format!("UPDATE {table} SET {key} = {key} WHERE {key} = '{b}'")).await;
            expect(&format!("{who} updates"), update, &untouched);
            let delete = attempt(&mut app, tenant, &format!("DELETE FROM {table} WHERE {key} = '{b}'")).await;
            expect(&format!("{who} deletes"), delete, &untouched);
            expect(&format!("{who} inserts"), attempt(&mut app, tenant, &insert).await, &[Ended::Refused]);
        }
        expect("nobody reads all", attempt(&mut app, None, &format!("SELECT * FROM {table}")).await, &[Ended::Rows(0)]);
        expect(
            "nobody updates all",
            attempt(&mut app, None, &format!("UPDATE {table} SET {key} = {key}")).await,
            &untouched,
        );
        expect("nobody deletes all", attempt(&mut app, None, &format!("DELETE FROM {table}")).await, &untouched);
        let give = attempt(&mut app, Some(a), &format!("UPDATE {table} SET {key} = '{b}' WHERE {key} = '{a}'")).await;
        expect("tenant A gives a row to B", give, &[Ended::Refused]);

        // And the counter-proof: these same statements work for the tenant itself.
        let own: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table} WHERE {key} = $1")))
            .bind(b)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        let own = Ended::Rows(own.unsigned_abs());
        expect("tenant B reads its own", attempt(&mut app, Some(b), &format!("SELECT * FROM {table}")).await, &[own]);
        let again = attempt(&mut app, Some(b), &insert).await;
        if !matches!(&again, Ended::Other(error) if error.contains("23505")) {
            leaks.push(format!("{table}: tenant B's own row is not refused as a duplicate: {again:?}"));
        }
    }
    leaks
}

#[tokio::test]
async fn no_row_of_another_tenant_is_seen_or_changed() {
    let world = World::new().await;
    assert_eq!(leaks(&world).await, Vec::<String>::new());
}

/// The attempts above are worth something only if they succeed where the protection is gone.
#[tokio::test]
async fn without_the_protection_they_are() {
    for (sabotage, leak) in [
        ("ALTER TABLE pbxes DISABLE ROW LEVEL SECURITY", "pbxes: nobody reads"),
        ("ALTER POLICY tenant ON blocked_ips USING (true)", "blocked_ips: tenant A reads"),
        ("ALTER POLICY tenant ON allowed_ips WITH CHECK (true)", "allowed_ips: tenant A inserts"),
        ("CREATE POLICY open ON audit USING (true)", "audit: nobody reads all"),
    ] {
        let world = World::new().await;
        let mut admin = connect(&world.db.admin_url).await;
        sqlx::raw_sql(sabotage).execute(&mut admin).await.unwrap();
        let leaks = leaks(&world).await;
        assert!(leaks.iter().any(|found| found.starts_with(leak)), "{sabotage}: {leaks:?}");
    }
}

#[tokio::test]
async fn a_tenant_that_is_no_uuid_is_an_error_not_everything() {
    let world = World::new().await;
    let mut app = connect(&world.db.app_url).await;
    for setting in ["", "NULL", "' OR true --", "00000000-0000-0000-0000-00000000000"] {
        sqlx::raw_sql("BEGIN").execute(&mut app).await.unwrap();
        sqlx::query("SELECT set_config('ringfence.tenant_id', $1, true)")
            .bind(setting)
            .execute(&mut app)
            .await
            .unwrap();
        let seen = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pbxes").fetch_one(&mut app).await;
        assert!(seen.as_ref().map_or(true, |count| *count == 0), "{setting:?}: {seen:?}");
        sqlx::raw_sql("ROLLBACK").execute(&mut app).await.unwrap();
    }
}

/// The tenant belongs to the transaction: the connection goes back to the pool without it.
#[tokio::test]
async fn the_next_transaction_begins_without_a_tenant() {
    let world = World::new().await;
    for _ in 0..8 {
        let mut tx = world.tx(world.a).await;
        assert_eq!(store::pbxes::list(&mut tx, crate::world::NOW).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
        let mut tx = world.db.store.person(policy::ids::UserId(Uuid::nil())).await.unwrap();
        assert!(store::people::memberships(&mut tx, world.a.user).await.unwrap().is_empty());
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn the_jobs_role_reads_what_is_due_and_nothing_else() {
    let world = World::new().await;
    let mut admin = connect(&world.db.admin_url).await;
    let mut system = connect(&world.db.system_url).await;
    let tables = sqlx::query_scalar::<_, String>(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    );
    for table in tables.fetch_all(&mut admin).await.unwrap() {
        for sql in [
            format!("SELECT * FROM {table}"),
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            assert_eq!(attempt(&mut system, Some(world.a.id.0), &sql).await, Ended::Refused, "{sql}");
        }
    }
    assert_eq!(attempt(&mut system, None, "SELECT reason FROM blocked_ips").await, Ended::Refused);
    assert_eq!(
        attempt(&mut system, None, "SELECT tenant_id, expires_at, ended_at FROM blocked_ips").await,
        Ended::Rows(2)
    );
}

#[tokio::test]
async fn a_role_that_could_bypass_row_security_is_refused() {
    let world = World::new().await;
    let refused = store::Store::connect(&world.db.admin_url, &world.db.system_url, 1).await.unwrap_err();
    assert!(matches!(refused, store::StoreError::UnsafeRole(_)), "{refused}");
    let owner = world.db.app_url.replace("ringfence_app", "ringfence_owner");
    assert!(matches!(
        store::Store::connect(&owner, &world.db.system_url, 1).await,
        Err(store::StoreError::UnsafeRole(_))
    ));
}

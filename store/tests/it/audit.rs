//! The audit log: rows come back as they were hashed, writers queue up, nobody changes one.

use policy::audit::{AuditFilter, ChainCheck, Outcome};
use store::audit::NewAuditRow;

use crate::world::{NOW, World, audit_row, connect};

#[tokio::test]
async fn what_is_read_is_what_was_hashed() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let odd = NewAuditRow {
        at: NOW.replace_nanosecond(123_456_789).unwrap(),
        details: r#"{"b": 1,  "a": "é\u0000 \" '"}"#.to_owned(),
        ..audit_row("“quoted” 😀")
    };
    store::audit::append(&mut tx, vec![odd]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.tx(world.a).await;
    let rows = store::audit::chain(&mut tx, 0, 10).await.unwrap();
    let mut check = ChainCheck::default();
    for row in &rows {
        check.check(row).unwrap();
    }
    assert_eq!(Some(check.finish()), store::audit::head(&mut tx).await.unwrap());
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn writers_at_the_same_time_make_one_chain() {
    let world = World::new().await;
    let writers = (0..20).map(|n| {
        let store = world.db.store.clone();
        let tenant = world.a.id;
        tokio::spawn(async move {
            let mut tx = store.tenant(tenant).await.unwrap();
            store::audit::append(&mut tx, vec![audit_row(&format!("writer {n}"))]).await.unwrap();
            tx.commit().await.unwrap();
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut tx = world.tx(world.a).await;
    let mut check = ChainCheck::default();
    for row in store::audit::chain(&mut tx, 0, 100).await.unwrap() {
        check.check(&row).unwrap();
    }
    assert_eq!(check.finish().0, 21);
}

#[tokio::test]
async fn filters() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    let refused = NewAuditRow { outcome: Outcome::Refused, action: "blocked_ips/block", ..audit_row("100%_sure") };
    store::audit::append(&mut tx, vec![refused]).await.unwrap();
    let find = async |tx: &mut store::TenantTx, filter: AuditFilter| -> Vec<i64> {
        let rows = store::audit::list(tx, &filter, None, 10).await.unwrap();
        assert_eq!(store::audit::count(tx, &filter).await.unwrap(), i64::try_from(rows.len()).unwrap());
        rows.into_iter().map(|row| row.seq).collect()
    };
    let search = |text: &str| AuditFilter { search: text.to_owned(), ..AuditFilter::default() };
    assert_eq!(find(&mut tx, AuditFilter::default()).await, [2, 1]);
    assert_eq!(find(&mut tx, search("ANN@")).await, [2, 1]);
    assert_eq!(find(&mut tx, search("%_s")).await, [2]);
    assert_eq!(find(&mut tx, search("' OR true")).await, Vec::<i64>::new());
    assert_eq!(find(&mut tx, AuditFilter { action: "blocked_ips/".to_owned(), ..AuditFilter::default() }).await, [2]);
    assert_eq!(find(&mut tx, AuditFilter { outcome: Some(Outcome::Done), ..AuditFilter::default() }).await, [1]);
    assert_eq!(store::audit::list(&mut tx, &AuditFilter::default(), Some(2), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_application_can_neither_change_nor_delete_a_row() {
    let world = World::new().await;
    let mut app = connect(&world.db.app_url).await;
    sqlx::query("SELECT set_config('ringfence.tenant_id', $1, false)")
        .bind(world.a.id.to_string())
        .execute(&mut app)
        .await
        .unwrap();
    for sql in [
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM audit_heads",
        "DROP TABLE audit",
    ] {
        let error = sqlx::raw_sql(sql).execute(&mut app).await.unwrap_err();
        assert_eq!(
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
            Some("42501"),
            "{sql}"
        );
    }
}

#[tokio::test]
async fn another_tenant_reads_its_own_chain() {
    let world = World::new().await;
    let mut tx = world.tx(world.a).await;
    store::audit::append(&mut tx, vec![audit_row("only A's")]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.tx(world.b).await;
    assert_eq!(store::audit::list(&mut tx, &AuditFilter::default(), None, 10).await.unwrap().len(), 1);
    assert_eq!(store::audit::head(&mut tx).await.unwrap().map(|head| head.0), Some(1));
}

//! The audit log after a life of work: whole, and any hand in the database shows.

use policy::audit::{AuditFilter, Outcome};
use sqlx::AssertSqlSafe;

use crate::portal::Portal;

#[tokio::test]
async fn a_chain_holds_until_somebody_changes_a_row() {
    let portal = Portal::new().await;
    let (ours, theirs) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    for n in 0..5 {
        portal.block(&ours, &format!("192.0.2.{n}")).await.unwrap();
        portal.block(&ours, "nonsense").await.unwrap_err();
        portal.block(&theirs, &format!("192.0.2.{n}")).await.unwrap();
    }
    for (_, verdict) in actions::audit::verify_all(&portal.ctx).await.unwrap() {
        assert_eq!(verdict.broken, None);
    }
    let whole = actions::audit::verify(&portal.ctx, &ours).await.unwrap();
    assert_eq!(whole.rows, portal.audit_rows(&ours).await);

    let mut admin = portal.admin().await;
    let tenant = ours.tenant_id;
    for sabotage in [
        "UPDATE audit SET actor = 'nobody' WHERE tenant_id = 'TENANT' AND seq = 4",
        "UPDATE audit SET at = at + interval '1 microsecond' WHERE tenant_id = 'TENANT' AND seq = 1",
        "UPDATE audit SET outcome = 'done' WHERE tenant_id = 'TENANT' AND outcome = 'refused' AND seq = (SELECT max(seq) FROM audit WHERE tenant_id = 'TENANT' AND outcome = 'refused')",
        "DELETE FROM audit WHERE tenant_id = 'TENANT' AND seq = 4",
        "DELETE FROM audit WHERE tenant_id = 'TENANT' AND seq = (SELECT max(seq) FROM audit WHERE tenant_id = 'TENANT')",
        "DELETE FROM audit WHERE tenant_id = 'TENANT'",
        "UPDATE audit SET seq = -seq WHERE tenant_id = 'TENANT' AND seq = 4",
        "UPDATE audit_heads SET seq = seq - 1 WHERE tenant_id = 'TENANT'",
        "UPDATE audit_heads SET hash = '\\x00' WHERE tenant_id = 'TENANT'",
        "INSERT INTO audit SELECT tenant_id, gen_random_uuid(), seq + 1000, at, actor, action, outcome, subject, details, source, previous_hash, hash FROM audit WHERE tenant_id = 'TENANT' AND seq = 4",
        "INSERT INTO audit SELECT tenant_id, gen_random_uuid(), -1, at, actor, action, outcome, subject, details, source, previous_hash, hash FROM audit WHERE tenant_id = 'TENANT' AND seq = 4",
        // The end cut off, as if it had never been: only the head knows better.
        "UPDATE audit_heads SET (seq, hash) = (SELECT seq, hash FROM audit WHERE tenant_id = 'TENANT' AND seq = 4) WHERE tenant_id = 'TENANT'",
    ] {
        let keep = "CREATE TABLE kept AS SELECT * FROM audit; CREATE TABLE kept_heads AS SELECT * FROM audit_heads";
        let restore = "DELETE FROM audit; DELETE FROM audit_heads; INSERT INTO audit SELECT * FROM kept; INSERT INTO audit_heads SELECT * FROM kept_heads;
                       DROP TABLE kept; DROP TABLE kept_heads";
        sqlx::raw_sql(keep).execute(&mut admin).await.unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(sabotage.replace("TENANT", &tenant.to_string())))
            .execute(&mut admin)
            .await
            .unwrap();
        assert!(done.rows_affected() > 0, "{sabotage}");
        let verdict = actions::audit::verify(&portal.ctx, &ours).await.unwrap();
        assert!(verdict.broken.is_some(), "{sabotage}");
        assert_eq!(
            actions::audit::verify(&portal.ctx, &theirs).await.unwrap().broken,
            None,
            "another tenant's chain is its own"
        );
        sqlx::raw_sql(restore).execute(&mut admin).await.unwrap();
        assert_eq!(actions::audit::verify(&portal.ctx, &ours).await.unwrap().broken, None);
    }
}

#[tokio::test]
async fn pages_and_filters() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for n in 0..60 {
        portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
    }
    portal.block(&caller, "nonsense").await.unwrap_err();
    let (mut seqs, mut after) = (Vec::new(), None);
    loop {
        let page = actions::audit::list(&portal.ctx, &caller, AuditFilter::default(), after).await.unwrap();
        seqs.extend(page.rows.iter().map(|row| row.seq));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(seqs.windows(2).all(|pair| pair[0] == pair[1] + 1) && seqs.last() == Some(&1), "{seqs:?}");
    let find = async |search: &str, action: &str, outcome| {
        let filter = AuditFilter { search: search.to_owned(), action: action.to_owned(), outcome };
        actions::audit::list(&portal.ctx, &caller, filter, None).await.unwrap().total
    };
    assert_eq!(find("", "blocked_ips/", Some(Outcome::Done)).await, 60);
    assert_eq!(find("", "blocked_ips/", Some(Outcome::Refused)).await, 1);
    assert_eq!(find("192.0.2.59", "", None).await, 1);
    assert_eq!(find(&"x".repeat(5_000), "", None).await, 0);
    for nonsense in ["", "x", "-1", "99999999999999999999"] {
        actions::audit::list(&portal.ctx, &caller, AuditFilter::default(), Some(nonsense.to_owned())).await.unwrap();
    }
}

/// Reading leaves no rows; asking for what isn't there does where it would have changed something.
#[tokio::test]
async fn reading_is_not_written_down() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let before = portal.audit_rows(&caller).await;
    portal.blocked(&caller).await;
    portal.allowed(&caller).await;
    actions::pbxes::list(&portal.ctx, &caller).await.unwrap();
    actions::overview::show(&portal.ctx, &caller).await.unwrap();
    actions::allowed_ips::export(&portal.ctx, &caller).await.unwrap();
    let nobody = policy::ids::BanId(uuid::Uuid::nil());
    assert!(actions::blocked_ips::show(&portal.ctx, &caller, nobody).await.is_err());
    assert_eq!(portal.audit_rows(&caller).await, before);
    assert!(actions::blocked_ips::unblock(&portal.ctx, &caller, vec![nobody]).await.is_err());
    assert_eq!(portal.audit_rows(&caller).await, before + 1);
}

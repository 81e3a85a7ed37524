//! What runs by itself: a tenant for which it fails holds up no other, and a mail is sent by one node.

use actions::mail::Mailer;
use actions::{Caller, jobs};
use policy::ids::TenantId;
use sqlx::AssertSqlSafe;
use store::rollups::Count;
use time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::portal::Portal;

/// From here on no ban of the tenant can be ended, and no old figure of it cleared away.
async fn break_tenant(portal: &Portal, tenant: TenantId) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF OLD.tenant_id = '{tenant}' THEN RAISE 'broken'; END IF;
             RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
         END $$;
         CREATE OR REPLACE TRIGGER broken BEFORE UPDATE ON blocked_ips FOR EACH ROW EXECUTE FUNCTION broken();
         CREATE OR REPLACE TRIGGER broken BEFORE DELETE ON attack_rollups FOR EACH ROW EXECUTE FUNCTION broken();"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut portal.admin().await).await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_fails_holds_up_no_other() {
    let portal = Portal::new().await;
    let (one, other) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    let agents = [portal.agent(&one, "hq").await, portal.agent(&other, "hq").await];
    // Each in turn, since nobody says which comes first.
    for (broken, whole) in [(&one, &other), (&other, &one)] {
        for (caller, agent) in [&one, &other].into_iter().zip(&agents) {
            portal.block(caller, &format!("192.0.2.{}", portal.blocked(caller).await.len())).await.unwrap();
            old_figure(&portal, caller, agent).await;
        }
        break_tenant(&portal, broken.tenant_id).await;
        portal.advance(Duration::HOUR);
        jobs::expire(&portal.ctx).await.unwrap();
        assert_eq!((portal.blocked(whole).await.len(), portal.blocked(broken).await.len()), (0, 1));
        jobs::sweep(&portal.ctx).await.unwrap();
        assert_eq!((old_figures(&portal, whole).await, old_figures(&portal, broken).await), (0, 1));
    }
}

async fn old_figure(portal: &Portal, caller: &Caller, agent: &actions::agents::Agent) {
    let mut tx = portal.db.store.tenant(caller.tenant_id).await.unwrap();
    let at = portal.ctx.now() - Duration::days(100);
    if store::rollups::attempts_since(&mut tx, at).await.unwrap() == 0 {
        let count = Count { pbx_id: agent.pbx_id, at: at + Duration::HOUR, attempts: 1, bans: 0 };
        store::rollups::add(&mut tx, &[count]).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn old_figures(portal: &Portal, caller: &Caller) -> i64 {
    let mut tx = portal.db.store.tenant(caller.tenant_id).await.unwrap();
    store::rollups::attempts_since(&mut tx, portal.ctx.now() - Duration::days(200)).await.unwrap()
}

#[tokio::test]
async fn many_bans_end_in_transactions_of_a_thousand() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.fill_with_bans(&caller, 2_500).await;
    portal.advance(Duration::days(400));
    jobs::expire(&portal.ctx).await.unwrap();
    assert!(portal.blocked(&caller).await.is_empty());
    let transactions: i64 = sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM blocked_ips")
        .fetch_one(&mut portal.admin().await)
        .await
        .unwrap();
    assert_eq!(transactions, 3);
}

/// A node that has many mails to send one after another holds only the one that it is at.
#[tokio::test]
async fn a_mail_is_taken_right_before_it_is_sent() {
    let portal = Portal::new().await;
    let store = portal.ctx.store().clone();
    let now = portal.ctx.now();
    let mut tx = store.platform().await.unwrap();
    for name in ["ann", "bob"] {
        store::mails::insert(&mut tx, &format!("{name}@acme.example"), "Hello", "text", now).await.unwrap();
    }
    tx.commit().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mailer = Mailer::new(&format!("smtp://{}", listener.local_addr().unwrap()), "noreply@acme.example").unwrap();
    let (arrived, arrival) = oneshot::channel();
    let (go_on, gone_on) = oneshot::channel();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        arrived.send(()).unwrap();
        gone_on.await.unwrap();
        take_mail(stream).await;
    };
    let other_node = async {
        arrival.await.unwrap();
        let taken = store::mails::take_due(&store, now, now + Duration::MINUTE).await.unwrap();
        assert!(taken.is_some(), "the second mail, while the first is being sent");
        go_on.send(()).unwrap();
    };
    let (delivered, (), ()) = tokio::join!(jobs::deliver_mail(&portal.ctx, &mailer), server, other_node);
    delivered.unwrap();
    assert_eq!(
        store::mails::newest(&store, 5).await.unwrap().len(),
        1,
        "one is sent, the other one is the other node's"
    );
}

/// An SMTP server (RFC 5321) that takes one mail.
async fn take_mail(stream: TcpStream) {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading).lines();
    writing.write_all(b"220 mail.example\r\n").await.unwrap();
    let mut in_text = false;
    while let Ok(Some(line)) = lines.next_line().await {
        if in_text && line != "." {
            continue;
        }
        let answer: &[u8] = if line == "DATA" { b"354 go on\r\n" } else { b"250 fine\r\n" };
        writing.write_all(answer).await.unwrap();
        if in_text {
            return;
        }
        in_text = line == "DATA";
    }
}

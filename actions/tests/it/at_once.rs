//! Actions of one tenant at the same time: all of them come to an end, none because PostgreSQL broke a circle of waits.

use actions::{ActError, allowed_ips, jobs, pbxes};
use time::Duration;

use crate::portal::Portal;

#[tokio::test]
async fn changes_of_bans_and_changes_without_bans() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let bans = async {
        for n in 0..100 {
            portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
        }
    };
    // They write in no list of the tenant before they come to its audit log.
    let pbx = pbxes::add(&portal.ctx, &caller, "hq".to_owned()).await.unwrap().pbx_id;
    let renames = async {
        for n in 0..100 {
            pbxes::rename(&portal.ctx, &caller, pbx, format!("hq {n}")).await.unwrap();
        }
    };
    tokio::join!(bans, renames);
    assert_eq!(actions::audit::verify(&portal.ctx, &caller).await.unwrap().broken, None);
}

#[tokio::test]
async fn two_that_allow_and_lift_bans() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for n in 0..80 {
        portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
    }
    let allow = async |from: u8| {
        for n in from..from + 40 {
            assert_eq!(portal.allow(&caller, &format!("192.0.2.{n}")).await.unwrap().lifted_bans, 1);
        }
    };
    tokio::join!(allow(0), allow(40));
    assert!(portal.blocked(&caller).await.is_empty());
}

/// What one has added and the other is about to add makes the other wait; it may then hold nothing that the first one needs.
#[tokio::test]
async fn files_with_the_same_rows_in_another_order_while_entries_end() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for round in 0..10 {
        for n in [0, 19] {
            portal.block(&caller, &format!("10.0.{round}.{n}")).await.unwrap();
        }
        let soon = portal.ctx.now() + Duration::MINUTE;
        let soon = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
        let rows: Vec<String> = (0..20).map(|n| format!("10.0.{round}.{n},row,{soon}")).collect();
        let import = async |rows: Vec<String>| -> Result<i64, ActError> {
            let csv = format!("target,note,expires_at\n{}\n", rows.join("\n"));
            Ok(allowed_ips::import(&portal.ctx, &caller, csv).await?.added)
        };
        let backwards = rows.iter().rev().cloned().collect();
        let (one, other, ended) = tokio::join!(import(rows), import(backwards), jobs::expire(&portal.ctx));
        assert_eq!(one.unwrap() + other.unwrap(), 20);
        ended.unwrap();
        portal.advance(Duration::MINUTE);
    }
}

//! Allowed IPs: what is refused and why, what adding one lifts, files all or nothing, ends by themselves.

use actions::{ActError, Caller, allowed_ips, blocked_ips, jobs};
use policy::allowed_ips::AllowedIpForm;
use policy::audit::Outcome;
use policy::blocked_ips::BlockedIpForm;
use time::Duration;

use crate::portal::{Portal, address, field_error};

fn form(target: &str, expires_at: &str) -> AllowedIpForm {
    AllowedIpForm { target: target.to_owned(), note: "Office".to_owned(), expires_at: expires_at.to_owned() }
}

#[tokio::test]
async fn refused_with_the_reason_and_written_down() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.allow(&caller, "203.0.113.0/24").await.unwrap();
    for (target, reason) in [
        ("203.0.113.9", "by 203.0.113.0/24 (Office)"),
        ("203.0.113.0/24", "by 203.0.113.0/24 (Office)"),
        ("::ffff:203.0.113.9", "by 203.0.113.0/24"),
        ("0.0.0.0/0", "/0"),
        ("::/0", "/0"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("224.0.0.5", "multicast"),
        ("ff02::1", "multicast"),
        ("office", "not an IPv4 or IPv6 address"),
        ("not a thing; DROP TABLE users", "not"),
    ] {
        let sentence = field_error(portal.allow(&caller, target).await, "target");
        assert!(sentence.contains(reason) || target == "office", "{target}: {sentence}");
        let row = portal.assert_audited(&caller, "allowed_ips/add", Outcome::Refused).await;
        assert!(row.details.contains("refused"), "{row:?}");
    }
    assert_eq!(portal.allowed(&caller).await, ["203.0.113.0/24"]);
}

#[tokio::test]
async fn a_very_wide_network_needs_insisting() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for wide in ["10.0.0.0/15", "2001:db8::/31"] {
        assert!(matches!(portal.allow(&caller, wide).await, Err(ActError::NeedsInsisting(_))));
        allowed_ips::add(&portal.ctx, &caller, form(wide, ""), true).await.unwrap();
    }
    portal.allow(&caller, "172.16.0.0/16").await.unwrap();
    assert_eq!(portal.allowed(&caller).await.len(), 3);
}

#[tokio::test]
async fn adding_lifts_the_bans_inside_and_says_how_many() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    for net in ["198.51.100.1", "198.51.100.2", "198.51.100.0/28", "198.51.0.0/16", "203.0.113.1", "2001:db8::1"] {
        portal.block(&caller, net).await.unwrap();
    }
    let before = actions::agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().revision;
    let added = portal.allow(&caller, "198.51.100.0/24").await.unwrap();
    assert_eq!((added.added, added.lifted_bans), (1, 3));
    // A wider ban stays: allowed wins over it at the PBX.
    assert_eq!(portal.blocked(&caller).await, ["198.51.0.0/16", "2001:db8::1", "203.0.113.1"]);
    assert_eq!(actions::agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().revision, before + 1);
    let row = portal.assert_audited(&caller, "allowed_ips/add", Outcome::Done).await;
    assert!(row.details.contains("\"lifted_bans\":3"), "{}", row.details);

    // So does changing one.
    let edited = allowed_ips::edit(&portal.ctx, &caller, added.id, form("2001:db8::/64", ""), false).await.unwrap();
    assert_eq!(edited.lifted_bans, 1);
    assert_eq!(portal.allowed(&caller).await, ["2001:db8::/64"]);
}

#[tokio::test]
async fn domains_search_edit_delete() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let id = portal.allow(&caller, "Sip.Provider.example").await.unwrap().id;
    portal.allow(&caller, "203.0.113.0/24").await.unwrap();
    for (search, found) in [
        ("provider", 1),
        ("203.0.113", 1),
        ("203.0.113.7", 1),
        ("203.0", 1),
        ("office", 2),
        ("198.51.100.7", 0),
        ("%", 0),
        ("", 2),
    ] {
        let page = allowed_ips::list(&portal.ctx, &caller, search.to_owned(), None).await.unwrap();
        assert_eq!((page.rows.len(), page.total), (found, i64::try_from(found).unwrap()), "{search}");
    }
    assert!(
        field_error(allowed_ips::edit(&portal.ctx, &caller, id, form("203.0.113.7", ""), false).await, "target")
            .contains("203.0.113.0/24")
    );
    allowed_ips::edit(&portal.ctx, &caller, id, form("sip.provider.example", "2030-01-02T00:00:00Z"), false)
        .await
        .unwrap();
    assert_eq!(allowed_ips::delete(&portal.ctx, &caller, vec![id], false).await.unwrap(), 1);
    assert!(matches!(allowed_ips::delete(&portal.ctx, &caller, vec![id], false).await, Err(ActError::NotFound)));
    portal.assert_audited(&caller, "allowed_ips/delete", Outcome::Refused).await;
}

#[tokio::test]
async fn you_are_here() {
    let portal = Portal::new().await;
    let caller = Caller { address: address("::ffff:203.0.113.50"), ..portal.tenant("acme").await };
    allowed_ips::allow_my_address(&portal.ctx, &caller).await.unwrap();
    assert_eq!(portal.allowed(&caller).await, ["203.0.113.50"]);
    field_error(allowed_ips::allow_my_address(&portal.ctx, &caller).await, "target");
    let local = Caller { address: address("127.0.0.1"), ..caller };
    field_error(allowed_ips::allow_my_address(&portal.ctx, &local).await, "target");
}

#[tokio::test]
async fn entries_end_by_themselves() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let agent = portal.agent(&caller, "hq").await;
    allowed_ips::add(&portal.ctx, &caller, form("203.0.113.9", "2030-01-01T13:00:00Z"), false).await.unwrap();
    // One that lasts longer is not covered by it; the same one again is.
    field_error(allowed_ips::add(&portal.ctx, &caller, form("203.0.113.9", ""), false).await, "target");
    let before = actions::agents::policy(&portal.ctx, agent.tenant_id).await.unwrap();
    assert_eq!(before.allowed.len(), 1);
    portal.advance(Duration::HOUR);
    assert!(
        actions::agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().allowed.is_empty(),
        "gone before any job ran"
    );
    jobs::expire(&portal.ctx).await.unwrap();
    assert!(portal.allowed(&caller).await.is_empty());
    let row = portal.assert_audited(&caller, "allowed_ips/delete", Outcome::Done).await;
    assert_eq!((row.actor.as_str(), row.subject.as_str()), ("system", "203.0.113.9"));
    assert_eq!(actions::agents::policy(&portal.ctx, agent.tenant_id).await.unwrap().revision, before.revision + 1);
    let rows = portal.audit_rows(&caller).await;
    jobs::expire(&portal.ctx).await.unwrap();
    assert_eq!(portal.audit_rows(&caller).await, rows, "nothing due, nothing written");
}

#[tokio::test]
async fn a_file_is_taken_whole_or_not_at_all() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.allow(&caller, "203.0.113.0/24").await.unwrap();
    portal.block(&caller, "192.0.2.1").await.unwrap();
    let bad = "target,note\n192.0.2.1,a\nnonsense,b\n10.0.0.0/8,c\n";
    let Err(ActError::Invalid(errors)) = allowed_ips::import(&portal.ctx, &caller, bad.to_owned()).await else {
        panic!("taken")
    };
    assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["line 3"]);
    let Err(ActError::Invalid(errors)) =
        allowed_ips::import(&portal.ctx, &caller, bad.replace("nonsense", "192.0.2.2")).await
    else {
        panic!("taken")
    };
    assert_eq!(
        errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(),
        ["line 4"],
        "wider than a file may allow"
    );
    portal.assert_audited(&caller, "allowed_ips/import", Outcome::Refused).await;
    assert_eq!(portal.allowed(&caller).await.len(), 1);

    let good = "target,note\n192.0.2.0/28,a\n192.0.2.1,covered by the row before\n203.0.113.7,covered before\nsip.example.com,d\n";
    let added = allowed_ips::import(&portal.ctx, &caller, good.to_owned()).await.unwrap();
    assert_eq!((added.added, added.skipped, added.lifted_bans), (2, 2, 1));
    let again = allowed_ips::import(&portal.ctx, &caller, allowed_ips::export(&portal.ctx, &caller).await.unwrap())
        .await
        .unwrap();
    assert_eq!((again.added, again.skipped), (0, 3), "what is written out is known when it comes back");
}

#[tokio::test]
async fn a_row_of_a_file_makes_the_entry_of_its_target_last_as_long() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    allowed_ips::add(&portal.ctx, &caller, form("203.0.113.9", "2030-01-01T13:00:00Z"), false).await.unwrap();
    let import = async |ends: &str| {
        let csv = format!("target,note,expires_at\n203.0.113.9,file,{ends}\n");
        let added = allowed_ips::import(&portal.ctx, &caller, csv).await.unwrap();
        (added.added, added.skipped)
    };
    assert_eq!(import("2030-01-01T12:30:00Z").await, (0, 1), "it lasts longer as it is");
    assert_eq!(import("2030-01-02T12:00:00Z").await, (1, 0));
    assert_eq!(import("").await, (1, 0));
    let row = portal.assert_audited(&caller, "allowed_ips/import", Outcome::Done).await;
    assert!(row.details.contains("\"lengthened\":1"), "{}", row.details);
    assert_eq!(import("2030-01-02T12:00:00Z").await, (0, 1), "forever is longer");
    portal.advance(Duration::days(2));
    jobs::expire(&portal.ctx).await.unwrap();
    assert_eq!(portal.allowed(&caller).await, ["203.0.113.9"]);
}

/// The administrator is at 203.0.113.50.
#[tokio::test]
async fn who_would_cut_himself_off_is_asked() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let id = portal.allow(&caller, "203.0.113.50").await.unwrap().id;
    let delete = async |insist: bool| allowed_ips::delete(ctx, &caller, vec![id], insist).await;
    let edit = async |target: &str, insist: bool| allowed_ips::edit(ctx, &caller, id, form(target, ""), insist).await;

    let block = BlockedIpForm { net: "203.0.113.0/24".to_owned(), duration: "3600".to_owned(), reason: String::new() };
    blocked_ips::block(ctx, &caller, block, true).await.unwrap();
    for warning in [delete(false).await.map(drop), edit("198.51.100.7", false).await.map(drop)] {
        let Err(ActError::NeedsInsisting(warning)) = warning else { panic!("{warning:?}") };
        assert!(warning.contains("203.0.113.50") && warning.contains("203.0.113.0/24"), "{warning}");
    }
    assert_eq!(portal.allowed(&caller).await, ["203.0.113.50"]);
    let Err(ActError::NeedsInsisting(both)) = edit("10.0.0.0/8", false).await else { panic!("changed") };
    assert!(both.contains("/16") && both.contains("203.0.113.50"), "{both}");

    // Shielded by another entry, it is cut off by nothing; nor where it wasn't shielded before.
    let wider = portal.allow(&caller, "203.0.113.48/29").await.unwrap().id;
    edit("198.51.100.7", false).await.unwrap();
    assert!(matches!(
        allowed_ips::delete(ctx, &caller, vec![id, wider], false).await,
        Err(ActError::NeedsInsisting(_))
    ));
    assert_eq!(delete(false).await.unwrap(), 1);
    assert_eq!(allowed_ips::delete(ctx, &caller, vec![wider], true).await.unwrap(), 1);
    let elsewhere = portal.allow(&caller, "198.51.100.8").await.unwrap().id;
    assert_eq!(allowed_ips::delete(ctx, &caller, vec![elsewhere], false).await.unwrap(), 1);
}

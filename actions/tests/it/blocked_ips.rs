//! Blocked IPs: by hand, unblocked one, many and all of a filter, paged, searched.

use actions::{ActError, Caller, allowed_ips, blocked_ips, jobs};
use policy::allowed_ips::AllowedIpForm;
use policy::audit::Outcome;
use policy::blocked_ips::{BanSource, BlockedIpFilter, BlockedIpForm};
use time::Duration;

use crate::portal::{Portal, address};

fn form(net: &str, duration: &str) -> BlockedIpForm {
    BlockedIpForm { net: net.to_owned(), duration: duration.to_owned(), reason: "scans".to_owned() }
}

fn search(text: &str) -> BlockedIpFilter {
    BlockedIpFilter { search: text.to_owned(), ..BlockedIpFilter::default() }
}

#[tokio::test]
async fn an_allowed_address_or_ones_own_needs_insisting() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.allow(&caller, "198.51.100.0/24").await.unwrap();
    for (net, why) in [
        ("198.51.100.7", "in Allowed IPs"),
        ("198.51.0.0/16", "This covers 198.51.100.0/24"),
        ("203.0.113.50", "You are at 203.0.113.50"),
        ("203.0.113.0/24", "You are at"),
    ] {
        let Err(ActError::NeedsInsisting(warning)) = portal.block(&caller, net).await else {
            panic!("{net} was blocked")
        };
        assert!(warning.contains(why), "{warning}");
        portal.assert_audited(&caller, "blocked_ips/block", Outcome::Refused).await;
        blocked_ips::block(&portal.ctx, &caller, form(net, "60"), true).await.unwrap();
        portal.assert_audited(&caller, "blocked_ips/block", Outcome::Done).await;
    }
    let mapped = Caller { address: address("::ffff:192.0.2.9"), ..caller };
    assert!(matches!(portal.block(&mapped, "192.0.2.9").await, Err(ActError::NeedsInsisting(_))));
}

#[tokio::test]
async fn wrong_fields_change_nothing() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for (net, duration) in [
        ("0.0.0.0/0", "60"),
        ("127.0.0.1", "60"),
        ("nonsense", "60"),
        ("192.0.2.1", "0"),
        ("192.0.2.1", ""),
        ("😀", "😀"),
    ] {
        let error = blocked_ips::block(&portal.ctx, &caller, form(net, duration), true).await.unwrap_err();
        assert!(matches!(error, ActError::Invalid(_)), "{net} {duration}: {error:?}");
        portal.assert_audited(&caller, "blocked_ips/block", Outcome::Refused).await;
    }
    assert!(portal.blocked(&caller).await.is_empty());
}

#[tokio::test]
async fn blocking_again_replaces_and_the_earlier_ban_is_history() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let first = portal.block(&caller, "192.0.2.1").await.unwrap();
    portal.advance(Duration::MINUTE);
    let again = blocked_ips::block(&portal.ctx, &caller, form("192.0.2.1", "permanent"), false).await.unwrap();
    assert!(again.replaced && again.id != first);
    let details = blocked_ips::show(&portal.ctx, &caller, again.id).await.unwrap();
    assert_eq!((details.ban.times_banned, details.ban.expires_at, details.ban.source), (2, None, BanSource::Manual));
    assert_eq!(details.earlier.iter().map(|ban| ban.id).collect::<Vec<_>>(), [first]);
    assert_eq!(portal.blocked(&caller).await, ["192.0.2.1"]);
    assert!(matches!(blocked_ips::unblock(&portal.ctx, &caller, vec![first]).await, Err(ActError::NotFound)));
}

#[tokio::test]
async fn unblock_one_many_all_of_a_filter_and_allow() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let mut ids = Vec::new();
    for n in 1..=8 {
        ids.push(portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap());
    }
    assert_eq!(blocked_ips::unblock(ctx, &caller, vec![ids[0]]).await.unwrap(), 1);
    assert_eq!(blocked_ips::unblock(ctx, &caller, vec![ids[0], ids[1], ids[2]]).await.unwrap(), 2);
    let row = portal.assert_audited(&caller, "blocked_ips/unblock", Outcome::Done).await;
    assert!(row.subject.ends_with("and 1 more") && row.details.contains("192.0.2.3"), "{row:?}");
    assert_eq!(blocked_ips::unblock_matching(ctx, &caller, search("192.0.2.4/31")).await.unwrap(), 2);
    portal.assert_audited(&caller, "blocked_ips/unblock_matching", Outcome::Done).await;
    assert_eq!(blocked_ips::unblock_matching(ctx, &caller, search("nobody")).await.unwrap(), 0);
    assert_eq!(portal.blocked(&caller).await, ["192.0.2.6", "192.0.2.7", "192.0.2.8"]);

    portal.allow(&caller, "192.0.2.9").await.unwrap();
    assert!(matches!(
        blocked_ips::unblock_and_allow(ctx, &caller, vec![ids[5]], "x".repeat(201)).await,
        Err(ActError::Invalid(_))
    ));
    assert_eq!(
        blocked_ips::unblock_and_allow(ctx, &caller, vec![ids[5], ids[6]], "trunk".to_owned()).await.unwrap(),
        2
    );
    assert_eq!(portal.blocked(&caller).await, ["192.0.2.8"]);
    let mut allowed = portal.allowed(&caller).await;
    allowed.sort_unstable();
    assert_eq!(allowed, ["192.0.2.6", "192.0.2.7", "192.0.2.9"]);
    assert!(matches!(portal.block(&caller, "192.0.2.6").await, Err(ActError::NeedsInsisting(_))));
}

/// For good is what the portal says; an entry that ends is made to last.
#[tokio::test]
async fn unblocked_and_allowed_for_good_lasts() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let entry = AllowedIpForm {
        target: "192.0.2.9".to_owned(),
        note: "trunk".to_owned(),
        expires_at: "2030-01-01T13:00:00Z".to_owned(),
    };
    allowed_ips::add(ctx, &caller, entry, false).await.unwrap();
    let id = blocked_ips::block(ctx, &caller, form("192.0.2.9", "permanent"), true).await.unwrap().id;
    assert_eq!(blocked_ips::unblock_and_allow(ctx, &caller, vec![id], "was blocked".to_owned()).await.unwrap(), 1);
    portal.advance(Duration::DAY);
    jobs::expire(ctx).await.unwrap();
    let page = allowed_ips::list(ctx, &caller, String::new(), None).await.unwrap();
    let kept: Vec<_> = page.rows.iter().map(|entry| (entry.note.as_str(), entry.expires_at)).collect();
    assert_eq!(kept, [("trunk", None)]);
}

#[tokio::test]
async fn more_bans_than_fit_into_one_transaction_are_all_exported_and_all_unblocked() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.fill_with_bans(&caller, 100_001).await;
    let csv = blocked_ips::export(&portal.ctx, &caller, BlockedIpFilter::default()).await.unwrap();
    assert_eq!(csv.lines().count(), 100_002);
    assert_eq!(csv.lines().filter(|line| line.starts_with("address,")).count(), 1);
    assert!(csv.ends_with('\n') && csv.contains("\n11.1.134.161,"), "the oldest, too");
    let before = portal.audit_rows(&caller).await;
    let ended = blocked_ips::unblock_matching(&portal.ctx, &caller, BlockedIpFilter::default()).await.unwrap();
    assert_eq!(ended, 100_001);
    assert!(portal.blocked(&caller).await.is_empty());
    let row = portal.assert_audited(&caller, "blocked_ips/unblock_matching", Outcome::Done).await;
    assert!(row.details.contains("\"count\":1,"), "{}", row.details);
    assert_eq!(portal.audit_rows(&caller).await, before + 11, "one for each batch");
}

/// A very wide network would be allowed without the warning that allowing it by hand gives.
#[tokio::test]
async fn a_very_wide_ban_is_not_turned_into_a_very_wide_allowance() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    assert!(matches!(portal.block(&caller, "10.0.0.0/8").await, Err(ActError::NeedsInsisting(_))), "asked first");
    let form = BlockedIpForm { net: "10.0.0.0/8".to_owned(), duration: "3600".to_owned(), reason: String::new() };
    let id = blocked_ips::block(&portal.ctx, &caller, form, true).await.unwrap().id;
    let refused = blocked_ips::unblock_and_allow(&portal.ctx, &caller, vec![id], String::new()).await.unwrap_err();
    assert!(matches!(refused, ActError::Refused(_)), "{refused:?}");
    assert_eq!(portal.blocked(&caller).await, ["10.0.0.0/8"]);
    portal.assert_audited(&caller, "blocked_ips/unblock_and_allow", Outcome::Refused).await;
}

#[tokio::test]
async fn bans_end_by_themselves() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    portal.block(&caller, "192.0.2.1").await.unwrap();
    blocked_ips::block(&portal.ctx, &caller, form("192.0.2.2", "permanent"), false).await.unwrap();
    portal.advance(Duration::seconds(3599));
    jobs::expire(&portal.ctx).await.unwrap();
    assert_eq!(portal.blocked(&caller).await.len(), 2);
    portal.advance(Duration::SECOND);
    jobs::expire(&portal.ctx).await.unwrap();
    assert_eq!(portal.blocked(&caller).await, ["192.0.2.2"]);
}

#[tokio::test]
async fn pages_have_no_gap_and_no_duplicate_while_bans_come() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for n in 0..120 {
        portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
        if n % 7 == 0 {
            portal.advance(Duration::SECOND);
        }
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = blocked_ips::list(&portal.ctx, &caller, BlockedIpFilter::default(), after).await.unwrap();
        assert_eq!(page.total, 120 + pages);
        seen.extend(page.rows.iter().map(|ban| ban.net.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
        // A ban that arrives meanwhile moves no page.
        portal.advance(Duration::SECOND);
        portal.block(&caller, &format!("198.51.100.{pages}")).await.unwrap();
    }
    assert_eq!((pages, seen.len()), (3, 120));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 120);
    for nonsense in ["", ".", "x.y", "99999999999999999999999999.0", "0.00000000000000000000000000000000", "-1.zzz"] {
        blocked_ips::list(&portal.ctx, &caller, BlockedIpFilter::default(), Some(nonsense.to_owned())).await.unwrap();
    }
}

#[tokio::test]
async fn searches_by_what_people_type() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    for net in ["192.0.2.1", "192.0.2.128/25", "192.0.0.0/16", "2001:db8::1", "2001:db8::/48"] {
        portal.block(&caller, net).await.unwrap();
    }
    let found = async |text: &str| -> usize {
        let page = blocked_ips::list(&portal.ctx, &caller, search(text), None).await.unwrap();
        assert_eq!(page.total, i64::try_from(page.rows.len()).unwrap(), "{text}");
        page.rows.len()
    };
    for (text, count) in [
        ("192.0.2.1", 2),
        ("192.0.2.200", 2),
        ("192.0.2.0/24", 3),
        ("192.0", 3),
        ("192.0.2.", 3),
        ("2001:db8::1", 2),
        ("2001:db8::/32", 2),
        ("SCANS", 5),
        ("zebra", 0),
        ("%", 0),
        ("' OR 1=1 --", 0),
        ("", 5),
        ("192.168.0.1", 0),
    ] {
        assert_eq!(found(text).await, count, "{text}");
    }
    assert_eq!(found(&"x".repeat(10_000)).await, 0);
    assert_eq!(found("\0").await, 5, "control characters are left out");
    let csv = blocked_ips::export(&portal.ctx, &caller, search("2001:db8::/32")).await.unwrap();
    assert_eq!(csv.lines().count(), 3);
}

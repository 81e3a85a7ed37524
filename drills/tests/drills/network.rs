//! The wire between PBX and portal.

use std::time::Duration;

use drills::{BLOCKED, Drill, possible};

/// The revisions that an agent applied, in order, by its log.
fn applied(log: &str) -> Vec<i64> {
    log.lines()
        .filter(|line| line.contains("A policy is in force"))
        .filter_map(|line| line.split("policy.revision=").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn after_a_cut_of_a_minute_in_the_middle_of_a_push_the_newest_is_applied_and_nothing_older() {
    if !possible() {
        return;
    }
    let drill = Drill::start();
    let guest = drill.portal.allow(&drill.namespaces, "203.0.113.64/28");
    drill.portal.block(&drill.namespaces, "203.0.113.64/26", 3_600);
    drill.portal.until_enforced(&drill.namespaces);
    assert!(drill.gets_through("203.0.113.70"), "allowed wins");
    // A permission is revoked, and the wire is cut while that is on its way.
    drill.portal.disallow(&drill.namespaces, &guest);
    drill.namespaces.set_uplink(false);
    // More changes meanwhile, each a revision.
    let mut last = None;
    for host in 0..5 {
        let entry = drill.portal.allow(&drill.namespaces, &format!("192.0.2.{host}"));
        if let Some(before) = last.replace(entry) {
            drill.portal.disallow(&drill.namespaces, &before);
        }
        let address = format!("198.51.100.{}", 100 + host);
        assert!(drill.block(&address));
    }
    // The agent goes on by itself.
    let attackers = ["203.0.113.10", "203.0.113.11", "203.0.113.12"];
    for address in attackers {
        drill.attack(address);
    }
    drill.assert_out(attackers.into_iter().chain([BLOCKED]));
    std::thread::sleep(Duration::from_mins(1));
    let before = applied(&drill.machine.log());
    drill.namespaces.set_uplink(true);
    drill.portal.until_enforced(&drill.namespaces);
    let wanted = drill.portal.pbx(&drill.namespaces).wanted_revision;
    let after = applied(&drill.machine.log()).split_off(before.len());
    assert_eq!(after, [wanted], "after {before:?}");
    // Ten seconds later it is confirmed, and stays.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(drill.portal.pbx(&drill.namespaces).applied_revision, wanted);
    let by_hand = (0..5).map(|host| format!("198.51.100.{}", 100 + host)).collect::<Vec<_>>();
    drill.assert_out(["203.0.113.70"]);
    drill.end(by_hand.iter().map(String::as_str).chain(attackers));
}

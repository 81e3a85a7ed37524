//! `kill -9` of everything that can be killed, while it writes and while it applies.

use std::time::Duration;

use drills::{BLOCKED, Drill, possible, some_moment};

/// Addresses that nobody else uses: of round `round`, number `number`.
fn address(round: usize, number: usize) -> String {
    format!("198.51.100.{}", 100 + round * 20 + number)
}

/// An administrator blocks one address after the other until the portal does not answer any more; those that were acknowledged.
fn block_until_it_dies(drill: &mut Drill, round: usize, kill: impl FnOnce(&mut Drill)) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut kill = Some(kill);
    let last = 2 + round;
    for number in 0..last + 3 {
        if number == last {
            // Something of the PBX is on its way, too.
            drill.asterisk.attack(&attacker(round));
            some_moment(Duration::from_millis(120));
            kill.take().unwrap()(drill);
        }
        let address = address(round, number);
        if drill.block(&address) {
            acknowledged.push(address);
        }
    }
    assert!(acknowledged.len() >= last, "{acknowledged:?}");
    acknowledged
}

/// Who attacks in a round.
fn attacker(round: usize) -> String {
    format!("203.0.113.{}", 10 + round)
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    let mut bans = Vec::new();
    for round in 0..4 {
        bans.extend(block_until_it_dies(&mut drill, round, |drill| drill.portal.kill_server()));
        // Meanwhile the agent bans on its own.
        let alone = format!("203.0.113.{}", 50 + round);
        drill.attack(&alone);
        drill.assert_out([alone.as_str()]);
        bans.extend([attacker(round), alone]);
        drill.portal.start_server(&drill.namespaces);
    }
    drill.end(bans.iter().map(String::as_str));
}

#[test]
fn a_killed_postgresql_loses_nothing_that_was_acknowledged() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    let mut bans = Vec::new();
    for round in 0..4 {
        bans.extend(block_until_it_dies(&mut drill, round, |drill| drill.portal.kill_postgres()));
        let alone = format!("203.0.113.{}", 50 + round);
        drill.attack(&alone);
        drill.assert_out([alone.as_str()]);
        bans.extend([attacker(round), alone]);
        // The server starts it again.
        drill.until_settled();
    }
    drill.end(bans.iter().map(String::as_str));
}

#[test]
fn an_agent_killed_while_it_applies_comes_back_to_what_is_wanted() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    let mut bans = Vec::new();
    for round in 0..8 {
        // Policies, single bans, a whole network: all that an agent applies.
        let entry = drill.portal.allow(&drill.namespaces, &format!("192.0.2.{round}"));
        for number in 0..2 {
            let address = format!("198.51.100.{}", 100 + round * 2 + number);
            drill.portal.block(&drill.namespaces, &address, 3_600);
            bans.push(address);
        }
        let network = format!("2001:db8:{round}:f000::/56");
        drill.portal.block(&drill.namespaces, &network, 3_600);
        drill.portal.disallow(&drill.namespaces, &entry);
        some_moment(Duration::from_millis(60));
        drill.machine.kill();
        // What was in force stays so without an agent.
        drill.assert_out([BLOCKED]);
        drill.machine.start(&drill.namespaces);
        // Before the server has said anything.
        drill.assert_out([BLOCKED]);
        if round % 2 == 1 {
            drill.until_settled();
            assert!(!drill.gets_through(&format!("2001:db8:{round}:f001::1")));
            assert!(drill.gets_through(&format!("2001:db8:{round}:e001::1")));
        }
    }
    drill.end(bans.iter().map(String::as_str));
}

#[test]
fn a_ban_that_a_killed_agent_made_is_in_force_and_reported_once() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    let mut bans = Vec::new();
    for round in 0..4 {
        let address = attacker(round);
        // Reported and acknowledged, or not yet.
        drill.namespaces.set_uplink(round % 2 == 0);
        drill.attack(&address);
        some_moment(Duration::from_millis(30));
        drill.machine.kill();
        drill.machine.start(&drill.namespaces);
        drill.assert_out([address.as_str()]);
        drill.namespaces.set_uplink(true);
        bans.push(address);
    }
    drill.end(bans.iter().map(String::as_str));
}

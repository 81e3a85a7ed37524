//! Agents that are not, or no longer, who they say.

use std::time::Duration;

use drills::{BLOCKED, Drill, Machine, eventually, possible};

#[test]
fn a_revoked_agent_that_comes_back_is_refused_and_goes_on_protecting() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    let pbx = drill.portal.pbx(&drill.namespaces);
    drill.portal.revoke(&drill.namespaces, pbx.id);
    drill.machine.until_online(false);
    // What comes now is not for it, and what it says is not heard: as it is, after a restart, and at a server that has just started.
    drill.portal.block(&drill.namespaces, "198.51.100.100", 3_600);
    drill.attack("203.0.113.10");
    drill.machine.kill();
    drill.machine.start(&drill.namespaces);
    refused(&drill);
    drill.portal.kill_server();
    drill.portal.start_server(&drill.namespaces);
    refused(&drill);
    assert!(drill.gets_through("198.51.100.100"), "the agent was not told");
    drill.assert_out(["203.0.113.10", BLOCKED]);
    drill.blocked.assert_nothing_got_through();
    assert_eq!(drill.portal.times_banned("203.0.113.10/32".parse().unwrap()), 0, "nobody heard of it");
    drill.phones.iter().for_each(testbed::traffic::Traffic::assert_nothing_lost);
    drill.portal.assert_audit_is_whole();
}

/// The agent is refused, in so many words, and nothing that it does counts.
fn refused(drill: &Drill) {
    let pbx = drill.portal.pbx(&drill.namespaces);
    assert_eq!((pbx.state, pbx.applied_ban_seq), (policy::pbxes::PbxState::Revoked, 1), "{pbx:?}");
    eventually("the agent is refused", 20, || {
        drill
            .machine
            .status()
            .is_some_and(|status| !status.online && status.offline_because.contains("does not know this PBX any more"))
    });
}

#[test]
fn two_agents_with_one_certificate_take_turns_and_are_told_of() {
    if !possible() {
        return;
    }
    let drill = Drill::start();
    // Somebody has copied the state of the PBX to another machine.
    let mut twin = Machine::copy_of(&drill.machine);
    twin.start_elsewhere(&drill.namespaces);
    drill.machine.until_online(false);
    // Each bans; nobody knows which of them is the right one.
    drill.attack("203.0.113.77");
    std::thread::sleep(Duration::from_secs(25));
    let streams = [&drill.machine, &twin].map(|machine| machine.log().matches("Connected to the server").count());
    assert!(streams.iter().sum::<usize>() <= 3, "no race for the stream: {streams:?}");
    let told = |drill: &Drill| {
        let rows = drill.portal.audit();
        rows.iter().filter(|row| row.details.contains("another_agent")).count()
    };
    assert_eq!(told(&drill), 1, "the audit log tells of it: {:?}", drill.portal.audit());
    // The copy goes; the PBX is back by itself.
    twin.kill();
    eventually("the PBX's own agent is back", 100, || drill.machine.status().is_some_and(|status| status.online));
    drill.end(["203.0.113.77"]);
}

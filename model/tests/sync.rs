//! The protocol within several bounds, and each way of doing it wrong.

use model::{Budget, Flaw, Protocol, Setup};
use stateright::{Checker, HasDiscoveries, Model};

/// Goes through all of it; prints how much that is, and the shortest way to what is wrong.
fn check(setup: Setup, rests: bool) -> Vec<&'static str> {
    let model = Protocol { setup, rests };
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    eprintln!("{setup:?}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let wrong: Vec<&'static str> = found.keys().copied().filter(|name| *name != model::ALL_HAPPENED).collect();
    for name in &wrong {
        eprintln!("not so: {name}");
        for (at, action) in found[name].clone().into_actions().iter().enumerate() {
            eprintln!("{:>3}. {action:?}", at + 1);
        }
    }
    if wrong.is_empty() {
        assert!(found.contains_key(model::ALL_HAPPENED), "the bounds leave something out");
    }
    wrong
}

fn holds(agents: u8, nodes: u8, budget: Budget, rests: bool) {
    assert_eq!(check(Setup { agents, nodes, budget, flaw: None }, rests), [] as [&str; 0]);
}

fn finds(flaw: Flaw, nodes: u8, budget: Budget, wrong: &'static str) {
    assert_eq!(check(Setup { agents: 1, nodes, budget, flaw: Some(flaw) }, false), [wrong]);
}

fn budget() -> Budget {
    Budget::default()
}

#[test]
fn permissions_over_a_break() {
    holds(1, 1, Budget { edits: 2, breaks: 1, ..budget() }, true);
}

#[test]
fn permissions_on_two_nodes() {
    holds(1, 2, Budget { edits: 1, breaks: 1, ..budget() }, false);
}

#[test]
fn permissions_over_kills() {
    holds(1, 1, Budget { edits: 1, agent_kills: 1, node_kills: 1, ..budget() }, false);
}

#[test]
fn permissions_of_two_agents() {
    holds(2, 1, Budget { edits: 1, ..budget() }, false);
}

#[test]
fn bans_over_a_break() {
    holds(1, 1, Budget { detections: 1, breaks: 1, ..budget() }, true);
}

#[test]
fn bans_that_people_make_and_lift() {
    holds(1, 1, Budget { detections: 1, blocks: 1, lifts: 1, ..budget() }, true);
}

#[test]
fn bans_that_are_lifted_over_a_break() {
    holds(1, 1, Budget { detections: 1, lifts: 1, breaks: 1, ..budget() }, false);
}

#[test]
fn bans_over_a_kill() {
    holds(1, 1, Budget { detections: 1, agent_kills: 1, ..budget() }, false);
}

#[test]
fn bans_over_a_power_cut() {
    holds(1, 1, Budget { detections: 1, power_cuts: 1, ..budget() }, false);
}

#[test]
fn bans_over_a_kill_of_the_node() {
    holds(1, 1, Budget { detections: 2, node_kills: 1, ..budget() }, false);
}

#[test]
fn bans_of_two_agents() {
    holds(2, 1, Budget { detections: 1, ..budget() }, false);
}

#[test]
fn permissions_and_bans() {
    holds(1, 1, Budget { edits: 1, detections: 1, blocks: 1, lifts: 1, ..budget() }, false);
}

#[test]
fn a_policy_taken_for_the_newest_is_found() {
    finds(Flaw::TrustsHello, 1, Budget { edits: 1, breaks: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn an_old_reading_is_found() {
    finds(Flaw::SendsOldReading, 2, Budget { edits: 1, breaks: 2, ..budget() }, model::NEWER_STAYS);
}

#[test]
fn an_old_reading_that_is_kept_is_found() {
    finds(Flaw::KeepsOldReadings, 1, Budget { edits: 1, breaks: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn a_hello_that_comes_too_early_is_found() {
    finds(Flaw::SaysHelloTooEarly, 2, Budget { edits: 1, breaks: 2, ..budget() }, model::NEWER_STAYS);
}

#[test]
fn a_stream_that_nobody_noted_is_found() {
    finds(Flaw::KeepsUnnotedStreams, 2, Budget { breaks: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn what_an_old_stream_says_is_found() {
    finds(Flaw::HearsOldStreams, 1, Budget { edits: 1, breaks: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn acknowledged_before_it_is_kept_is_found() {
    let wrong = model::NEWER_STAYS;
    finds(Flaw::AcknowledgesBeforeKeeping, 1, Budget { agent_kills: 1, ..budget() }, wrong);
}

#[test]
fn acknowledged_without_a_number_is_found() {
    finds(Flaw::AcknowledgesWithoutNumber, 1, Budget { detections: 1, ..budget() }, model::BANS_STAY);
}

#[test]
fn a_forgotten_report_is_found() {
    finds(Flaw::ForgetsWhatItSent, 1, Budget { detections: 1, breaks: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn a_forgotten_batch_is_found() {
    finds(Flaw::ForgetsLostBatches, 1, Budget { detections: 1, power_cuts: 1, ..budget() }, model::AT_REST_ALL_AGREE);
}

#[test]
fn a_batch_stored_twice_is_found() {
    finds(Flaw::StoresAgain, 1, Budget { detections: 1, breaks: 1, ..budget() }, model::STORED_ONCE);
}

/// The digest tells; asking for the whole set mends it.
#[test]
fn a_gap_that_the_server_skips_is_mended() {
    let budget = Budget { blocks: 3, breaks: 1, ..budget() };
    assert_eq!(check(Setup { agents: 1, nodes: 1, budget, flaw: Some(Flaw::SkipsOverGaps) }, false), [] as [&str; 0]);
}

#[test]
fn a_gap_that_nothing_mends_is_found() {
    let budget = Budget { blocks: 3, breaks: 1, ..budget() };
    finds(Flaw::SkipsOverGapsAndIgnoresResync, 1, budget, model::AT_REST_ALL_AGREE);
}

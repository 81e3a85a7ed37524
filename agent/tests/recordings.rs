//! What a real Asterisk 22.10 said (`recordings/*.ami`, from the testbed), read and judged.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::net::IpAddr;
use std::path::Path;

use agent::pbx::security_events_of_text;
use policy::detection::{DetectionRule, Detector, SecurityEvent, SecurityEventKind};
use time::macros::datetime;

/// The events of a recording.
fn recording(name: &str) -> Vec<SecurityEvent> {
    let text = std::fs::read(Path::new("tests/recordings").join(name).with_extension("ami")).unwrap();
    security_events_of_text(&text, datetime!(2026-11-23 06:55 UTC))
}

/// Proven and unproven failures in a recording. With `watched`, the challenges that Asterisk sent were seen on their way out.
fn failures(name: &str, watched: bool) -> (usize, usize) {
    let mut detector = Detector::new(DetectionRule::default());
    let events = recording(name);
    assert!(!events.is_empty());
    let (mut proven, mut unproven) = (0, 0);
    for event in &events {
        if watched && event.kind == SecurityEventKind::ChallengeResponseFailed {
            let sent =
                SecurityEvent { kind: SecurityEventKind::ChallengeSent, session: String::new(), ..event.clone() };
            detector.observe(&sent, |_| false);
        }
        if let Some(attempt) = detector.observe(event, |_| false).attempt {
            *(if attempt.proven { &mut proven } else { &mut unproven }) += 1;
            unproven -= usize::from(attempt.upgrade);
        }
    }
    (proven, unproven)
}

#[test]
fn each_attempt_is_one_failure() {
    for (name, proven, unproven) in [
        ("wrong_password_udp", 1, 0),
        ("wrong_password_tcp", 1, 0),
        ("unknown_user_udp", 1, 0),
        ("unknown_user_tcp", 1, 0),
        ("one_packet_register", 0, 1),
        ("one_packet_invite", 0, 1),
        ("one_packet_options", 0, 1),
        ("acl_refuses", 1, 0),
        ("over_max_contacts", 0, 0),
        // On this machine itself.
        ("ami_wrong_user", 0, 0),
    ] {
        assert_eq!(failures(name, true), (proven, unproven), "{name}");
    }
}

#[test]
fn over_udp_nothing_is_proven_without_the_challenge() {
    for name in ["wrong_password_udp", "unknown_user_udp", "forged_nonce", "acl_refuses"] {
        assert_eq!(failures(name, false), (0, 1), "{name}");
    }
    assert_eq!(failures("wrong_password_tcp", false), (1, 0));
}

#[test]
fn fields_are_read() {
    let events = recording("wrong_password_udp");
    let [sent, failed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((sent.kind, &sent.challenge), (SecurityEventKind::ChallengeSent, &None), "Asterisk 22 leaves it out");
    assert_eq!(
        (failed.account.as_str(), failed.remote, failed.transport.as_str()),
        ("1007", IpAddr::from([203, 0, 113, 30]), "UDP")
    );
    assert!(failed.challenge.as_ref().is_some_and(|challenge| challenge.len() == 43));
    assert_eq!(sent.session, failed.session);
}

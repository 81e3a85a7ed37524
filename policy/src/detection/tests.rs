//! Sequences as Asterisk 22 reports them (recorded ones are in `agent/tests/recordings`), and the bounds.

use proptest::prelude::*;

use super::*;
use SecurityEventKind::{
    ChallengeAnswered, ChallengeResponseFailed, ChallengeSent, FailedAcl, InvalidAccountId, InvalidPassword,
    SuccessfulAuth,
};

const ATTACKER: &str = "203.0.113.10";

fn at(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::milliseconds(ms)
}

/// Feeds a detector, a millisecond between events.
struct Bench {
    detector: Detector,
    now: i64,
    session: u32,
}

impl Bench {
    fn new() -> Self {
        Self { detector: Detector::new(DetectionRule::default()), now: 0, session: 0 }
    }

    fn tell(
        &mut self,
        kind: SecurityEventKind,
        account: &str,
        remote: &str,
        transport: &str,
        challenge: Option<&str>,
    ) -> Observation {
        self.now += 1;
        let event = SecurityEvent {
            at: at(self.now),
            kind,
            account: account.to_owned(),
            session: format!("call-{}", self.session),
            remote: remote.parse().unwrap(),
            transport: transport.to_owned(),
            service: "PJSIP".to_owned(),
            challenge: challenge.map(ToOwned::to_owned),
        };
        self.detector.observe(&event, |_| false)
    }

    /// A wrong password, with the challenge seen on its way out.
    fn wrong_password(&mut self, account: &str, remote: &str, transport: &str) -> Observation {
        self.session += 1;
        let nonce = format!("nonce-{}", self.session);
        assert_eq!(self.tell(ChallengeSent, "", remote, "UDP", Some(&nonce)), Observation::default());
        assert_eq!(self.tell(ChallengeSent, account, remote, transport, None), Observation::default());
        self.tell(ChallengeResponseFailed, account, remote, transport, Some(&nonce))
    }

    /// Both steps with an account that there isn't.
    fn unknown_account(&mut self, account: &str, remote: &str, transport: &str) -> Vec<Observation> {
        self.session += 1;
        let nonce = format!("nonce-{}", self.session);
        self.tell(ChallengeSent, "", remote, "UDP", Some(&nonce));
        vec![
            self.tell(InvalidAccountId, account, remote, transport, None),
            self.tell(ChallengeSent, "<unknown>", remote, transport, None),
            self.tell(InvalidAccountId, account, remote, transport, None),
            self.tell(ChallengeResponseFailed, "<unknown>", remote, transport, Some(&nonce)),
        ]
    }
}

#[test]
fn the_fifth_wrong_password_bans() {
    for transport in ["UDP", "TCP", "TLS", "WSS"] {
        let mut bench = Bench::new();
        for _ in 0..4 {
            let seen = bench.wrong_password("1007", ATTACKER, transport);
            assert!(seen.attempt.unwrap().proven && seen.ban.is_none());
        }
        let ban = bench.wrong_password("1007", ATTACKER, transport).ban.unwrap();
        assert_eq!((ban.net.to_string().as_str(), ban.ban_seconds, ban.times_banned), ("203.0.113.10/32", 3600, 1));
        assert_eq!(
            (ban.reason.as_str(), ban.account.as_str(), ban.evidence.len()),
            ("5 wrong passwords for 1007", "1007", 5)
        );
    }
}

#[test]
fn an_unknown_account_is_one_failure() {
    for transport in ["UDP", "TCP"] {
        let mut bench = Bench::new();
        for attempt in 1..=5 {
            let seen = bench.unknown_account(&format!("77{attempt}"), ATTACKER, transport);
            let counted: Vec<_> =
                seen.iter().filter_map(|seen| seen.attempt.as_ref()).filter(|attempt| !attempt.upgrade).collect();
            assert_eq!(counted.len(), 1, "one attempt, {transport}");
            assert_eq!(
                seen.iter().filter(|seen| seen.attempt.as_ref().is_some_and(|attempt| attempt.proven)).count(),
                1
            );
            let ban = seen.into_iter().find_map(|seen| seen.ban);
            assert_eq!(ban.is_some(), attempt == 5, "{attempt} over {transport}");
            if let Some(ban) = ban {
                assert_eq!(ban.reason, "5 wrong passwords for 5 accounts, mostly 775");
            }
        }
    }
}

#[test]
fn forged_packets_ban_nobody() {
    let mut bench = Bench::new();
    for number in 0..50 {
        bench.session += 1;
        // One packet: an unknown account, or an answer to a challenge that was made up or went to somebody else.
        bench.tell(ChallengeSent, "", "198.51.100.99", "UDP", Some("theirs"));
        let challenge = if number % 2 == 0 { "made-up" } else { "theirs" };
        for seen in [
            bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some(challenge)),
            bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", None),
            bench.tell(InvalidAccountId, "7777", ATTACKER, "UDP", None),
        ] {
            assert!(seen.ban.is_none());
            assert!(!seen.attempt.unwrap().proven);
        }
        bench.tell(ChallengeSent, "<unknown>", ATTACKER, "UDP", None);
    }
}

#[test]
fn a_made_up_header_in_front_of_the_answer_hides_nothing() {
    let mut bench = Bench::new();
    let mut guess = |answered: bool| {
        bench.session += 1;
        if answered {
            bench.tell(ChallengeAnswered, "", ATTACKER, "UDP", None);
        }
        bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some("made-up"))
    };
    // Without the packet it may be anybody who forges the address.
    assert!((0..20).all(|_| !guess(false).attempt.unwrap().proven));
    // Each answer proves one failure.
    assert!((0..4).all(|_| guess(true).attempt.unwrap().proven && !guess(false).attempt.unwrap().proven));
    assert!(guess(true).ban.is_some());
}

#[test]
fn what_a_phone_proves_is_of_no_use_to_a_forger() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        bench.tell(ChallengeAnswered, "", ATTACKER, "UDP", None);
        bench.tell(SuccessfulAuth, "1007", ATTACKER, "UDP", None);
        let forged = bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some("made-up"));
        assert!(!forged.attempt.unwrap().proven && forged.ban.is_none());
    }
    // Nor is an answer that nothing became of, after a while.
    bench.tell(ChallengeAnswered, "", ATTACKER, "UDP", None);
    bench.now += 60_000;
    assert!(!bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", None).attempt.unwrap().proven);
}

#[test]
fn a_challenge_that_is_heard_of_late_proves_what_answered_it() {
    let mut bench = Bench::new();
    for attempt in 1..=5 {
        bench.session += 1;
        let nonce = format!("late-{attempt}");
        let failed = bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some(&nonce));
        assert!(!failed.attempt.unwrap().proven);
        for (remote, challenge) in [(ATTACKER, "another"), ("198.51.100.99", nonce.as_str())] {
            assert_eq!(bench.tell(ChallengeSent, "", remote, "UDP", Some(challenge)), Observation::default());
        }
        let heard = bench.tell(ChallengeSent, "", ATTACKER, "UDP", Some(&nonce));
        let proven = heard.attempt.unwrap();
        assert!(proven.proven && proven.upgrade && proven.account == "1007");
        assert_eq!(heard.ban.map(|ban| ban.evidence.len()), (attempt == 5).then_some(5));
        assert_eq!(bench.tell(ChallengeSent, "", ATTACKER, "UDP", Some(&nonce)), Observation::default(), "once");
    }
    // Not after a while.
    bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some("old"));
    bench.now += ANSWER_SECONDS * 1000 + 10;
    assert_eq!(bench.tell(ChallengeSent, "", ATTACKER, "UDP", Some("old")), Observation::default());
    // Whoever forges many of them fills no memory.
    for number in 0..2 * MAX_LATE {
        bench.tell(ChallengeResponseFailed, "1007", "198.51.100.99", "UDP", Some(&format!("forged-{number}")));
    }
    assert!(bench.detector.late.len() <= MAX_LATE);
}

#[test]
fn a_challenge_ages() {
    let mut bench = Bench::new();
    bench.tell(ChallengeSent, "", ATTACKER, "UDP", Some("nonce"));
    bench.now += CHALLENGE_SECONDS * 1000 + 10;
    assert!(!bench.tell(ChallengeResponseFailed, "1007", ATTACKER, "UDP", Some("nonce")).attempt.unwrap().proven);
}

#[test]
fn good_phones_are_no_attackers() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        bench.session += 1;
        // Over its max_contacts, and with a stale nonce.
        for kind in [ChallengeSent, SuccessfulAuth, FailedAcl, ChallengeSent] {
            assert_eq!(bench.tell(kind, "1001", ATTACKER, "UDP", None), Observation::default());
        }
    }
}

#[test]
fn an_access_list_that_refuses_is_one_failure() {
    let mut bench = Bench::new();
    bench.tell(ChallengeSent, "", ATTACKER, "UDP", Some("nonce"));
    for kind in [FailedAcl, ChallengeSent, FailedAcl] {
        assert_eq!(bench.tell(kind, "1010", ATTACKER, "UDP", None), Observation::default());
    }
    assert!(bench.tell(ChallengeResponseFailed, "1010", ATTACKER, "UDP", Some("nonce")).attempt.unwrap().proven);
}

#[test]
fn attempts_that_never_answer_are_not_hidden_by_one_call_id() {
    let mut bench = Bench::new();
    let bans = (0..12).filter(|_| bench.tell(InvalidAccountId, "7777", ATTACKER, "TCP", None).ban.is_some()).count();
    assert_eq!(bans, 1, "every second report is an attempt");
    let mut bench = Bench::new();
    let bans =
        (0..5).filter(|n| bench.tell(InvalidAccountId, &n.to_string(), ATTACKER, "TCP", None).ban.is_some()).count();
    assert_eq!(bans, 1, "other accounts are other attempts");
}

#[test]
fn the_manager_interface_counts_too() {
    let mut bench = Bench::new();
    let bans = (0..5).filter(|_| bench.tell(InvalidPassword, "admin", ATTACKER, "TCP", None).ban.is_some()).count();
    assert_eq!(bans, 1);
    for local in ["127.0.0.1", "::1", "0.0.0.0"] {
        assert_eq!(bench.tell(InvalidPassword, "admin", local, "TCP", None), Observation::default(), "{local}");
    }
}

#[test]
fn failures_outside_the_window_do_not_add_up() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        assert!(bench.wrong_password("1007", ATTACKER, "TCP").ban.is_none());
        bench.now += 16_000;
    }
}

#[test]
fn repeaters_are_banned_twice_as_long_up_to_the_most() {
    let mut bench = Bench::new();
    let mut lengths = Vec::new();
    for _ in 0..10 {
        let ban = (0..5).find_map(|_| bench.wrong_password("1007", ATTACKER, "TCP").ban).unwrap();
        lengths.push(ban.ban_seconds / 3600);
        bench.now += ban.ban_seconds * 1000;
    }
    assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 128, 168, 168]);
    // Long after that it begins anew.
    bench.now += 15 * 86_400_000;
    assert_eq!((0..5).find_map(|_| bench.wrong_password("1007", ATTACKER, "TCP").ban).unwrap().times_banned, 1);
    // A restart keeps the record.
    let mut bench = Bench::new();
    bench.detector.remember_ban("203.0.113.10/32".parse().unwrap(), 3, at(0));
    assert_eq!((0..5).find_map(|_| bench.wrong_password("1007", ATTACKER, "TCP").ban).unwrap().ban_seconds, 8 * 3600);
}

#[test]
fn one_ipv6_host_is_its_whole_64() {
    let mut bench = Bench::new();
    let ban = (0..5).find_map(|n| bench.wrong_password("1007", &format!("2001:db8:bad::{n:x}"), "TCP").ban).unwrap();
    assert_eq!(ban.net.to_string(), "2001:db8:bad::/64");
    // A /64 that holds the loopback address can't be banned.
    assert!((0..9).all(|_| bench.wrong_password("1007", "::5", "TCP").ban.is_none()));
}

#[test]
fn allowed_sources_are_counted_and_never_banned() {
    let mut detector = Detector::new(DetectionRule::default());
    for number in 0..1000 {
        let event = SecurityEvent {
            at: at(number),
            kind: ChallengeResponseFailed,
            account: "1007".into(),
            session: number.to_string(),
            remote: ATTACKER.parse().unwrap(),
            transport: "TCP".into(),
            service: "PJSIP".into(),
            challenge: None,
        };
        let seen = detector.observe(&event, |addr| addr.to_string() == ATTACKER);
        assert!(seen.attempt.unwrap().proven && seen.ban.is_none());
    }
}

#[test]
fn memory_is_bounded() {
    let mut bench = Bench::new();
    for number in 0..200_000u32 {
        bench.session = number;
        let remote = IpAddr::from(number.to_be_bytes()).to_string();
        bench.tell(ChallengeSent, "", &remote, "UDP", Some("nonce"));
        bench.tell(ChallengeAnswered, "", &remote, "UDP", None);
        bench.tell(InvalidAccountId, "7777", &remote, "UDP", None);
    }
    let Detector { sources, sessions, challenges, answers, records, .. } = &bench.detector;
    for length in [sources.len(), sessions.len(), challenges.len(), answers.len(), records.len()] {
        assert!(length <= MAX_TRACKED, "{length}");
    }
}

fn any_event() -> impl Strategy<Value = SecurityEvent> {
    let kind = prop::sample::select(vec![
        ChallengeSent,
        ChallengeAnswered,
        ChallengeResponseFailed,
        InvalidAccountId,
        InvalidPassword,
        FailedAcl,
        SuccessfulAuth,
    ]);
    let remote = prop_oneof![(0u8..3).prop_map(|low| IpAddr::from([203, 0, 113, low])), any::<IpAddr>()];
    let challenge = prop::option::of(prop::sample::select(vec!["a", "b"]));
    let transport = prop::sample::select(vec!["UDP", "TCP"]);
    (0i64..100_000, kind, ".{0,6}", "[ab]", remote, transport, challenge).prop_map(
        |(ms, kind, account, session, remote, transport, challenge)| SecurityEvent {
            at: at(ms),
            kind,
            account,
            session,
            remote,
            transport: transport.into(),
            service: "PJSIP".into(),
            challenge: challenge.map(Into::into),
        },
    )
}

proptest! {
    /// In any order of any events: only proven failures ban, allowed sources never, and a ban can be stored.
    #[test]
    fn any_events(events in prop::collection::vec(any_event(), 0..120), allowed in 0u8..3) {
        let mut detector = Detector::new(DetectionRule { failures: 3, ..DetectionRule::default() });
        let allowed = IpAddr::from([203, 0, 113, allowed]);
        for event in events {
            let seen = detector.observe(&event, |addr| addr == allowed);
            if let Some(ban) = seen.ban {
                prop_assert!(seen.attempt.is_some_and(|attempt| attempt.proven));
                prop_assert!(event.remote != allowed && ban.net.contains(&event.remote.to_canonical()));
                prop_assert!(net::unusable(&ban.net).is_none());
                prop_assert!(ban.evidence.len() <= MAX_EVIDENCE && ban.ban_seconds > 0);
                prop_assert!(!ban.reason.chars().any(char::is_control));
            }
        }
    }
}

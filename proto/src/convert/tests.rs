//! Round trips of random values, and bytes that must be refused.

use std::net::IpAddr;

use ipnet::IpNet;
use policy::allowed_ips::AllowedTarget;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::blocked_ips::EvidenceEvent;
use policy::detection::DetectionRule;
use policy::ids::{BanId, BatchId};
use policy::net;
use policy::reports::{AttemptCount, DetectedBan, ReportBatch, ReportEvent};
use policy::safety::{Change, PhoneLossLimit, WITHHELD_MAX, Withheld};
use policy::snapshot::{AllowedEntry, PolicySnapshot};
use policy::trace_parent::TraceParent;
use proptest::prelude::*;
use prost::Message as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;
use crate::pb;

fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 1u8..=128)
        .prop_map(|(addr, length)| {
            let length = length.min(if addr.is_ipv4() { 32 } else { 128 });
            net::canonical(IpNet::new(addr, length).unwrap())
        })
        .prop_filter("usable", |net| net::unusable(net).is_none())
}

fn any_second() -> impl Strategy<Value = OffsetDateTime> {
    (1i64..253_402_300_799).prop_map(|seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap())
}

fn any_ms() -> impl Strategy<Value = OffsetDateTime> {
    (1i64..250_000_000_000, 0i64..1000)
        .prop_map(|(seconds, ms)| OffsetDateTime::from_unix_timestamp(seconds).unwrap() + Duration::milliseconds(ms))
}

fn any_id() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(|mut bytes| {
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Uuid::from_bytes(bytes)
    })
}

fn any_ban() -> impl Strategy<Value = BanEntry> {
    (any_net(), prop::option::of(any_second())).prop_map(|(net, expires_at)| BanEntry { net, expires_at })
}

fn any_allowed() -> impl Strategy<Value = AllowedEntry> {
    let target = prop_oneof![
        any_net().prop_map(AllowedTarget::Net),
        "[a-z0-9]{1,20}(-[a-z0-9]{1,5})?\\.(example|test|xn--p1ai)".prop_map(AllowedTarget::Domain),
    ];
    (target, prop::option::of(any_second())).prop_map(|(target, expires_at)| AllowedEntry { target, expires_at })
}

fn any_policy() -> impl Strategy<Value = PolicySnapshot> {
    let detection = (1u32..=10_000, 1u32..=86_400, 1u32..=86_400, 0u32..=86_400).prop_map(
        |(failures, window_seconds, ban_seconds, more)| DetectionRule {
            failures,
            window_seconds,
            ban_seconds,
            max_ban_seconds: ban_seconds + more,
        },
    );
    (0i64.., prop::collection::vec(any_allowed(), 0..8), detection, 0u32..=100, prop::option::of(any_trace())).prop_map(
        |(revision, allowed, detection, percent, trace_parent)| PolicySnapshot {
            revision,
            allowed,
            detection,
            phone_loss_limit: PhoneLossLimit::try_from(percent).unwrap(),
            trace_parent,
        },
    )
}

fn any_trace() -> impl Strategy<Value = TraceParent> {
    (1u128.., 1u64.., any::<u8>()).prop_map(|(trace, span, flags)| {
        TraceParent::parse(&format!("00-{trace:032x}-{span:016x}-{flags:02x}")).unwrap()
    })
}

fn any_withheld() -> impl Strategy<Value = Withheld> {
    let change = prop_oneof![(0i64..).prop_map(Change::Policy), any_net().prop_map(Change::Ban)];
    (change, any_ms(), any::<bool>(), "[^\\p{Cc}]{0,300}", prop::collection::vec("[^\\p{Cc}]{0,60}", 0..10))
        .prop_map(|(change, at, rolled_back, reason, lines)| Withheld { change, at, rolled_back, reason, lines })
}

fn any_evidence() -> impl Strategy<Value = EvidenceEvent> {
    (any_ms(), "[A-Za-z]{0,40}", "[A-Z]{0,4}", "[^\\p{Cc}]{0,80}", "[A-Z]{0,6}")
        .prop_map(|(at, kind, transport, account, service)| EvidenceEvent { at, kind, transport, account, service })
}

fn any_event() -> impl Strategy<Value = ReportEvent> {
    let detected = (
        any_id(),
        any_net(),
        any_ms(),
        1i64..31_000_000,
        "[^\\p{Cc}]{0,200}",
        "[^\\p{Cc}]{0,80}",
        1u32..1000,
        prop::collection::vec(any_evidence(), 0..20),
        any::<u64>(),
    )
        .prop_map(|(id, net, at, seconds, reason, account, times_banned, evidence, took_us)| DetectedBan {
            id: BanId(id),
            net,
            at,
            expires_at: (at + Duration::seconds(seconds)).replace_nanosecond(0).unwrap(),
            reason,
            account,
            times_banned,
            evidence,
            took_us,
        });
    let attempts = (1i64..4_000_000_000, any::<IpAddr>(), 0u32..1 << 31, 0u32..1 << 31).prop_map(
        |(minute, address, proven, unproven)| AttemptCount {
            minute: OffsetDateTime::from_unix_timestamp(minute * 60).unwrap(),
            address: address.to_canonical(),
            proven,
            unproven,
        },
    );
    prop_oneof![detected.prop_map(ReportEvent::Detected), attempts.prop_map(ReportEvent::Attempts)]
}

proptest! {
    #[test]
    fn policy_round_trip(policy in any_policy()) {
        prop_assert_eq!(PolicySnapshot::try_from(pb::Policy::from(&policy)).unwrap(), policy);
    }

    #[test]
    fn bans_round_trip(seq in 0i64.., bans in prop::collection::vec(any_ban(), 0..20), removed in any_net()) {
        let part = BanSnapshotPart { seq, digest: BanDigest::of(&bans), part: 0, parts: 1, bans: bans.clone() };
        prop_assert_eq!(BanSnapshotPart::try_from(pb::BanSnapshot::from(&part)).unwrap(), part);
        let changes = bans.into_iter().map(BanChange::Add).chain([BanChange::Remove(removed)]).collect();
        let delta = BanDelta { from_seq: seq, to_seq: seq, digest: BanDigest::default(), changes };
        prop_assert_eq!(BanDelta::try_from(pb::BanDelta::from(&delta)).unwrap(), delta);
    }

    #[test]
    fn withheld_round_trip(changes in prop::collection::vec(any_withheld(), 0..WITHHELD_MAX)) {
        let message = FromAgent::Withheld(changes);
        prop_assert_eq!(FromAgent::try_from(pb::AgentMessage::from(&message)).unwrap(), message);
    }

    #[test]
    fn report_round_trip(id in any_id(), events in prop::collection::vec(any_event(), 0..10)) {
        let batch = ReportBatch { id: BatchId(id), events };
        prop_assert_eq!(ReportBatch::try_from(pb::Report::from(&batch)).unwrap(), batch);
    }

    /// Whatever an attacker puts into account names, the server takes the report.
    #[test]
    fn attacker_text_never_spoils_a_report(id in any_id(), at in any_ms(), text in any::<String>()) {
        let event = EvidenceEvent { at, kind: text.clone(), transport: text.clone(), account: text.clone(), service: text.clone() };
        let ban = DetectedBan {
            id: BanId(id), net: "203.0.113.9/32".parse().unwrap(), at, expires_at: at + Duration::HOUR, reason: text.repeat(9),
            account: text, times_banned: 1, evidence: vec![event; 30], took_us: 1,
        };
        let batch = ReportBatch { id: BatchId(id), events: vec![ReportEvent::Detected(ban)] };
        prop_assert!(ReportBatch::try_from(pb::Report::from(&batch)).is_ok());
    }

    #[test]
    fn hello_round_trip(seq in 0i64.., policy in prop::option::of((0i64.., any::<[u8; 32]>())), digest in prop::option::of(any::<[u8; 16]>())) {
        let hello = FromAgent::Hello(Hello {
            agent_version: "0.1.0".into(), hostname: "pbx-1".into(), pbx_kind: "asterisk".into(), pbx_version: "22.10".into(),
            firewall: "nftables".into(), policy, bans: digest.map(|digest| (seq, BanDigest::from_bytes(digest))),
            withheld: vec![],
        });
        let bytes = pb::AgentMessage::from(&hello).encode_to_vec();
        prop_assert_eq!(agent_message(&bytes).unwrap(), hello);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = agent_message(&bytes);
        let _ = server_message(&bytes);
    }
}

#[test]
fn parts_hold_the_whole_set() {
    let ban = |n: u32| BanEntry { net: IpNet::from(IpAddr::from((0x0b00_0000 + n).to_be_bytes())), expires_at: None };
    for (count, parts) in [(0, 1), (1, 1), (5_000, 1), (5_001, 2), (12_000, 3)] {
        let bans: Vec<_> = (0..count).map(ban).collect();
        let made = snapshot_parts(7, &bans);
        assert_eq!(made.len(), parts, "{count}");
        assert!(made.iter().enumerate().all(|(at, part)| part.part as usize == at && part.parts as usize == parts));
        assert_eq!(made.iter().flat_map(|part| part.bans.iter().copied()).collect::<Vec<_>>(), bans);
    }
}

/// Nobody goes without a policy because of a trace.
#[test]
fn a_trace_that_is_none_is_passed_over() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, taken) in [(Some(good), TraceParent::parse(good)), (Some("00-x"), None), (None, None)] {
        let wire = pb::Policy { trace_parent: sent.map(str::to_owned), ..pb::Policy::from(&PolicySnapshot::default()) };
        assert_eq!(PolicySnapshot::try_from(wire).unwrap().trace_parent, taken, "{sent:?}");
    }
}

#[test]
fn refusals_name_the_field() {
    let policy = pb::Policy::from(&PolicySnapshot::default());
    let refused = |change: &dyn Fn(&mut pb::Policy)| {
        let mut changed = policy.clone();
        change(&mut changed);
        PolicySnapshot::try_from(changed).unwrap_err().field
    };
    let allow =
        |text: &str| pb::AllowedEntry { target: Some(pb::allowed_entry::Target::Net(text.into())), expires_at: 0 };
    assert_eq!(refused(&|p| p.digest[0] ^= 1), "policy.digest");
    assert_eq!(refused(&|p| p.digest.clear()), "policy.digest");
    assert_eq!(refused(&|p| p.revision = -1), "policy.revision");
    assert_eq!(refused(&|p| p.detection = None), "policy.detection");
    assert_eq!(refused(&|p| p.detection.as_mut().unwrap().failures = 0), "detection.failures");
    assert_eq!(refused(&|p| p.detection.as_mut().unwrap().max_ban_seconds = 1), "detection.max_ban_seconds");
    assert_eq!(refused(&|p| p.allowed = vec![pb::AllowedEntry::default()]), "allowed.target");
    assert_eq!(refused(&|p| p.allowed = vec![allow("0.0.0.0/0")]), "allowed.net");
    assert_eq!(refused(&|p| p.allowed = vec![allow("10.0.0.1/8")]), "allowed.net");
    assert_eq!(refused(&|p| p.allowed = vec![allow("10.0.0.0/8"); ALLOWED_MAX + 1]), "policy.allowed");
    assert_eq!(
        refused(&|p| p.allowed = vec![pb::AllowedEntry { expires_at: -1, ..allow("10.0.0.0/8") }]),
        "allowed.expires_at"
    );
    assert_eq!(
        BanEntry::try_from(pb::Ban { net: "203.0.113.9; flush ruleset".into(), expires_at: 0 }).unwrap_err().field,
        "ban.net"
    );
    assert_eq!(
        BanDelta::try_from(pb::BanDelta { from_seq: 5, to_seq: 4, digest: vec![0; 16], changes: vec![] })
            .unwrap_err()
            .field,
        "ban_delta.to_seq"
    );
    assert_eq!(FromServer::try_from(pb::ServerMessage { message: None }).unwrap_err().field, "message");
}

//! The set of bans against a server that counts the same way.

use policy::ids::BanId;
use proptest::prelude::*;
use time::Duration;
use uuid::Uuid;

use super::*;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

fn net(low: u8) -> IpNet {
    IpNet::from(IpAddr::from([203, 0, 113, low]))
}

fn entry(low: u8, seconds: i64) -> BanEntry {
    BanEntry { net: net(low), expires_at: Some(at(seconds)) }
}

fn own(low: u8, seconds: i64) -> DetectedBan {
    DetectedBan {
        id: BanId(Uuid::now_v7()),
        net: net(low),
        at: at(0),
        expires_at: at(seconds),
        reason: "5 wrong passwords for 1007".into(),
        account: "1007".into(),
        times_banned: 1,
        evidence: vec![],
        took_us: 900,
    }
}

fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap()
}

fn snapshot(seq: i64, bans: Vec<BanEntry>) -> BanSnapshotPart {
    BanSnapshotPart { seq, digest: BanDigest::of(&bans), part: 0, parts: 1, bans }
}

fn delta(from_seq: i64, changes: Vec<BanChange>, after: &[BanEntry]) -> BanDelta {
    BanDelta { from_seq, to_seq: from_seq + count(&changes) - 1, digest: BanDigest::of(after), changes }
}

#[test]
fn an_own_ban_holds_until_the_servers_set_is_far_enough() {
    let mut book = BanBook::default();
    book.snapshot(snapshot(5, vec![]));
    let ban = own(9, 3600);
    assert_eq!(book.own(ban.clone()), BanChange::Add(entry(9, 3600)));
    let batch = BatchId(Uuid::now_v7());
    book.batched(batch, &[ban.id].into());
    book.acked(&ReportAck { batch_id: batch, ban_seq: 6 });
    assert_eq!(book.settle(), [], "the server's set is at 5");
    assert!(book.holds(IpAddr::from([203, 0, 113, 9]), at(1)));
    // The server takes it over: nothing changes in the kernel.
    assert_eq!(book.delta(&delta(6, vec![BanChange::Add(entry(9, 3600))], &[entry(9, 3600)])), Synced::Applied(vec![]));
    assert!(book.pending().is_empty());
    assert_eq!(
        book.delta(&delta(7, vec![BanChange::Remove(net(9))], &[])),
        Synced::Applied(vec![BanChange::Remove(net(9))])
    );
}

#[test]
fn a_ban_that_the_server_refuses_is_lifted() {
    let mut book = BanBook::default();
    book.snapshot(snapshot(5, vec![]));
    let ban = own(9, 3600);
    book.own(ban.clone());
    let batch = BatchId(Uuid::now_v7());
    book.batched(batch, &[ban.id].into());
    book.acked(&ReportAck { batch_id: batch, ban_seq: 5 });
    assert_eq!(book.settle(), [BanChange::Remove(net(9))]);
}

#[test]
fn gaps_wrong_digests_and_lost_parts_ask_for_a_snapshot() {
    let mut book = BanBook::default();
    let add = BanChange::Add(entry(1, 60));
    assert_eq!(book.delta(&delta(1, vec![add], &[entry(1, 60)])), Synced::Broken(vec![]), "before any snapshot");
    assert_eq!(book.snapshot(snapshot(3, vec![])), Synced::Applied(vec![]));
    assert_eq!(book.delta(&delta(5, vec![add], &[entry(1, 60)])), Synced::Broken(vec![]), "a gap");
    assert_eq!(book.delta(&delta(2, vec![add], &[])), Synced::Known);
    assert_eq!(
        book.delta(&delta(4, vec![add], &[])),
        Synced::Broken(vec![add]),
        "a wrong digest; the ban holds all the same"
    );
    assert_eq!(book.synced().unwrap().0, 3);
    let part = |part| BanSnapshotPart { part, parts: 3, ..snapshot(9, vec![entry(1, 60)]) };
    assert_eq!(book.snapshot(part(0)), Synced::Partial);
    assert_eq!(book.snapshot(part(2)), Synced::Broken(vec![]));
}

#[test]
fn parts_make_a_whole() {
    let bans: Vec<_> = (1..=4).map(|low| entry(low, 60)).collect();
    let digest = BanDigest::of(&bans);
    let mut book = BanBook::default();
    let part =
        |part: u32| BanSnapshotPart { seq: 9, digest, part, parts: 2, bans: bans[part as usize * 2..][..2].to_vec() };
    assert_eq!(book.snapshot(part(0)), Synced::Partial);
    assert_eq!(book.snapshot(part(1)), Synced::Applied(bans.iter().copied().map(BanChange::Add).collect()));
    assert_eq!(book.synced(), Some((9, digest)));
}

#[derive(Debug, Clone)]
enum Step {
    Own(u8, i64),
    Add(u8, i64),
    Remove(u8),
    Report,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6, 1i64..100).prop_map(|(low, seconds)| Step::Own(low, seconds)),
        (0u8..6, 1i64..100).prop_map(|(low, seconds)| Step::Add(low, seconds)),
        (0u8..6).prop_map(Step::Remove),
        Just(Step::Report),
        Just(Step::Restart),
    ]
}

#[test]
fn each_network_counts_once_whoever_bans_it() {
    let mut book = BanBook::default();
    book.snapshot(snapshot(5, vec![entry(7, 100), entry(8, 100), entry(9, 100)]));
    book.hold(&[net(8)].into());
    for (low, seconds) in [(6, 50), (8, 50), (9, 200), (9, 30)] {
        book.own(own(low, seconds));
    }
    assert_eq!(book.entries(), [entry(6, 50), entry(7, 100), entry(8, 50), entry(9, 200)]);
    assert_eq!([0, 60, 150, 200].map(|seconds| book.count(at(seconds))), [4, 2, 1, 0]);
}

proptest! {
    /// Whatever happens: the changes that the book told the kernel are the bans that it holds, a restart keeps them, and once
    /// everything is reported they are exactly the server's.
    #[test]
    fn the_kernel_follows(steps in prop::collection::vec(any_step(), 0..40)) {
        let mut book = BanBook::default();
        let mut kernel: BTreeMap<IpNet, BanEntry> = BTreeMap::new();
        let mut server: BTreeMap<IpNet, BanEntry> = BTreeMap::new();
        let mut seq = 0;
        book.snapshot(snapshot(0, vec![]));
        for step in steps.into_iter().chain([Step::Report]) {
            let told = match step {
                Step::Own(low, seconds) => vec![book.own(own(low, seconds))],
                Step::Add(low, seconds) => {
                    server.insert(net(low), entry(low, seconds));
                    seq += 1;
                    send(&mut book, seq, BanChange::Add(entry(low, seconds)), &server)
                }
                Step::Remove(low) => {
                    server.remove(&net(low));
                    seq += 1;
                    send(&mut book, seq, BanChange::Remove(net(low)), &server)
                }
                Step::Report => {
                    let batch = BatchId(Uuid::now_v7());
                    let bans: Vec<_> = book.pending().iter().filter(|pending| pending.batch.is_none()).map(|pending| pending.ban.clone()).collect();
                    book.batched(batch, &bans.iter().map(|ban| ban.id).collect());
                    let mut told = vec![];
                    let first = seq;
                    for ban in &bans {
                        let taken = BanEntry { net: ban.net, expires_at: Some(ban.expires_at) };
                        server.insert(ban.net, taken);
                        seq += 1;
                        told.extend(send(&mut book, seq, BanChange::Add(taken), &server));
                    }
                    book.acked(&ReportAck { batch_id: batch, ban_seq: first + count(&bans) });
                    told.extend(book.settle());
                    told
                }
                Step::Restart => {
                    let before = book.entries();
                    book = BanBook::replay(book.records());
                    prop_assert_eq!(book.entries(), before);
                    vec![]
                }
            };
            for change in told {
                match change {
                    BanChange::Add(entry) => kernel.insert(entry.net, entry),
                    BanChange::Remove(net) => kernel.remove(&net),
                };
            }
            prop_assert_eq!(kernel.values().copied().collect::<Vec<_>>(), book.entries());
        }
        prop_assert!(book.pending().is_empty());
        prop_assert_eq!(kernel, server);
    }
}

fn send(book: &mut BanBook, seq: i64, change: BanChange, after: &BTreeMap<IpNet, BanEntry>) -> Vec<BanChange> {
    let after: Vec<_> = after.values().copied().collect();
    match book.delta(&delta(seq, vec![change], &after)) {
        Synced::Applied(changes) => changes,
        other @ (Synced::Partial | Synced::Known | Synced::Broken(_)) => panic!("{other:?}"),
    }
}

#[test]
fn forgets_what_has_ended_and_is_reported() {
    let mut book = BanBook::default();
    let (reported, unreported) = (own(1, 10), own(2, 10));
    book.own(reported.clone());
    book.own(unreported);
    book.batched(BatchId(Uuid::now_v7()), &[reported.id].into());
    book.forget(at(11), at(0) - Duration::DAY);
    assert_eq!(book.pending().len(), 1);
    assert_eq!(book.repeaters().count(), 2);
}

//! `NetRange` finds with `=`, `<=` and `>=` what PostgreSQL's own containment operators find.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use store::blocked_ips::{NetRange, Search};

use crate::world::{NOW, Random, World, allow, ban, connect, insert};

/// Networks that often contain one another: few different bits, all prefix lengths, the ends of the address space included.
fn network(random: &mut Random) -> IpNet {
    let spread = |random: &mut Random, bits: u32| -> u128 {
        (0..3).fold(if random.below(4) == 0 { u128::MAX } else { 0 }, |sum, _| sum ^ (1 << random.below(bits.into())))
    };
    if random.below(2) == 0 {
        let addr = Ipv4Addr::from_bits(u32::try_from(spread(random, 32) & u128::from(u32::MAX)).unwrap());
        IpNet::V4(Ipv4Net::new_assert(addr, u8::try_from(random.below(33)).unwrap()).trunc())
    } else {
        let addr = Ipv6Addr::from_bits(spread(random, 128));
        IpNet::V6(Ipv6Net::new_assert(addr, u8::try_from(random.below(129)).unwrap()).trunc())
    }
}

#[tokio::test]
async fn finds_what_the_containment_operators_find() {
    let world = World::new().await;
    let mut random = Random(1);
    let mut tx = world.tx(world.a).await;
    let mut kept = std::collections::BTreeSet::new();
    while kept.len() < 600 {
        let net = network(&mut random);
        if kept.insert(net) {
            insert(&mut tx, &ban(&net.to_string(), NOW)).await.unwrap();
            if net.prefix_len() > 0 {
                let mut draft = allow("203.0.113.9");
                draft.target = policy::allowed_ips::AllowedTarget::Net(net);
                let id = uuid::Uuid::now_v7().into();
                store::allowed_ips::insert(&mut tx, id, &draft, "ann", NOW).await.unwrap();
            }
        }
    }
    tx.commit().await.unwrap();

    let mut admin = connect(&world.db.admin_url).await;
    let mut tx = world.tx(world.a).await;
    let mut hits = 0;
    for round in 0..400 {
        let asked = network(&mut random);
        let ask = |sql: &'static str| sqlx::query_scalar::<_, IpNet>(sql).bind(asked).bind(world.a.id.0);

        let search = Search { range: Some(NetRange::of(asked)), ..Search::default() };
        let mut found: Vec<IpNet> = store::blocked_ips::list(&mut tx, &search, None, 10_000)
            .await
            .unwrap()
            .into_iter()
            .map(|ban| ban.net)
            .collect();
        let mut overlapping =
            ask("SELECT net FROM blocked_ips WHERE net && $1 AND tenant_id = $2").fetch_all(&mut admin).await.unwrap();
        found.sort_unstable();
        overlapping.sort_unstable();
        assert_eq!(found, overlapping, "round {round}: {asked}");
        assert_eq!(
            store::blocked_ips::count(&mut tx, &search).await.unwrap(),
            i64::try_from(found.len()).unwrap(),
            "round {round}: {asked}"
        );
        hits += found.len();

        let mut inside: Vec<IpNet> =
            store::blocked_ips::inside(&mut tx, asked).await.unwrap().into_iter().map(|(_, net)| net).collect();
        let mut contained =
            ask("SELECT net FROM blocked_ips WHERE net <<= $1 AND tenant_id = $2").fetch_all(&mut admin).await.unwrap();
        inside.sort_unstable();
        contained.sort_unstable();
        assert_eq!(inside, contained, "round {round}: {asked}");

        let allowed = store::allowed_ips::overlapping(&mut tx, asked, NOW).await.unwrap();
        let overlaps = ask("SELECT net FROM allowed_ips WHERE net && $1 AND tenant_id = $2 ORDER BY net LIMIT 1")
            .fetch_optional(&mut admin)
            .await
            .unwrap();
        assert_eq!(allowed, overlaps, "round {round}: {asked}");
    }
    assert!(hits > 1_000, "the networks hardly ever overlap: {hits}");
}

//! Several nodes on one database, each as `ringfence serve` runs it: whatever happens on one is enforced and seen on the others, over the
//! database's notifications and over NATS; nodes go and come without anything being lost.

mod cluster;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actions::bus::{Change, Topic};
use agent::clock::{SharedClock, SystemClock};
use agent::fleet::{Event, Fleet, Told};
use policy::authz::{Operation, Role};
use policy::pbxes::EnrolmentCommand;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::Person;
use cluster::{Balancer, Browser, Cluster, Nats, Node};

/// Whatever is waited for comes within this time. Looks are five seconds apart, and the machine may be busy.
const LONGEST: Duration = Duration::from_secs(30);

/// What the agents of a fleet have told so far.
struct Agents {
    _fleet: Fleet,
    told: mpsc::UnboundedReceiver<Event>,
}

impl Agents {
    /// The agents of a tenant, each connected to `server`.
    fn start(cluster: &Cluster, server: &str) -> Self {
        let (events, told) = mpsc::unbounded_channel();
        let members = cluster.members(server);
        Self { _fleet: Fleet::start(members, Duration::ZERO, &events, &clock()), told }
    }

    /// Waits until an agent tells something.
    async fn tell(&mut self, wanted: impl Fn(Told) -> bool) -> Told {
        timeout(LONGEST, async {
            loop {
                let event = self.told.recv().await.expect("the fleet runs");
                if wanted(event.told) {
                    return event.told;
                }
            }
        })
        .await
        .expect("an agent tells it in time")
    }

    /// Waits until one holds this revision and this number of bans, in whichever order.
    async fn hold(&mut self, revision: i64, bans: i64) {
        let (mut held, mut synced) = (0, -1);
        while held < revision || synced < bans {
            match self.tell(|told| matches!(told, Told::Policy(_) | Told::Bans(_))).await {
                Told::Policy(revision) => held = revision,
                Told::Bans(seq) => synced = seq,
                Told::Connected | Told::Gone | Told::Stored(_) => {}
            }
        }
    }
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

async fn block(browser: &Browser, node: &Node, net: &str) {
    let form = json!({ "net": net, "duration": "3600", "reason": "test" });
    browser.done(node, Operation::BlockIp, &json!({ "form": form, "insist": false })).await;
}

async fn allow(browser: &Browser, node: &Node, target: &str) {
    let form = json!({ "target": target, "note": "", "expires_at": "" });
    browser.done(node, Operation::AddAllowedIp, &json!({ "form": form, "insist": false })).await;
}

/// Waits for a hint on a node's bus.
async fn hint(hints: &mut broadcast::Receiver<Change>, wanted: Change) {
    timeout(LONGEST, async { while hints.recv().await.expect("few hints") != wanted {} })
        .await
        .expect("the hint comes");
}

/// Whether a hint has come so far.
fn has_come(hints: &mut broadcast::Receiver<Change>, wanted: Change) -> bool {
    std::iter::from_fn(|| hints.try_recv().ok()).any(|change| change == wanted)
}

/// A decision on one node, an agent on the other, and browsers on both.
async fn both_ways(nats: Option<&Nats>) {
    let cluster = Cluster::start(1).await;
    let (mut a, mut b) = (cluster.node(nats).await, cluster.node(nats).await);
    hint(&mut a.hints, Change::EVERYTHING).await;
    hint(&mut b.hints, Change::EVERYTHING).await;
    let admin: Person = cluster.office.person(cluster.tenant, Role::SuperAdministrator).await;
    let browser = Browser::of(&admin);
    let mut agents = Agents::start(&cluster, &b.agents.to_string());
    agents.hold(1, 0).await;
    let (mut on_a, mut on_b) = (browser.watch(&a).await, browser.watch(&b).await);

    block(&browser, &a, "203.0.113.9").await;
    let bans = Change { tenant_id: Some(cluster.tenant), topic: Topic::Bans };
    hint(&mut b.hints, bans).await;
    agents.tell(|told| told == Told::Bans(1)).await;
    on_a.sees("blocked_ips").await;
    on_b.sees("blocked_ips").await;
    allow(&browser, &a, "198.51.100.0/24").await;
    agents.tell(|told| told == Told::Policy(2)).await;
    on_a.sees("allowed_ips").await;
    on_b.sees("allowed_ips").await;
    // What the agent of B answered is seen by who watches on A.
    on_a.sees("\"pbxes\"").await;

    // What is revoked on A is cut off on B.
    let pbx = cluster.pbxes(&admin).await[0]["id"].clone();
    browser.done(&a, Operation::RevokePbx, &json!({ "id": pbx })).await;
    agents.tell(|told| told == Told::Gone).await;

    // Who logs out on A is out on B.
    browser.done(&a, Operation::LogOut, &json!({})).await;
    assert_eq!(browser.post(&b, Operation::ListPbxes, &json!({})).await.0, 401);
    on_b.ends().await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn two_nodes_wake_each_other_over_the_database() {
    both_ways(None).await;
}

#[tokio::test]
async fn two_nodes_wake_each_other_over_nats() {
    both_ways(Some(&Nats::start(None).await)).await;
}

#[tokio::test]
async fn a_hint_that_nobody_gave_is_looked_for() {
    let cluster = Cluster::start(1).await;
    let mut node = cluster.node(None).await;
    let browser = Browser::of(&cluster.office.person(cluster.tenant, Role::Auditor).await);
    let mut agents = Agents::start(&cluster, &node.agents.to_string());
    agents.hold(1, 0).await;
    let mut page = browser.watch(&node).await;
    // As if the notification had been lost.
    let mut tx = cluster.office.ctx.store().tenant(cluster.tenant).await.unwrap();
    store::tenants::raise_revision(&mut tx, None).await.unwrap();
    tx.commit().await.unwrap();
    agents.tell(|told| told == Told::Policy(2)).await;
    page.sees("allowed_ips").await;
    let policy = Change { tenant_id: Some(cluster.tenant), topic: Topic::Policy };
    assert!(!has_come(&mut node.hints, policy), "nobody has told");
    node.stop().await;
}

#[tokio::test]
async fn without_its_nats_everything_goes_on_and_with_it_again_at_once() {
    let nats = Nats::start(None).await;
    let cluster = Cluster::start(1).await;
    let (mut a, mut b) = (cluster.node(Some(&nats)).await, cluster.node(Some(&nats)).await);
    hint(&mut a.hints, Change::EVERYTHING).await;
    hint(&mut b.hints, Change::EVERYTHING).await;
    let browser = Browser::of(&cluster.office.person(cluster.tenant, Role::SuperAdministrator).await);
    let mut agents = Agents::start(&cluster, &b.agents.to_string());
    agents.hold(1, 0).await;
    let (mut on_a, mut on_b) = (browser.watch(&a).await, browser.watch(&b).await);
    let port = nats.stop().await;

    has_come(&mut b.hints, Change::EVERYTHING);
    block(&browser, &a, "203.0.113.9").await;
    on_a.sees("blocked_ips").await;
    agents.tell(|told| told == Told::Bans(1)).await;
    on_b.sees("blocked_ips").await;
    let bans = Change { tenant_id: Some(cluster.tenant), topic: Topic::Bans };
    assert!(!has_come(&mut b.hints, bans), "it was looked for, not told");

    let _nats = Nats::start(Some(port)).await;
    hint(&mut a.hints, Change::EVERYTHING).await;
    hint(&mut b.hints, Change::EVERYTHING).await;
    block(&browser, &a, "203.0.113.10").await;
    hint(&mut b.hints, bans).await;
    agents.tell(|told| told == Told::Bans(2)).await;
    a.stop().await;
    b.stop().await;
}

/// Who is on the NATS may say what he likes, and as much of it as he likes.
#[tokio::test]
async fn nonsense_on_the_nats_harms_nobody() {
    let nats = Nats::start(None).await;
    let cluster = Cluster::start(1).await;
    let mut node = cluster.node(Some(&nats)).await;
    hint(&mut node.hints, Change::EVERYTHING).await;
    let client = async_nats::connect(&nats.url).await.unwrap();
    let tenant = cluster.tenant;
    let say = async |what: String| client.publish("ringfence.hints", what.into()).await.unwrap();
    for nonsense in ["", "everything", ":", "\u{0}", &format!("{tenant}:everything"), &"x".repeat(1 << 19)] {
        say(nonsense.to_owned()).await;
    }
    for _ in 0..10_000 {
        say(format!("{tenant}:bans")).await;
    }
    say(format!("{tenant}:policy")).await;
    let mut bans = 0;
    timeout(LONGEST, async {
        loop {
            let change = node.hints.recv().await.expect("so few come through that none is lost");
            match change.topic {
                Topic::Bans => bans += 1,
                Topic::Policy => return,
                other => panic!("{other:?} came from the NATS"),
            }
        }
    })
    .await
    .expect("what is meant comes through");
    assert!((1..100).contains(&bans), "{bans} of 10,000 came through");
    node.stop().await;
}

/// A token that one node made is good on another one, and what counts as the source is who connects, not the load balancer.
#[tokio::test]
async fn agents_enrol_anywhere_and_a_load_balancer_says_who_they_are() {
    let cluster = Cluster::start(0).await;
    let admin = cluster.office.person(cluster.tenant, Role::SuperAdministrator).await;
    let node = cluster.node(None).await;
    let balancer = Balancer::start(vec![node.agents], Some("203.0.113.77".parse().unwrap())).await;
    let pbx: EnrolmentCommand = cluster.office.done(&admin, Operation::AddPbx, json!({ "name": "hq" })).await;
    let token = pbx.command.split_whitespace().last().unwrap();
    let direct = agent::enrol::enrol(token, Some(&node.agents.to_string()), "pbx.test").await;
    assert!(direct.is_err(), "a load balancer that does not say who connects");
    agent::enrol::enrol(token, Some(&balancer.address.to_string()), "pbx.test").await.unwrap();
    let rows = cluster.audit().await;
    let enrolled: Vec<_> = rows.iter().filter(|row| row.action == Operation::EnrolAgent.path()).collect();
    assert!(matches!(enrolled[..], [row] if row.source == "203.0.113.77"), "{enrolled:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_request_under_way_is_completed_while_the_node_stops() {
    let cluster = Cluster::start(0).await;
    let browser = Browser::of(&cluster.office.person(cluster.tenant, Role::Auditor).await);
    let node = cluster.node(None).await;
    let mut page = browser.watch(&node).await;
    let body = json!({ "filter": {}, "after": null }).to_string();
    let mut request = browser.begin(&node, Operation::ListBlockedIps, &body).await;
    let stopping = tokio::spawn(node.stop());
    // From here on nobody new is let in.
    page.ends().await;
    let answer = request.complete(&body).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stopping.await.unwrap();
}

/// One node after the other is replaced while agents report without a pause.
#[tokio::test]
async fn a_rolling_restart_loses_nothing() {
    const AGENTS: usize = 40;
    const EVERY: Duration = Duration::from_millis(50);
    let cluster = Cluster::start(AGENTS).await;
    let admin = cluster.office.person(cluster.tenant, Role::SuperAdministrator).await;
    let (a, b) = (cluster.node(None).await, cluster.node(None).await);
    let balancer = Balancer::start(vec![a.agents, b.agents], None).await;
    let (events, mut told) = mpsc::unbounded_channel();
    let members = cluster.members(&balancer.address.to_string());
    let fleet = Fleet::start(members, Duration::from_secs(1), &events, &clock());
    let mut watched = Browser::of(&admin).watch(&a).await;

    let mut state = State::new(AGENTS);
    state.until(&mut told, |state| state.connected.len() == AGENTS).await;
    let restart = async {
        let a2 = replace(a, &balancer, &cluster).await;
        watched.ends().await;
        let b2 = replace(b, &balancer, &cluster).await;
        (a2, b2)
    };
    let mut restart = std::pin::pin!(restart);
    let mut attacks = interval(EVERY);
    attacks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut round, mut reported) = (0, 0);
    let (a2, b2) = loop {
        tokio::select! {
            nodes = &mut restart => break nodes,
            _ = attacks.tick() => {
                for member in (0..AGENTS).filter(|member| member % 4 == round % 4) {
                    fleet.attack(member, 1).await;
                    reported += 1;
                }
                round += 1;
            }
            event = told.recv() => state.note(event.expect("the fleet runs")),
        }
    };
    assert!(round >= 4, "each has reported while nodes came and went");
    // Each was moved at least once; some tell it only now.
    state.until(&mut told, |state| state.gone >= AGENTS).await;
    // Some are on their way to another node. All batches acknowledged, and everybody holds the whole set.
    state.until(&mut told, |state| state.stored == reported).await;
    let set = cluster.ban_set().await;
    state.until(&mut told, |state| state.bans.values().filter(|seq| **seq == set.seq).count() == AGENTS).await;

    assert_eq!(cluster.blocked(&admin).await, reported, "every ban is there once");
    let batches = cluster.audit().await.iter().filter(|row| row.details.contains("\"batch\"")).count();
    assert_eq!(batches, reported, "every batch was stored once");
    assert_eq!(set.seq, i64::try_from(reported).unwrap());
    cluster.until_enforced(&admin, AGENTS).await;
    for (tenant, verdict) in actions::audit::verify_all(&cluster.office.ctx).await.unwrap() {
        assert!(verdict.broken.is_none(), "{tenant}: {:?}", verdict.broken);
    }
    drop(fleet);
    a2.stop().await;
    b2.stop().await;
}

/// Takes a node out as SIGTERM does, and puts a new one in its place.
async fn replace(node: Node, balancer: &Balancer, cluster: &Cluster) -> Node {
    let address = node.agents;
    node.stop().await;
    let new = cluster.node(None).await;
    balancer.replace(address, new.agents);
    new
}

/// Where the agents of a fleet are.
struct State {
    connected: HashSet<usize>,
    gone: usize,
    stored: usize,
    bans: HashMap<usize, i64>,
}

impl State {
    fn new(agents: usize) -> Self {
        Self { connected: HashSet::with_capacity(agents), gone: 0, stored: 0, bans: HashMap::new() }
    }

    fn note(&mut self, Event { member, told, .. }: Event) {
        match told {
            Told::Connected => {
                self.connected.insert(member);
            }
            Told::Gone => {
                self.connected.remove(&member);
                self.gone += 1;
            }
            Told::Bans(seq) => {
                self.bans.insert(member, seq);
            }
            Told::Stored(events) => self.stored += events,
            Told::Policy(_) => {}
        }
    }

    async fn until(&mut self, told: &mut mpsc::UnboundedReceiver<Event>, wanted: impl Fn(&Self) -> bool) {
        let reached = timeout(LONGEST, async {
            while !wanted(self) {
                let event = told.recv().await.expect("the fleet runs");
                self.note(event);
            }
        });
        let reached = reached.await.is_ok();
        assert!(
            reached,
            "{} connected, {} times gone, {} events stored, bans {:?}",
            self.connected.len(),
            self.gone,
            self.stored,
            self.bans
        );
    }
}

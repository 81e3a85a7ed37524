//! One node with a fleet on it: real clients of the protocol in this process, the released server and its private PostgreSQL beside it, all
//! on the cores of this machine. `RINGFENCE_BENCH_AGENTS` says how many there are, ten to a tenant; 10,000 if it doesn't.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent::clock::{SharedClock, SystemClock};
use agent::fleet::{Event, Fleet, Told};
use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::node::{self, Node};
use crate::report::{Report, Times, say};

const AGENTS_EACH: usize = 10;
const AGENTS: usize = 10_000;
/// The growth is shown from a tenth of the fleet.
const TENTH: usize = 10;
const SINGLE_PUSHES: usize = 20;
/// Bans that each agent reports at once.
const REPORTED: usize = 10;
const LONGEST: Duration = Duration::from_mins(4);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let agents = wanted()?;
    say(&format!(
        "A fleet of {agents} agents, {AGENTS_EACH} to a tenant, on one node; the simulator runs on the same cores"
    ));
    if !Node::is_built() {
        say("  left out: the server is not built; scripts/build.sh builds it\n");
        return Ok(());
    }
    let mut lab = Lab::new(agents).await?;
    let mut fewer = None;
    for count in [agents / TENTH, agents] {
        let figures = lab.run(count).await?;
        say(&format!(
            "  {count:>6} agents: all there after {:>5.1} s, server {:>6.1} MiB, change for all {:>7.1} ms p99, change for one tenant {:>6.1} ms p99, \
             back after a kill {:>5.1} s, {:>7.0} events/s",
            figures.connect_s,
            figures.rss_mib,
            figures.push_all_ms,
            figures.single_push_ms,
            figures.reconnect_s,
            figures.events_per_s
        ));
        if let Some(fewer) = fewer.replace(figures) {
            say(&format!("  {TENTH} times the agents take {}", figures.growth(&fewer)));
        }
        if count == agents {
            #[expect(clippy::cast_precision_loss, reason = "there are fewer agents than 2^52")]
            report.keep("fleet_agents", count as f64);
            report.keep("fleet_server_rss_mib", figures.rss_mib);
            report.keep("fleet_push_all_ms_p99", figures.push_all_ms);
            report.keep("fleet_single_push_ms_p99", figures.single_push_ms);
            report.keep("fleet_reconnect_s", figures.reconnect_s);
            report.keep("events_per_s", figures.events_per_s);
        }
    }
    say("");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how large a benchmark is depends on the machine")]
fn wanted() -> anyhow::Result<usize> {
    match std::env::var("RINGFENCE_BENCH_AGENTS") {
        Ok(text) => text.parse().context("RINGFENCE_BENCH_AGENTS is a number of agents"),
        Err(_) => Ok(AGENTS),
    }
}

#[derive(Clone, Copy)]
struct Figures {
    connect_s: f64,
    rss_mib: f64,
    push_all_ms: f64,
    single_push_ms: f64,
    reconnect_s: f64,
    events_per_s: f64,
}

impl Figures {
    /// How many times as much it is as for fewer agents.
    fn growth(&self, fewer: &Self) -> String {
        format!(
            "{:.1} times as long to connect, {:.1} times the memory, {:.1} times as long for a change for all and {:.1} times for one tenant, {:.1} times as long \
             to be back, {:.1} times the time for an event",
            self.connect_s / fewer.connect_s,
            self.rss_mib / fewer.rss_mib,
            self.push_all_ms / fewer.push_all_ms,
            self.single_push_ms / fewer.single_push_ms,
            self.reconnect_s / fewer.reconnect_s,
            fewer.events_per_s / self.events_per_s
        )
    }
}

/// A server of its own, with enrolled PBXes for all agents.
struct Lab {
    node: Node,
    members: Vec<agent::fleet::Member>,
    tenants: Vec<String>,
}

impl Lab {
    async fn new(agents: usize) -> anyhow::Result<Self> {
        let mut lab = Self { node: Node::new("bench", "localhost").await?, members: Vec::new(), tenants: Vec::new() };
        let tenants = agents.div_ceil(AGENTS_EACH).to_string();
        let seeded = lab
            .node
            .command()
            .args(["fleet-seed", "--tenants", &tenants, "--agents-each", &AGENTS_EACH.to_string()])
            .output()
            .await?;
        ensure!(seeded.status.success(), "fleet-seed: {}", String::from_utf8_lossy(&seeded.stderr));
        lab.members = Fleet::read(&String::from_utf8(seeded.stdout)?)?;
        Ok(lab)
    }

    async fn run(&mut self, count: usize) -> anyhow::Result<Figures> {
        let mut server = self.node.serve().await?;
        self.tenants = self.node.sql("SELECT id FROM tenants WHERE slug LIKE 'fleet-%' ORDER BY created_at").await?;
        let (events, told) = mpsc::unbounded_channel();
        let clock: SharedClock = Arc::new(SystemClock);
        let start = Instant::now();
        let members = self.members.iter().take(count).cloned().collect();
        let fleet = Fleet::start(members, Duration::from_millis(u64::try_from(count)? * 2), &events, &clock);
        let mut told = Listening { told, count };
        told.all(|told| *told == Told::Connected).await.context("connecting")?;
        self.confirmed(count).await?;
        let connect_s = start.elapsed().as_secs_f64();
        sleep(Duration::from_secs(10)).await;
        let rss_mib = node::rss_mib(&server)?;

        told.drain();
        let start = Instant::now();
        self.change("true").await?;
        let push_all = told.all(|told| matches!(told, Told::Policy(_))).await.context("a change for all")?;
        let push_all_ms = Times::new(push_all.into_iter().map(|at| at - start).collect()).percentile(99);

        // The server is still writing down who has applied what.
        sleep(Duration::from_secs(5) + Duration::from_millis(u64::try_from(count)? * 2)).await;
        let mut single = Vec::new();
        for turn in 0..SINGLE_PUSHES {
            sleep(Duration::from_millis(200)).await;
            told.drain();
            let tenant =
                self.tenants.get(turn * count / AGENTS_EACH / SINGLE_PUSHES).context("fewer tenants than agents")?;
            let start = Instant::now();
            self.change(&format!("id = '{tenant}'")).await?;
            let of_one =
                told.some(AGENTS_EACH, |told| matches!(told, Told::Policy(_))).await.context("a change for one")?;
            single.extend(of_one.into_iter().map(|at| at - start));
        }
        let single_push_ms = Times::new(single).percentile(99);

        told.drain();
        let start = Instant::now();
        for member in 0..count {
            fleet.attack(member, REPORTED).await;
        }
        told.all(|told| matches!(told, Told::Stored(_))).await.context("reports")?;
        #[expect(clippy::cast_precision_loss, reason = "there are fewer events than 2^52")]
        let events_per_s = (count * REPORTED) as f64 / start.elapsed().as_secs_f64();

        // Killed, not asked to stop.
        server.kill().await?;
        told.drain();
        let start = Instant::now();
        let mut server = self.node.serve().await?;
        told.all(|told| *told == Told::Connected).await.context("reconnecting")?;
        self.confirmed(count).await?;
        let reconnect_s = start.elapsed().as_secs_f64();
        drop(fleet);
        node::stop(&mut server).await?;
        Ok(Figures { connect_s, rss_mib, push_all_ms, single_push_ms, reconnect_s, events_per_s })
    }

    /// Raises the revision of these tenants' policies and says so, as every change of a policy does when it commits.
    async fn change(&self, which: &str) -> anyhow::Result<()> {
        let sql = format!(
            "WITH changed AS (UPDATE tenants SET policy_revision = policy_revision + 1 WHERE {which} RETURNING id)
             SELECT count(pg_notify('ringfence', id || ':policy')) FROM changed"
        );
        self.node.sql(&sql).await.map(drop)
    }

    /// Waits until the portal shows all of them online with the newest policy and the newest bans.
    async fn confirmed(&self, count: usize) -> anyhow::Result<()> {
        let sql = "SELECT count(*) FROM pbxes p JOIN tenants t ON t.id = p.tenant_id JOIN nodes n ON n.id = p.node_id
                   WHERE p.link_id IS NOT NULL AND n.seen_at > now() - interval '12 seconds'
                     AND p.applied_revision = t.policy_revision AND p.applied_ban_seq = t.ban_seq";
        let until = Instant::now() + LONGEST;
        loop {
            let there = self.node.sql(sql).await?;
            if there == [count.to_string()] {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{there:?} of {count} confirmed");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What the fleet tells.
struct Listening {
    told: mpsc::UnboundedReceiver<Event>,
    count: usize,
}

impl Listening {
    fn drain(&mut self) {
        while self.told.try_recv().is_ok() {}
    }

    /// When each agent first told what is wanted.
    async fn all(&mut self, wanted: impl Fn(&Told) -> bool) -> anyhow::Result<Vec<Instant>> {
        self.some(self.count, wanted).await
    }

    async fn some(&mut self, count: usize, wanted: impl Fn(&Told) -> bool) -> anyhow::Result<Vec<Instant>> {
        let until = Instant::now() + LONGEST;
        let (mut who, mut when) = (BTreeSet::new(), Vec::with_capacity(count));
        while who.len() < count {
            let event =
                timeout_at(until, self.told.recv()).await.with_context(|| format!("{} of {count}", who.len()))?;
            let event = event.context("the fleet is gone")?;
            if wanted(&event.told) && who.insert(event.member) {
                when.push(event.at);
            }
        }
        Ok(when)
    }
}

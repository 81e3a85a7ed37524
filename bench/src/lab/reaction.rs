//! How long an attacker goes on after the wrong password that makes the ban: from sending the last offending REGISTER to the first dropped
//! packet. The agent, fail2ban and CrowdSec one after the other, with one and the same attacker and probe.

use anyhow::{Context as _, bail, ensure};
use rand::RngExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use super::probe::Probe;
use super::{ECHO_PORT, Lab, run, runs, sip};
use crate::node;
use crate::report::{Report, Times, say};

const SIP_PORT: u16 = 5060;

/// Who is measured: how many wrong passwords make a ban, and how long to wait at random before them, as long as whatever turns inside.
struct Defender {
    name: &'static str,
    attempts: u32,
    phase: Duration,
    patience: Duration,
}

const OURS: Defender =
    Defender { name: "ringfence-agent", attempts: 5, phase: Duration::from_secs(1), patience: Duration::from_secs(5) };
const FAIL2BAN: Defender =
    Defender { name: "fail2ban", attempts: 10, phase: Duration::from_secs(2), patience: Duration::from_secs(30) };
const CROWDSEC: Defender =
    Defender { name: "CrowdSec", attempts: 6, phase: Duration::from_secs(10), patience: Duration::from_mins(1) };

/// The agent, connected to its server.
pub(super) async fn ours(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    say("  Last offending REGISTER to first dropped packet, in milliseconds");
    let times = measure(lab, &OURS, runs(60)?).await?;
    report.keep("reaction_ms_p50", times.percentile(50));
    report.keep("reaction_ms_p95", times.percentile(95));
    Ok(())
}

/// What others do, without the agent; as Debian 12 ships them.
pub(super) async fn others(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    say("  The same attacker and probe against others, as Debian 12 ships them");
    let made = run("testbed/peers-rootfs.sh", &[]).await;
    if let Err(error) = made {
        say(&format!("  left out: {error:#}"));
        return Ok(());
    }
    // The agent leaves the firewall as it is when it stops.
    lab.nft(&["flush", "ruleset"]).await?;

    say(&format!("  {}", run("testbed/peer", &["about", "fail2ban"]).await?.trim()));
    let mut fail2ban = start(lab, "fail2ban")?;
    ready(lab, "fail2ban").await?;
    let times = measure(lab, &FAIL2BAN, runs(30)?).await?;
    node::stop(&mut fail2ban).await?;
    lab.nft(&["flush", "ruleset"]).await?;
    report.keep("fail2ban_reaction_ms_p50", times.percentile(50));
    report.ratio("reaction_ratio_fail2ban", "fail2ban_reaction_ms_p50", "reaction_ms_p50");

    say(&format!("  {}", run("testbed/peer", &["about", "crowdsec"]).await?.trim()));
    let mut crowdsec = start(lab, "crowdsec")?;
    ready(lab, "crowdsec").await?;
    let mut bouncer = start(lab, "crowdsec-firewall-bouncer")?;
    ready(lab, "crowdsec-firewall-bouncer").await?;
    let times = measure(lab, &CROWDSEC, runs(12)?).await?;
    node::stop(&mut bouncer).await?;
    node::stop(&mut crowdsec).await?;
    lab.nft(&["flush", "ruleset"]).await?;
    report.keep("crowdsec_reaction_ms_p50", times.percentile(50));
    report.ratio("reaction_ratio_crowdsec", "crowdsec_reaction_ms_p50", "reaction_ms_p50");
    Ok(())
}

/// Runs one of the others in the PBX's namespace.
fn start(lab: &Lab, name: &str) -> anyhow::Result<Child> {
    let log = std::fs::File::create(lab.node.folder.join(format!("{name}.log")))?;
    let mut command = Command::new("testbed/peer");
    command.args(["run", name, &lab.name]).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    Ok(command.spawn()?)
}

async fn ready(lab: &Lab, name: &str) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_mins(1);
    while run("testbed/peer", &["ready", name, &lab.name]).await.is_err() {
        if Instant::now() > until {
            let log = std::fs::read_to_string(lab.node.folder.join(format!("{name}.log"))).unwrap_or_default();
            bail!("{name} does not come up:\n{log}");
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn measure(lab: &Lab, defender: &Defender, runs: usize) -> anyhow::Result<Times> {
    let (mut times, mut missed) = (Vec::with_capacity(runs), 0);
    for run in 0..runs {
        sleep(defender.phase.mul_f64(rand::rng().random::<f64>())).await;
        match once(lab, defender).with_context(|| format!("{}, run {run}", defender.name))? {
            Some(took) => times.push(took),
            None => missed += 1,
        }
    }
    ensure!(!times.is_empty(), "{} has banned nobody", defender.name);
    let times = Times::new(times);
    say(&times.line(defender.name));
    if missed > 0 {
        say(&format!(
            "    in {missed} more runs it did not count all {} attempts and banned nobody",
            defender.attempts
        ));
    }
    Ok(times)
}

/// One attack from an address that nobody has seen before; `None` when it led to no ban.
fn once(lab: &Lab, defender: &Defender) -> anyhow::Result<Option<Duration>> {
    let source = lab.source();
    let probe = Probe::start(lab.socket(source, ECHO_PORT)?)?;
    let phone = lab.socket(source, SIP_PORT)?;
    let mut last = Instant::now();
    for _ in 0..defender.attempts {
        last = sip::attempt(&phone)?;
    }
    let Some(dropped) = probe.dropped(defender.patience)? else { return Ok(None) };
    ensure!(dropped > last, "banned before the last of {} wrong passwords was sent", defender.attempts);
    Ok(Some(dropped - last))
}

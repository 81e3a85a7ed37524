//! What the agent costs the PBX: memory, and time of the processor while attackers try 150 passwords a second.

use std::net::UdpSocket;

use anyhow::{Context as _, ensure};
use tokio::process::Child;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{Lab, sip};
use crate::node;
use crate::report::{Report, say};

const A_SECOND: u32 = 150;
const SECONDS: u32 = 20;
/// Attempts from one address: the last makes the ban, so that all of them arrive at Asterisk.
const EACH: u32 = 5;
/// The kernel counts a process's time in hundredths of a second, whatever its own clock ticks.
const TICKS: f64 = 100.0;

pub(super) async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let agent = lab.agent()?;
    let quiet = over(agent, Duration::from_secs(5)).await?;
    let before = cpu(agent)?;
    let begun = Instant::now();
    let mut phone: Option<UdpSocket> = None;
    for attempt in 0..A_SECOND * SECONDS {
        sleep_until(begun + Duration::from_secs(1) * attempt / A_SECOND).await;
        if attempt % EACH == 0 {
            phone = Some(lab.socket(lab.source(), 5060)?);
        }
        sip::attempt(phone.as_ref().context("no phone")?)?;
    }
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(u64::from(SECONDS) + 1), "this machine can't send {A_SECOND} attempts a second");
    let percent = (cpu(agent)? - before) / took.as_secs_f64() * 100.0;
    let rss = node::rss_mib(agent)?;
    say(&format!(
        "  {A_SECOND} wrong REGISTERs a second for {SECONDS} s, each address banned by its fifth: agent {percent:.1} % of one core \
         ({quiet:.1} % when nothing happens), {rss:.1} MiB afterwards"
    ));
    report.keep("agent_cpu_percent_150_attempts", percent);
    report.keep("agent_rss_mib", rss);
    Ok(())
}

/// Percent of one core that a process takes for a while.
pub(super) async fn over(process: &Child, time: Duration) -> anyhow::Result<f64> {
    let (before, begun) = (cpu(process)?, Instant::now());
    sleep(time).await;
    Ok((cpu(process)? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

/// Seconds of processor time that a process has taken.
fn cpu(process: &Child) -> anyhow::Result<f64> {
    let id = process.id().context("the process has ended")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name of the program may hold anything but ends with the last parenthesis; time in user and system mode are the 14th and 15th field.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}

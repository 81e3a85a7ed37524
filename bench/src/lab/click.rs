//! From an administrator's click to the first dropped packet: the request of the server function that blocks an address leaves, the server
//! decides, writes and commits, the agent hears of it and tells the kernel.

use anyhow::Context as _;
use tokio::time::{Duration, sleep};

use super::probe::Probe;
use super::{ECHO_PORT, Lab, runs};
use crate::report::{Report, Times, say};

const PATIENCE: Duration = Duration::from_secs(10);
/// Below what one person may ask of the server in the long run.
const BETWEEN: Duration = Duration::from_millis(20);

pub(super) async fn measure(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    say("  An administrator's click to the first dropped packet, in milliseconds");
    let runs = runs(200)?;
    lab.portal.reconnect()?;
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs {
        sleep(BETWEEN).await;
        let source = lab.source();
        let probe = Probe::start(lab.socket(source, ECHO_PORT)?)?;
        let (_, clicked) = lab.portal.block(source)?;
        let dropped = probe.dropped(PATIENCE)?.with_context(|| format!("click {run} shut nobody out"))?;
        times.push(dropped - clicked);
    }
    let times = Times::new(times);
    say(&times.line("click to drop"));
    report.keep("click_to_drop_ms_p50", times.percentile(50));
    report.keep("click_to_drop_ms_p99", times.percentile(99));
    Ok(())
}

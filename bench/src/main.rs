//! Measures what the targets are about, prints it beside a plain way of doing the same in the same run, and keeps the numbers
//! in `target/bench/summary.json`. Asserts nothing: what a run says depends on the machine, ratios less so.

mod blocked_ips;
mod browser;
mod first_load;
mod fleet;
mod lab;
mod login;
mod node;
mod report;

use report::Report;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut terminated = signal(SignalKind::terminate())?;
    // Dropped where it is, it ends what it has started.
    tokio::select! {
        measured = measure(&mut report) => measured?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("asked to stop"),
    }
    report.write()
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    if wanted("first_load") {
        first_load::measure(report).await?;
    }
    if wanted("blocked_ips") {
        blocked_ips::measure(report).await?;
    }
    if wanted("login") {
        login::measure(report).await?;
    }
    if wanted("lab") {
        lab::measure(report).await?;
    }
    if wanted("fleet") {
        fleet::measure(report).await?;
    }
    Ok(())
}

/// All of it, or what `RINGFENCE_BENCH_ONLY` names.
#[expect(clippy::disallowed_methods, reason = "what of a benchmark is run is up to who waits for it")]
fn wanted(part: &str) -> bool {
    std::env::var("RINGFENCE_BENCH_ONLY").map_or(true, |only| only.split(',').any(|name| name == part))
}

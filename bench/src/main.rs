//! Measures what the targets are about, prints it beside a plain way of doing the same in the same run, and keeps the numbers
//! in `target/bench/summary.json`. Asserts nothing: what a run says depends on the machine, ratios less so.

mod blocked_ips;
mod first_load;
mod fleet;
mod report;

use report::Report;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut report = Report::default();
    first_load::measure(&mut report)?;
    blocked_ips::measure(&mut report).await?;
    fleet::measure(&mut report).await?;
    report.write()
}

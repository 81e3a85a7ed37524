//! What was measured, on the screen and in the summary. The one place that prints.
#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value};

const SUMMARY: &str = "target/bench/summary.json";

/// What is aimed at.
const TARGETS: [(&str, &str); 15] = [
    ("first_load_brotli_kib", "<= 341"),
    ("login_timing_ks", "< 0.136"),
    ("spray_page_ratio_p99", "<= 2"),
    ("reaction_ratio_fail2ban", ">= 100"),
    ("reaction_ratio_crowdsec", ">= 1,000"),
    ("click_to_drop_ms_p99", "<= 50"),
    ("ban_into_100k_ratio", "<= 1.5"),
    ("apply_100k_s", "<= 2"),
    ("agent_rss_mib", "<= 32"),
    ("fleet_agents", "10,000"),
    ("fleet_server_rss_mib", "<= 1,000"),
    ("fleet_push_all_ms_p99", "<= 5,000"),
    ("fleet_single_push_ms_p99", "<= 100"),
    ("fleet_reconnect_s", "<= 60"),
    ("events_per_s", ">= 5,000"),
];

/// Prints a line.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Collects what goes into the summary.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeMap<&'static str, f64>);

impl Report {
    pub(crate) fn keep(&mut self, key: &'static str, value: f64) {
        self.0.insert(key, (value * 100.0).round() / 100.0);
    }

    /// Keeps what is smaller than hundredths.
    pub(crate) fn keep_fine(&mut self, key: &'static str, value: f64) {
        self.0.insert(key, (value * 10_000.0).round() / 10_000.0);
    }

    /// How many times one value that was kept goes into another.
    pub(crate) fn ratio(&mut self, key: &'static str, of: &str, to: &str) {
        if let Some((of, to)) = self.0.get(of).copied().zip(self.0.get(to).copied()) {
            self.keep(key, of / to);
        }
    }

    /// Adds to the summary of earlier runs and of other benchmarks.
    pub(crate) fn write(self) -> anyhow::Result<()> {
        let mut summary: Map<String, Value> =
            std::fs::read(SUMMARY).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        println!("{:<34} {:>12} {:>12}", "", "measured", "target");
        for (key, value) in &self.0 {
            let target = TARGETS.iter().find(|(name, _)| name == key).map_or("", |(_, target)| target);
            println!("{key:<34} {value:>12} {target:>12}");
            summary.insert((*key).to_owned(), (*value).into());
        }
        if let Some(folder) = Path::new(SUMMARY).parent() {
            std::fs::create_dir_all(folder).context("making target/bench")?;
        }
        std::fs::write(SUMMARY, serde_json::to_string_pretty(&summary)?).with_context(|| format!("writing {SUMMARY}"))
    }
}

/// How long many runs of one thing took.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Milliseconds that `percent` of the runs stayed below.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    /// A line about them.
    pub(crate) fn line(&self, name: &str) -> String {
        let [min, p50, p95, p99, max] = [0, 50, 95, 99, 100].map(|percent| self.percentile(percent));
        let runs = self.0.len();
        format!(
            "    {name:<26} {runs:>4} runs  min {min:>9.2}  p50 {p50:>9.2}  p95 {p95:>9.2}  p99 {p99:>9.2}  max {max:>9.2}"
        )
    }
}

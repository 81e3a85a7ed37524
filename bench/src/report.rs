//! What was measured, on the screen and in the summary. The one place that prints.
#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value};

const SUMMARY: &str = "target/bench/summary.json";

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

    /// Adds to the summary of earlier runs and of other benchmarks.
    pub(crate) fn write(self) -> anyhow::Result<()> {
        let mut summary: Map<String, Value> =
            std::fs::read(SUMMARY).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        for (key, value) in &self.0 {
            println!("{key} = {value}");
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
}

//! What the agent measures of itself, by the names that `policy::metrics` declares. A map behind a lock: a recorder made for servers would
//! cost more memory than all that is in here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::metrics::{
    AGENT, AGENT_BUILD, AGENT_ENFORCED, BUCKETS, Kind, Metric, PROCESS, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RSS,
    PROCESS_START,
};
use rustix::process::{Resource, getrlimit};
use time::OffsetDateTime;

/// The metrics of one agent.
#[derive(Debug)]
pub struct Metrics {
    kernel: bool,
    cells: Mutex<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    /// By name and by the value of the only label; empty without one.
    values: BTreeMap<(&'static str, &'static str), f64>,
    histograms: BTreeMap<&'static str, Histogram>,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// Of an agent that starts now; `kernel` says whether what enforces is the kernel.
    pub fn new(now: OffsetDateTime, kernel: bool) -> Self {
        let metrics = Self { kernel, cells: Mutex::default() };
        for metric in AGENT {
            match (metric.kind, metric.labels) {
                (Kind::Counter, []) => metrics.add(metric, "", 0),
                (Kind::Counter, ["proven"]) => {
                    for label in ["yes", "no"] {
                        metrics.add(metric, label, 0);
                    }
                }
                (Kind::Histogram, _) => {
                    metrics.cells().histograms.insert(metric.name, Histogram::default());
                }
                _ => {}
            }
        }
        metrics.put(&AGENT_BUILD, env!("CARGO_PKG_VERSION"), 1.0);
        metrics.set_time(&PROCESS_START, Some(now));
        metrics
    }

    /// Adds to a counter, under the value of its label; an empty one for a counter without labels.
    pub fn add(&self, metric: &Metric, label: &'static str, many: u64) {
        *self.cells().values.entry((metric.name, label)).or_default() += number(many);
    }

    /// Sets what has no labels: a gauge, or a counter that is kept elsewhere.
    pub fn set(&self, metric: &Metric, value: u64) {
        self.put(metric, "", number(value));
    }

    /// Sets a gauge that says yes or no.
    pub fn say(&self, metric: &Metric, yes: bool) {
        self.put(metric, "", f64::from(u8::from(yes)));
    }

    /// Sets a gauge that may be below nothing.
    #[expect(clippy::cast_precision_loss, reason = "to the second for millions of years")]
    pub fn set_signed(&self, metric: &Metric, value: i64) {
        self.put(metric, "", value as f64);
    }

    /// Sets a gauge to an instant in seconds since 1970; 0 for never.
    pub fn set_time(&self, metric: &Metric, at: Option<OffsetDateTime>) {
        self.set_signed(metric, at.map_or(0, OffsetDateTime::unix_timestamp));
    }

    /// Counts a duration.
    pub fn observe(&self, metric: &Metric, took: Duration) {
        let mut cells = self.cells();
        let histogram = cells.histograms.entry(metric.name).or_default();
        let seconds = took.as_secs_f64();
        for (count, end) in histogram.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= end);
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    /// Whether this machine is protected: everything is in the kernel.
    ///
    /// # Errors
    /// What it lacks.
    pub fn ready(&self) -> Result<(), &'static str> {
        let enforced = self.cells().values.get(&(AGENT_ENFORCED.name, "")).is_some_and(|value| *value > 0.0);
        match (self.kernel, enforced) {
            (true, true) => Ok(()),
            (true, false) => Err("the kernel lacks rules or bans"),
            (false, _) => Err("the firewall is memory: nothing is blocked"),
        }
    }

    /// All of them, as Prometheus reads them.
    pub fn text(&self) -> String {
        self.measure_process();
        let cells = self.cells();
        let mut text = String::new();
        for metric in [PROCESS, AGENT].into_iter().flatten() {
            let Metric { name, kind, help, labels, .. } = metric;
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
            for ((_, value), number) in cells.values.range((metric.name, "")..).take_while(|((of, _), _)| of == name) {
                let _ = match labels.first() {
                    Some(label) => writeln!(text, "{name}{{{label}=\"{value}\"}} {number}"),
                    None => writeln!(text, "{name} {number}"),
                };
            }
            if let Some(Histogram { buckets, count, sum }) = cells.histograms.get(metric.name) {
                for (end, count) in BUCKETS.iter().zip(buckets) {
                    let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {count}");
                }
                let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
            }
        }
        text
    }

    fn measure_process(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        if let Some(kilobytes) = kilobytes {
            self.set(&PROCESS_RSS, kilobytes * 1024);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.set(&PROCESS_FDS, open.count() as u64);
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.set(&PROCESS_MAX_FDS, most);
        }
    }

    fn put(&self, metric: &Metric, label: &'static str, value: f64) {
        self.cells().values.insert((metric.name, label), value);
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of an agent stay far below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

//! Memory and open files of this process, from the kernel, at the moment of asking.

use policy::metrics::{PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RSS};
use rustix::process::{Resource, getrlimit};

#[expect(clippy::cast_precision_loss, reason = "no machine has so much memory, no process so many files")]
pub(super) fn measure() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!(PROCESS_RSS.name).set(bytes as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!(PROCESS_FDS.name).set(open.count() as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        metrics::gauge!(PROCESS_MAX_FDS.name).set(most as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

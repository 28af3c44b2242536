//! What this process costs: the only place, besides what shows progress, that looks at the outside.

use rustix::time::{ClockId, clock_gettime};

/// Processor seconds that this process has used, all threads together.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}

/// The greatest resident set of this process so far, in MiB; `None` where the system does not say (`/proc/self/status`).
#[must_use]
pub fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

//! What a process has used, as the kernel counts it; and what a sample looks like.

use std::time::Duration;

/// Processor time of a process so far, its threads and what the kernel did for them included.
///
/// # Panics
/// There is no such process.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name is in parentheses and may hold anything; behind it fields are parted by blanks, from the third on.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux has counted in hundredths of a second for all programs since 2.6.
    Duration::from_millis(ticks * 10)
}

/// Memory of a process that is in use now, in MiB.
///
/// # Panics
/// There is no such process.
pub fn rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// The value below which this share of a sample lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

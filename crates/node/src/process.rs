//! What a process uses, as the kernel counts it.

use std::io;
use std::time::Duration;

/// Memory and CPU time of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes, shared pages included.
    pub resident_bytes: u64,
    /// CPU time of all threads since the start, user and system, in steps of (usually) 10 ms.
    pub cpu: Duration,
}

/// Reads what the process `pid` uses now; `None` means this process.
///
/// # Errors
/// There is no such process, or its `/proc` entry is not readable or not in the form of proc(5).
#[cfg(target_os = "linux")]
pub fn usage(pid: Option<u32>) -> io::Result<Usage> {
    let directory = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let statm = std::fs::read_to_string(format!("{directory}/statm"))?;
    let stat = std::fs::read_to_string(format!("{directory}/stat"))?;
    let malformed =
        |file| io::Error::new(io::ErrorKind::InvalidData, format!("{directory}/{file} has an unknown form"));
    let pages = resident_pages(&statm).ok_or_else(|| malformed("statm"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| malformed("stat"))?;
    let page_size = rustix::param::page_size() as u64;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Usage {
        resident_bytes: pages.saturating_mul(page_size),
        cpu: Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second),
    })
}

/// Reads what the process `pid` uses now.
///
/// # Errors
/// Always: only Linux is supported.
#[cfg(not(target_os = "linux"))]
pub fn usage(_pid: Option<u32>) -> io::Result<Usage> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the usage of a process is read from /proc, which only Linux has",
    ))
}

/// The second field of `/proc/<pid>/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The fields 14 (utime) and 15 (stime) of `/proc/<pid>/stat`. The second field is the program's name in parentheses and may
/// itself contain spaces and parentheses; the last `)` ends it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 500 0 3 0 17 25 0 0 20 0 4 0 100 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("4242 (x) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn resident_memory_is_the_second_field() {
        assert_eq!(resident_pages("1000 250 30 4 0 99 0\n"), Some(250));
        assert_eq!(resident_pages("1000"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_can_be_read_by_name_and_number() {
        let before = usage(None).unwrap();
        assert!((1 << 20..1 << 32).contains(&before.resident_bytes), "{before:?}");
        let ballast = vec![1_u8; 64 << 20];
        let more = usage(Some(std::process::id())).unwrap();
        assert!(more.resident_bytes > before.resident_bytes + (32 << 20), "{before:?} {more:?}");
        assert!(ballast.iter().all(|&byte| byte == 1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn cpu_time_grows_with_work() {
        let before = usage(None).unwrap().cpu;
        let mut x = 1_u64;
        while usage(None).unwrap().cpu < before + Duration::from_millis(20) {
            for _ in 0..100_000 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
        }
        assert_ne!(x, 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_is_not_there_is_an_error() {
        assert_eq!(usage(Some(u32::MAX)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

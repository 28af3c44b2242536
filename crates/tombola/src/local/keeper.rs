//! The keeper: a process that clears up when the one that started a local network has died without doing so.
//!
//! It is told the processes' ids, a line each, on its standard input. When that ends, whatever the reason, it waits for
//! them (they end by themselves, for the same reason), kills those of them that do not, and removes the folder.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long processes may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(30);

/// Beginning of the name of every folder that a local network makes.
pub(super) const FOLDER_PREFIX: &str = "tombola-local-";

/// Arguments of the keeper.
#[derive(Clone, Debug, clap::Args)]
pub struct KeeperArgs {
    /// The folder.
    #[arg(long)]
    folder: PathBuf,
}

/// Runs the keeper.
///
/// # Errors
/// The folder is none that a local network made, or cannot be removed.
pub fn keep(args: &KeeperArgs) -> Result<()> {
    let name = args.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.starts_with(FOLDER_PREFIX) {
        bail!("{} was not made by a local network; it is left alone", args.folder.display());
    }
    let pids: Vec<i32> = std::io::stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|&pid| is_ours(pid)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    for &pid in pids.iter().filter(|&&pid| is_ours(pid)) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if args.folder.exists() {
        std::fs::remove_dir_all(&args.folder)?;
    }
    Ok(())
}

/// Whether a process runs this very binary: an id may have been given to somebody else.
fn is_ours(pid: i32) -> bool {
    let exe = |path: PathBuf| std::fs::read_link(path).ok();
    let theirs = exe(Path::new("/proc").join(pid.to_string()).join("exe"));
    theirs.is_some() && theirs == exe(PathBuf::from("/proc/self/exe"))
}

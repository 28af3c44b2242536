//! `cargo xtask fuzz`: a short run of every fuzz target.
//!
//! On the stable toolchain, hence without a sanitizer: the only unsafe code that parsers reach are vector instructions that
//! read and write no memory, so what is looked for is a panic, an overflow, a hang, or a broken assertion of the target. The corpus stays in
//! `fuzz/corpus`, so that later runs start where earlier ones ended; `fuzz/seeds` holds what they begin with.

use std::path::Path;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, bail, ensure};

use crate::metadata::Workspace;
use crate::process::{self, Process};
use crate::stages::Stages;
use crate::tools;

/// Memory, in MiB, at which a target counts as broken: no parser here needs a tenth of it.
const MEMORY_LIMIT_MIB: u32 = 1024;

/// Seconds after which a single input counts as a hang, on a machine that is busy with other things too.
const TIMEOUT_S: u32 = 10;

/// Runs `targets`, or all if there are none, for `seconds` each, as many at a time as there are cores.
///
/// # Errors
///
/// A target does not exist, does not build, or found something; then the input is in `fuzz/artifacts`.
pub(crate) fn run(workspace: &Workspace, seconds: u32, targets: &[String]) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    let root = workspace.root();
    let all = stages.run("find cargo-fuzz and the targets", || {
        tools::FUZZ.install(workspace)?;
        all_targets(root)
    })?;
    if let Some(unknown) = targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no fuzz target `{unknown}`; there are: {}", all.join(", "));
    }
    let chosen = if targets.is_empty() { &all } else { targets };
    stages.run("build the targets", || match targets {
        [only] => cargo_fuzz(root, "build").arg(only).run(),
        _ => cargo_fuzz(root, "build").run(),
    })?;
    stages.run("run the targets", || run_all(root, seconds, chosen))?;
    stages.finish();
    Ok(())
}

fn cargo_fuzz(root: &Path, command: &str) -> Process {
    process::cargo(root).args(["fuzz", command, "--sanitizer", "none"])
}

fn run_all(root: &Path, seconds: u32, targets: &[String]) -> anyhow::Result<()> {
    let queue = Mutex::new(targets.iter());
    let failures = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let result = run_one(root, seconds, target);
                    if let (Err(error), Ok(mut failures)) = (result, failures.lock()) {
                        failures.push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().context("a thread panicked")?;
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

fn run_one(root: &Path, seconds: u32, target: &str) -> anyhow::Result<()> {
    // The first directory also takes what the run learns.
    let corpus = root.join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    let seeds = Some(root.join("fuzz/seeds").join(target)).filter(|seeds| seeds.is_dir());
    let process = cargo_fuzz(root, "run")
        .arg(target)
        .args([corpus].into_iter().chain(seeds))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
        .args(["-verbosity=0", "-print_final_stats=1"]);
    let (passed, output) = process.try_capture_errors()?;
    ensure!(passed, "fuzz target {target} failed: `{}`\n{output}", process.shown());
    let executed = executed_units(&output);
    // A target that hardly ran has shown nothing.
    ensure!(executed.is_some_and(|count| count > 0), "fuzz target {target} ran no input:\n{output}");
    println!("  {target:24} {:>10} inputs", executed.unwrap_or_default());
    Ok(())
}

/// The number of inputs that libFuzzer says it ran.
fn executed_units(output: &str) -> Option<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

/// The files of `fuzz/fuzz_targets`, checked against what `fuzz/Cargo.toml` declares: a target that nobody runs is
/// worse than none.
fn all_targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let declared = process::cargo(root).args(["fuzz", "list"]).capture()?;
    let mut declared: Vec<String> = declared.lines().map(str::to_owned).collect();
    declared.sort();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            files.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    files.sort();
    ensure!(
        files == declared,
        "fuzz/Cargo.toml declares {declared:?}, but fuzz/fuzz_targets holds {files:?}"
    );
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted() {
        let output = "INFO: seed\nstat::number_of_executed_units: 472747\nstat::peak_rss_mb: 41\n";
        assert_eq!(executed_units(output), Some(472_747));
        assert_eq!(executed_units("nothing"), None);
    }
}

//! Instructions per packet, counted by callgrind where valgrind is installed: a figure that no other load moves.
//!
//! Valgrind knows no AVX-512 and hides it from programs, so only the other paths can be counted.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::metadata::Workspace;
use crate::process::{self, Process};
use crate::tools;

/// Paths of `tombola-lanes` that valgrind can run.
const PATHS: [&str; 2] = ["avx2", "portable"];
/// Packets of a batch of the benchmark `paths`.
const BATCH: u32 = 32;
/// Batches of the two runs whose difference counts.
const BATCHES: (u32, u32) = (1, 3);

/// Counts, if valgrind is there; else nothing, and it says so.
///
/// # Errors
///
/// The benchmark does not build, or does not run under callgrind.
pub(super) fn run(workspace: &Workspace) -> anyhow::Result<Vec<(String, f64)>> {
    if !tools::is_on_path("valgrind") {
        println!("instructions are not counted: valgrind is not installed");
        return Ok(Vec::new());
    }
    let binary = binary(workspace)?;
    let mut figures = Vec::new();
    for path in PATHS {
        let count = |batches| instructions(workspace.root(), &binary, path, batches);
        let more = count(BATCHES.1)?.saturating_sub(count(BATCHES.0)?);
        let packets = BATCH * (BATCHES.1 - BATCHES.0);
        figures.push((format!("sphinx.unwrap.{path}.instructions"), more as f64 / f64::from(packets)));
    }
    Ok(figures)
}

/// A line of `cargo bench --no-run --message-format json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Builds the benchmark `paths`, and says where it is.
///
/// # Errors
///
/// It does not build.
pub(crate) fn binary(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut executable = None;
    process::cargo(workspace.root())
        .args(["bench", "--locked", "--package", "tombola-sphinx", "--bench", "paths", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .run_with_lines(|line| {
            if let Ok(Message { executable: Some(path) }) = serde_json::from_str(line) {
                executable = Some(path);
            }
        })?;
    executable.context("cargo did not say where it put the benchmark `paths`")
}

fn instructions(root: &Path, binary: &Path, path: &str, batches: u32) -> anyhow::Result<u64> {
    let process = Process::new("valgrind", root)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .args(["--instructions", path, &batches.to_string()]);
    let (passed, output) = process.try_capture_errors()?;
    anyhow::ensure!(passed, "`{}` failed:\n{output}", process.shown());
    collected(&output).with_context(|| format!("callgrind did not say what it counted:\n{output}"))
}

/// `==123== Collected : 456`.
fn collected(output: &str) -> Option<u64> {
    let line = output.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_prints() {
        let output = "==7== \n==7== Events    : Ir\n==7== Collected : 245128\n==7== \n";
        assert_eq!(collected(output), Some(245_128));
        assert_eq!(collected("==7== killed"), None);
    }
}

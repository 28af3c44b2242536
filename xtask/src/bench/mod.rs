//! `cargo xtask bench`: runs the benchmarks of every crate that has some, and writes what they measured as JSON.
//!
//! The benchmarks use divan, which prints a table and knows no other format; [`divan`] reads that table, [`report`]
//! turns it into named figures and ratios. A ratio compares two benchmarks of one run on one machine, which is the
//! only comparison that survives a noisy machine.

mod divan;
mod report;

use std::path::Path;

use anyhow::{Context, ensure};

use crate::metadata::{Package, Workspace};
use crate::process;

/// Runs all benchmarks and, if a file is named, writes the report into it.
///
/// # Errors
///
/// A benchmark does not build or run, nothing was measured, or the file cannot be written.
pub(crate) fn run(workspace: &Workspace, json: Option<&Path>) -> anyhow::Result<()> {
    let mut report = report::Report::new(report::Machine::here());
    for (package, target) in benches(workspace) {
        let mut table = divan::Table::default();
        process::cargo(workspace.root())
            .args(["bench", "--locked", "--package", &package.name, "--bench", target])
            .args(["--", "--color", "never"])
            .run_with_lines(|line| {
                println!("{line}");
                table.read(line);
            })?;
        let measured = table.into_benchmarks();
        ensure!(!measured.is_empty(), "benchmark `{target}` of {} printed no table of divan", package.name);
        let group = package.name.strip_prefix("tombola-").unwrap_or(&package.name);
        report.add(group, &measured)?;
    }
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.into_json())?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    Ok(())
}

/// Runs each benchmark a single time, to see that none is broken; figures are not taken.
///
/// # Errors
///
/// A benchmark does not build or panics.
pub(crate) fn run_once(workspace: &Workspace) -> anyhow::Result<()> {
    for (package, target) in benches(workspace) {
        process::cargo(workspace.root())
            .args(["test", "--quiet", "--locked", "--package", &package.name, "--bench", target])
            .args(["--", "--test"])
            .run()?;
    }
    Ok(())
}

/// The benchmarks of the workspace: crate and name, in the order of `cargo metadata`.
fn benches(workspace: &Workspace) -> impl Iterator<Item = (&Package, &str)> {
    workspace.metadata.members().flat_map(|package| {
        let benches = package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bench"));
        benches.map(move |target| (package, target.name.as_str()))
    })
}

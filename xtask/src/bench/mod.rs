//! `cargo xtask bench`: runs the benchmarks of every crate that has some, and writes what they measured as JSON.
//!
//! The benchmarks use divan, which prints a table and knows no other format; [`divan`] reads that table, [`report`]
//! turns it into named figures and ratios. A ratio compares two benchmarks of one run on one machine, which is the
//! only comparison that survives a noisy machine. A benchmark that has to interleave what it compares prints its figures
//! itself ([`figure`]). Where valgrind is installed, [`callgrind`] counts instructions, which no noise moves.

mod callgrind;
mod divan;
mod report;

use std::path::Path;

use anyhow::{Context, ensure};

use crate::metadata::{Package, Workspace};
use crate::process;

pub(crate) use callgrind::binary as paths_binary;

/// Runs all benchmarks and, if a file is named, writes the report into it.
///
/// # Errors
///
/// A benchmark does not build or run, nothing was measured, or the file cannot be written.
pub(crate) fn run(workspace: &Workspace, json: Option<&Path>) -> anyhow::Result<()> {
    let mut report = report::Report::new(report::Machine::here());
    for (package, target) in benches(workspace) {
        let mut table = divan::Table::default();
        let mut figures = Vec::new();
        process::cargo(workspace.root())
            .args(["bench", "--locked", "--package", &package.name, "--bench", target])
            .args(["--", "--color", "never"])
            .run_with_lines(|line| {
                println!("{line}");
                table.read(line);
                figures.extend(figure(line));
            })?;
        let measured = table.into_benchmarks();
        ensure!(
            !measured.is_empty() || !figures.is_empty(),
            "benchmark `{target}` of {} printed neither a table of divan nor figures",
            package.name
        );
        let group = package.name.strip_prefix("tombola-").unwrap_or(&package.name);
        report.add(group, &measured)?;
        for (key, value) in figures {
            report.set(&key, value)?;
        }
    }
    for (key, value) in callgrind::run(workspace)? {
        println!("{key} {value}");
        report.set(&key, value)?;
    }
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.into_json()?)?;
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

/// What a benchmark that is not made with divan hands over: a line `figure KEY VALUE`, in which dots part the names of
/// nested objects.
fn figure(line: &str) -> Option<(String, f64)> {
    let (key, value) = line.strip_prefix("figure ")?.split_once(' ')?;
    Some((key.into(), value.parse().ok()?))
}

/// The benchmarks of the workspace: crate and name, in the order of `cargo metadata`.
fn benches(workspace: &Workspace) -> impl Iterator<Item = (&Package, &str)> {
    workspace.metadata.members().flat_map(|package| {
        let benches = package.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bench"));
        benches.map(move |target| (package, target.name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_figures() {
        assert_eq!(figure("figure sphinx.build.ns 12.50"), Some(("sphinx.build.ns".into(), 12.5)));
        assert_eq!(figure("figure sphinx.build.ns fast"), None);
        assert_eq!(figure("sphinx.build.ns 12.50"), None);
    }
}

//! `cargo xtask test`: everything that tests the project.
//!
//! End-to-end tests start the real program. They find it through `TOMBOLA_BIN`; it is the release build, so that a
//! whole network fits on a small machine. Anvil, which the contracts stage installs, is named in `TOMBOLA_ANVIL`.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;

use crate::bench;
use crate::constant_time;
use crate::contracts;
use crate::layers;
use crate::metadata::Workspace;
use crate::process;
use crate::stages::Stages;

/// Runs all tests, cheap ones first.
///
/// # Errors
///
/// The first stage that failed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    let root = workspace.root();
    stages.run("layer rules", || layers::run(workspace))?;
    contracts::test(workspace, &mut stages)?;
    let binary = stages.run("build the release binary", || release_binary(workspace))?;
    stages.run("build tests and examples", || {
        process::cargo(root).args(["test", "--workspace", "--locked", "--no-run"]).run()
    })?;
    // Documentation tests included: they are part of what `cargo test` runs.
    stages.run("run tests", || {
        let mut tests =
            process::cargo(root).args(["test", "--workspace", "--locked"]).env("TOMBOLA_BIN", &binary);
        if let Some(anvil) = contracts::anvil(workspace) {
            tests = tests.env("TOMBOLA_ANVIL", anvil);
        }
        tests.run()
    })?;
    let player = stages.run("build the program that plays neighbours", || {
        release_program(workspace, "tombola-tests", "tombola-load")
    })?;
    // One after the other, and nothing beside them.
    stages.run("run tests that take the whole machine", || {
        process::cargo(root)
            .args(["test", "--locked", "--package", "tombola-tests", "--test", "suite", "--", "overload::"])
            .args(["--ignored", "--test-threads", "1"])
            .env("TOMBOLA_BIN", &binary)
            .env("TOMBOLA_LOAD_BIN", &player)
            .run()
    })?;
    constant_time::run_if_possible(workspace, &mut stages)?;
    stages.run("run each benchmark once", || bench::run_once(workspace))?;
    stages.finish();
    Ok(())
}

/// A line of `cargo build --message-format json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    /// The program that was linked, in messages about programs.
    executable: Option<PathBuf>,
}

/// Builds the multi-call binary with optimisation and says where it is.
pub(crate) fn release_binary(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    release_program(workspace, "tombola", "tombola")
}

fn release_program(workspace: &Workspace, package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let mut executable = None;
    process::cargo(workspace.root())
        .args(["build", "--release", "--locked", "--package", package, "--bin", program])
        .arg("--message-format=json-render-diagnostics")
        .run_with_lines(|line| {
            if let Ok(Message { executable: Some(path) }) = serde_json::from_str(line) {
                executable = Some(path);
            }
        })?;
    executable.with_context(|| format!("cargo did not say where it put the program `{program}`"))
}

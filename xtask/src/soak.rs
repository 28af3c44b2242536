//! `cargo xtask soak`: a network under fire, for longer than a test may take.
//!
//! Before that come the tests of the arithmetic that take too long for a test: RFC 7748's million iterations, and a million
//! packets on every path beside `sphinx-packet`.
//!
//! The harness is that of the tests (`tests/src/kills.rs`); the processes that it kills are of the release build.

use std::path::Path;

use crate::metadata::Workspace;
use crate::process;
use crate::stages::Stages;
use crate::test::release_binary;

/// Kills `kills` processes; `seed` decides which and when, `json` gets the counts.
///
/// # Errors
///
/// A stage failed: something that was accepted was lost, doubled or replayed, for example.
pub(crate) fn run(
    workspace: &Workspace,
    kills: u32,
    seed: Option<u64>,
    json: Option<&Path>,
) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    let root = workspace.root();
    stages.run("a million iterations of X25519 and a million packets, on every path", || {
        process::cargo(root)
            .args([
                "test",
                "--release",
                "--locked",
                "--package",
                "tombola-lanes",
                "--package",
                "tombola-sphinx",
            ])
            .args(["--", "--ignored", "--skip", "write"])
            .run()
    })?;
    let binary = stages.run("build the release binary", || release_binary(workspace))?;
    stages.run("kill processes of a running network", || {
        let mut process = process::cargo(root)
            .args(["run", "--locked", "--package", "tombola-tests", "--example", "soak", "--"])
            .args(["--kills".to_owned(), kills.to_string()])
            .env("TOMBOLA_BIN", &binary);
        if let Some(seed) = seed {
            process = process.args(["--seed".to_owned(), seed.to_string()]);
        }
        if let Some(json) = json {
            // The program runs at the root of the workspace, whoever started this where.
            process = process.arg("--json").arg(std::path::absolute(json)?);
        }
        process.run()
    })?;
    stages.finish();
    Ok(())
}

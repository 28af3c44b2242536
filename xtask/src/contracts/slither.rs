//! Slither, a static analyser for Solidity, from PyPI.

use std::path::PathBuf;

use anyhow::Context;

use super::forge::{folder, forge_programs};
use crate::metadata::Workspace;
use crate::process::Process;

const PACKAGE: &str = "slither-analyzer==0.11.6";

/// Installs it into a virtual environment among the contracts' build output, if it is not there.
///
/// # Errors
///
/// There is no Python, or it does not install.
pub(super) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    if program(workspace, "slither").is_file() {
        println!("  it is there");
        return Ok(());
    }
    let folder = folder(workspace);
    Process::new("python3", &folder)
        .args(["-m", "venv"])
        .arg(environment(workspace))
        .run()
        .context("slither needs Python (3.10 or newer)")?;
    Process::new(program(workspace, "pip"), &folder).args(["install", "--quiet", PACKAGE]).run()
}

/// Analyses the contracts. It compiles them itself, with the forge that is first on its search path.
///
/// # Errors
///
/// It found something that the sources do not answer where it stands.
pub(super) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = folder(workspace);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(forge_programs(workspace).into_iter().chain(std::env::split_paths(&path)))?;
    Process::new(program(workspace, "slither"), &folder)
        .args([".", "--config-file", "slither.config.json"])
        .env("PATH", path)
        // It builds from nothing, and would empty what the tests have built.
        .env("FOUNDRY_OUT", "cache/slither-out")
        .env("FOUNDRY_CACHE_PATH", "cache/slither-cache")
        .run()
}

fn environment(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("cache/slither")
}

fn program(workspace: &Workspace, name: &str) -> PathBuf {
    environment(workspace).join("bin").join(name)
}

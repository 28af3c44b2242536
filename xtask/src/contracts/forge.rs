//! Forge and the Solidity compiler, from npm.

use std::path::PathBuf;

use anyhow::Context;

use crate::metadata::Workspace;
use crate::process::Process;

/// The folder of the contracts.
pub(super) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("contracts")
}

/// Installs the packages that the lock file names, unless exactly these are there.
///
/// # Errors
///
/// There is no npm, or it does not install them.
pub(super) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = folder(workspace);
    let lock = std::fs::read(folder.join("package-lock.json")).context("cannot read package-lock.json")?;
    // A copy of the lock file that was installed last.
    let installed = folder.join("node_modules/.installed-lock.json");
    if std::fs::read(&installed).is_ok_and(|installed| installed == lock) {
        println!("  the packages are there");
        return Ok(());
    }
    Process::new("npm", &folder)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .run()
        .context("the contracts need Node.js (20 or newer) and npm")?;
    std::fs::write(installed, lock)?;
    Ok(())
}

/// Anvil, if there is a package of it for this platform; its tests find another one in the path.
pub(super) fn anvil(workspace: &Workspace) -> Option<PathBuf> {
    let here = (std::env::consts::OS, std::env::consts::ARCH) == ("linux", "x86_64");
    here.then(|| folder(workspace).join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"))
}

/// Where the package for this platform has forge. There is none for some, whose users install it themselves.
pub(super) fn programs(workspace: &Workspace) -> Option<PathBuf> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-amd64",
        ("macos", "aarch64") => "darwin-arm64",
        _ => return None,
    };
    Some(folder(workspace).join(format!("node_modules/@foundry-rs/forge-{platform}/bin")))
}

/// Forge, in the folder of the contracts.
pub(super) fn forge(workspace: &Workspace) -> Process {
    let program = programs(workspace).map_or_else(|| "forge".into(), |programs| programs.join("forge"));
    Process::new(program, &folder(workspace))
}

/// Compiles contracts and tests.
///
/// # Errors
///
/// They do not compile.
pub(super) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    forge(workspace).arg("build").run()
}

//! Forge and the Solidity compiler, from npm.

use std::path::{Path, PathBuf};

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
    Some(programs(&folder(workspace), "anvil")?.join("anvil"))
}

/// Where the installed package has forge. There is none for some platforms, whose users install it themselves.
pub(super) fn forge_programs(workspace: &Workspace) -> Option<PathBuf> {
    programs(&folder(workspace), "forge")
}

/// The folder of a program in its package for this platform: of those that the lock file names npm installs no other.
fn programs(contracts: &Path, program: &str) -> Option<PathBuf> {
    let packages = std::fs::read_dir(contracts.join("node_modules/@foundry-rs")).ok()?;
    let mut found: Vec<PathBuf> = packages
        .filter_map(|package| Some(package.ok()?.path()))
        .filter(|package| {
            let name = package.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(program).is_some_and(|platform| platform.starts_with('-'))
        })
        .map(|package| package.join("bin"))
        .filter(|programs| programs.join(program).is_file())
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Forge, in the folder of the contracts.
pub(super) fn forge(workspace: &Workspace) -> Process {
    let program = forge_programs(workspace).map_or_else(|| "forge".into(), |programs| programs.join("forge"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_whichever_package_was_installed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(programs(folder.path(), "anvil"), None);
        let package = |name: &str, program: &str| {
            let bin = folder.path().join("node_modules/@foundry-rs").join(name).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join(program), "").unwrap();
            bin
        };
        let anvil = package("anvil-linux-arm64", "anvil");
        package("anvil-darwin-arm64", "README");
        package("anvils", "anvil");
        assert_eq!(programs(folder.path(), "anvil"), Some(anvil));
        assert_eq!(programs(folder.path(), "forge"), None);
        let forge = package("forge-darwin-arm64", "forge");
        assert_eq!(programs(folder.path(), "forge"), Some(forge));
    }
}

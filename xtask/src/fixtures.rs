//! `cargo xtask fixtures`: what this version leaves on disk, for the tests of later versions (`tests/fixtures`).

use anyhow::ensure;

use crate::metadata::Workspace;
use crate::process;
use crate::stages::Stages;
use crate::test::release_binary;

/// Writes `tests/fixtures/<major.minor>` of the workspace's version.
///
/// # Errors
///
/// There is such a folder already, or a stage failed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    // Every package has the workspace's version, this one included.
    let version = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
    let folder = workspace.root().join("tests/fixtures").join(version);
    ensure!(!folder.exists(), "{} exists; fixtures are never changed", folder.display());
    let binary = stages.run("build the release binary", || release_binary(workspace))?;
    stages.run("write the fixtures", || {
        process::cargo(workspace.root())
            .args(["run", "--locked", "--package", "tombola-tests", "--example", "fixtures", "--"])
            .arg(&folder)
            .env("TOMBOLA_BIN", &binary)
            .run()
    })?;
    stages.finish();
    Ok(())
}

//! `cargo xtask check`: everything that can be said about the code without running it.

use crate::layers;
use crate::links;
use crate::metadata::Workspace;
use crate::named;
use crate::process;
use crate::stages::Stages;
use crate::tools;

/// Runs all checks, cheap ones first.
///
/// # Errors
///
/// The first stage that failed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    let root = workspace.root();
    stages.run("format", || {
        process::cargo(root).args(["fmt", "--all", "--check"]).run()?;
        process::cargo(root).args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]).run()
    })?;
    stages.run("layer rules", || layers::run(workspace))?;
    stages.run("links in Markdown files", || links::run(workspace))?;
    stages.run("tests that the threat model names", || named::run(workspace))?;
    stages.run("unused dependencies", || {
        tools::MACHETE.install(workspace)?;
        process::cargo(root).args(["machete", "--skip-target-dir"]).run()
    })?;
    stages.run("licences, bans and sources of dependencies", || {
        tools::DENY.install(workspace)?;
        process::cargo(root)
            .args(["deny", "--locked", "--all-features", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"])
            .run()
    })?;
    stages.run("clippy", || {
        process::cargo(root)
            .args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
            .run()
    })?;
    stages.run("documentation", || docs(workspace))?;
    stages.finish();
    Ok(())
}

/// `cargo xtask docs`: builds the documentation of every crate; a warning, such as a dead link, is an error.
///
/// # Errors
///
/// The documentation does not build or has a warning.
pub(crate) fn docs(workspace: &Workspace) -> anyhow::Result<()> {
    process::cargo(workspace.root())
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

//! The smart contracts in `contracts/`: tests, gas, compiled artefacts, static analysis.
//!
//! Compiler and test runner are npm packages that `contracts/package-lock.json` pins; Node.js and npm must be there.

mod artifacts;
mod forge;
mod gas;
mod slither;

use std::path::{Path, PathBuf};

use crate::metadata::Workspace;
use crate::stages::Stages;

/// The stages of `cargo xtask test` that are about contracts.
///
/// # Errors
///
/// The first stage that failed.
pub(crate) fn test(workspace: &Workspace, stages: &mut Stages) -> anyhow::Result<()> {
    stages.run("contracts: packages", || forge::install(workspace))?;
    stages.run("contracts: format", || forge::forge(workspace).args(["fmt", "--check"]).run())?;
    stages.run("contracts: build", || forge::build(workspace))?;
    stages.run("contracts: tests", || {
        forge::forge(workspace).args(["test", "--no-match-contract", gas::TEST]).run()
    })?;
    stages.run("contracts: gas", || gas::check(workspace))?;
    stages.run("contracts: artefacts", || artifacts::check(workspace))
}

/// Anvil, for the tests that compare it with our development chain. It is there after [`test()`].
pub(crate) fn anvil(workspace: &Workspace) -> Option<PathBuf> {
    forge::anvil(workspace)
}

/// `cargo xtask contracts`: these stages alone.
///
/// # Errors
///
/// As [`test()`].
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    test(workspace, &mut stages)?;
    stages.finish();
    Ok(())
}

/// `cargo xtask gas`: measures what redemption costs.
///
/// # Errors
///
/// A stage failed, or a figure exceeds its limit.
pub(crate) fn gas(workspace: &Workspace, json: Option<&Path>, update: bool) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    stages.run("contracts: packages", || forge::install(workspace))?;
    stages.run("contracts: build", || forge::build(workspace))?;
    let measured = stages.run("contracts: gas", || gas::measure(workspace))?;
    measured.print();
    if let Some(json) = json {
        measured.write(json)?;
    }
    if update {
        gas::update(workspace)?;
    }
    stages.finish();
    Ok(())
}

/// `cargo xtask artifacts`: writes what the compiler makes of the contracts.
///
/// # Errors
///
/// A stage failed.
pub(crate) fn artifacts(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    stages.run("contracts: packages", || forge::install(workspace))?;
    stages.run("contracts: build", || forge::build(workspace))?;
    stages.run("contracts: artefacts", || artifacts::write(workspace))?;
    stages.finish();
    Ok(())
}

/// `cargo xtask slither`: static analysis of the contracts.
///
/// # Errors
///
/// A stage failed, or there is a finding that the sources do not answer.
pub(crate) fn slither(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    stages.run("contracts: packages", || forge::install(workspace))?;
    stages.run("slither: install", || slither::install(workspace))?;
    stages.run("slither: analyse", || slither::run(workspace))?;
    stages.finish();
    Ok(())
}

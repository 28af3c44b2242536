//! Programs that the project uses and that a Rust toolchain does not bring along, cargo's subcommands most of them.

use std::path::Path;

use anyhow::Context;

use crate::metadata::Workspace;
use crate::process::{self, Process};

/// A program that installs itself on first use.
pub(crate) struct Tool {
    /// The crate.
    name: &'static str,
    /// The program, or one of them.
    program: &'static str,
    options: &'static [&'static str],
}

/// Fuzz targets.
pub(crate) const FUZZ: Tool = Tool { name: "cargo-fuzz", program: "cargo-fuzz", options: &[] };
/// Licences, bans and sources of dependencies. Without its TLS roots, since nothing is downloaded for these checks.
pub(crate) const DENY: Tool =
    Tool { name: "cargo-deny", program: "cargo-deny", options: &["--no-default-features"] };
/// Unused dependencies.
pub(crate) const MACHETE: Tool = Tool { name: "cargo-machete", program: "cargo-machete", options: &[] };
/// Flame graphs.
pub(crate) const INFERNO: Tool = Tool { name: "inferno", program: "inferno-flamegraph", options: &[] };

impl Tool {
    /// Makes sure that the tool is there, compiling it if it is not.
    ///
    /// # Errors
    ///
    /// It is missing and does not install.
    pub(crate) fn install(&self, workspace: &Workspace) -> anyhow::Result<()> {
        if is_on_path(self.program) {
            return Ok(());
        }
        println!("  {} is missing: installing it with cargo, once", self.program);
        process::cargo(workspace.root())
            .args(["install", "--locked", "--debug"])
            .args(self.options)
            .arg(self.name)
            .run()
    }
}

/// Makes sure that a program of a Debian package is there, and installs the package if it is not.
///
/// # Errors
///
/// It is missing, and this is no Debian, or not one on which we may install packages.
pub(crate) fn install_from_debian(root: &Path, program: &str, package: &str) -> anyhow::Result<()> {
    if is_on_path(program) {
        return Ok(());
    }
    println!("  {program} is missing: installing the package {package}, once");
    Process::new("apt-get", root)
        .args(["install", "--yes", "--no-install-recommends", package])
        .run()
        .with_context(|| format!("install `{package}` and try again"))
}

/// Whether a program of this name can be started: on the search path, or where cargo installs its subcommands and
/// looks for them without any path.
pub(crate) fn is_on_path(name: &str) -> bool {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .map(|home| home.join("bin"));
    std::env::split_paths(&path).chain(cargo_home).any(|directory| directory.join(&file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_searched() {
        assert!(is_on_path("cargo"));
        assert!(!is_on_path("cargo-of-a-name-that-nobody-uses"));
    }
}

//! `cargo xtask layers`: the rules that keep the core free of the outside world and every dependency downwards.
//!
//! [`rules`] is the table: which crate is on which layer, and what the pure layers may not contain. [`graph`] checks
//! the dependencies that `cargo metadata` reports, [`manifest`] what the files themselves say: the order of the
//! members, the lint tables, the bans in `clippy.toml`, and which ones may contain `unsafe`.

mod graph;
mod manifest;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, bail};

use crate::metadata::Workspace;

/// Checks every rule and reports all violations at once.
///
/// # Errors
///
/// At least one rule is broken, or a file of the workspace could not be read.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let metadata = &workspace.metadata;
    let mut violations = graph::check(metadata);

    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let root = read(&workspace.root().join("Cargo.toml"))?;
    let mut directories = BTreeMap::new();
    for package in metadata.members() {
        let directory = package.manifest_path.parent().unwrap_or(workspace.root());
        let relative = directory.strip_prefix(workspace.root()).unwrap_or(directory);
        directories.insert(relative.to_string_lossy().into_owned(), package);

        violations.extend(manifest::check_lints(&package.name, &read(&package.manifest_path)?, &root));
        if package.name == rules::UNSAFE {
            let files = manifest::lifting_files(directory)?;
            violations.extend(manifest::check_unsafe(&package.name, &files));
        }
        if rules::layer_of(&package.name).is_some_and(rules::Layer::is_pure) {
            let clippy = std::fs::read_to_string(directory.join("clippy.toml")).unwrap_or_default();
            violations.extend(manifest::check_bans(&package.name, &clippy));
        }
    }
    violations.extend(manifest::check_order(&root, &directories));

    if !violations.is_empty() {
        let mut list = String::new();
        for violation in &violations {
            write!(list, "\n  - {violation}")?;
        }
        bail!("{} broken rules of the architecture:{list}", violations.len());
    }
    println!("{} crates keep the rules of their layers", metadata.workspace_members.len());
    Ok(())
}

/// A broken rule. The text names the crate, what it depends on or lacks, and the rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("{name} has no layer: add it to CRATES in xtask/src/layers/rules.rs")]
    Unassigned { name: String },

    #[error(
        "{name} ({layer}) has a {kind} dependency on {dependency} ({other}): a crate depends only on lower \
         layers, and never on its siblings"
    )]
    Upwards { name: String, layer: rules::Layer, kind: &'static str, dependency: String, other: rules::Layer },

    #[error("{name} ({layer}) depends on {dependency}: {reason} (path: {path})")]
    Impure { name: String, layer: rules::Layer, dependency: String, reason: &'static str, path: String },

    #[error("the root Cargo.toml lists {name} before {dependency}, on which it depends: lowest layer first")]
    Order { name: String, dependency: String },

    #[error("the root Cargo.toml: {what}")]
    Members { what: String },

    #[error("{name}: its Cargo.toml lacks `[lints] workspace = true`")]
    Lints { name: String },

    #[error(
        "{name}: the lints of the crate that may contain `unsafe` are those of the workspace, with \
         `unsafe_code = \"deny\"`"
    )]
    UnsafeLints { name: String },

    #[error(
        "{name}: {file} lifts the rule that there is no `unsafe`, for which xtask/src/layers/rules.rs does not name it"
    )]
    Unsafe { name: String, file: String },

    #[error(
        "{name}: {file} does not lift the rule that there is no `unsafe`: strike it from xtask/src/layers/rules.rs"
    )]
    NoUnsafe { name: String, file: String },

    #[error("{name}: its clippy.toml does not ban {path} under {list}, as layers 1 and 2 must")]
    Ban { name: String, list: &'static str, path: &'static str },

    #[error("{name}: {file} is not readable as TOML: {error}")]
    Syntax { name: String, file: &'static str, error: String },
}

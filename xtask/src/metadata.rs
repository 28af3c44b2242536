//! The workspace as `cargo metadata` describes it: only the fields that the commands read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::process;

/// Answer of `cargo metadata --format-version 1`.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the dependency graph, workspace members included.
    pub(crate) packages: Vec<Package>,
    /// Ids of the packages that are members of the workspace.
    pub(crate) workspace_members: Vec<String>,
    /// The dependency graph with the features of the whole workspace.
    pub(crate) resolve: Resolve,
    /// Root directory of the workspace.
    pub(crate) workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    /// What the manifest declares, optional dependencies and those of other platforms included.
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "null_is_normal")]
    pub(crate) kind: Kind,
}

/// Why a crate depends on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Linked into the crate; `null` in the answer of cargo.
    #[default]
    Normal,
    /// Linked into its build script.
    Build,
    /// For its tests, examples and benchmarks only.
    Dev,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    #[serde(default, deserialize_with = "null_is_normal")]
    pub(crate) kind: Kind,
}

fn null_is_normal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Metadata {
    /// The members of the workspace, in the order of `cargo metadata`.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

/// The metadata together with the place where commands run.
pub(crate) struct Workspace {
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Asks cargo about the workspace that `cargo xtask` was called in; without cargo, about the one that this program was built
    /// from.
    pub(crate) fn load() -> anyhow::Result<Self> {
        // The directory of xtask's own manifest: the command works from any subdirectory. What was compiled in names another
        // one if the project has been moved, or if several clones share a target directory, and cargo builds nothing anew.
        let directory = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let manifest = directory.with_file_name("Cargo.toml");
        let output = process::cargo(Path::new("."))
            .args(["metadata", "--format-version", "1", "--manifest-path"])
            .arg(&manifest)
            .capture()
            .context("cannot read the workspace")?;
        let metadata =
            serde_json::from_str(&output).context("cargo metadata answered something unexpected")?;
        Ok(Self { metadata })
    }

    /// Root directory, where every command runs.
    pub(crate) fn root(&self) -> &Path {
        &self.metadata.workspace_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_cargo_writes_them() {
        let read = |text: &str| serde_json::from_str::<Dependency>(text).unwrap().kind;
        assert_eq!(read(r#"{"name": "a", "kind": null}"#), Kind::Normal);
        assert_eq!(read(r#"{"name": "a", "kind": "dev"}"#), Kind::Dev);
        assert_eq!(read(r#"{"name": "a", "kind": "build"}"#), Kind::Build);
    }
}

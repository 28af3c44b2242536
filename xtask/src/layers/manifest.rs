//! Rules about what the files of the workspace say: order of the members, lint tables, bans in `clippy.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::{Violation, rules};
use crate::metadata::Package;

#[derive(Deserialize)]
struct Root {
    workspace: RootWorkspace,
}

#[derive(Deserialize)]
struct RootWorkspace {
    members: Vec<String>,
}

/// The members stand in topological order, so that reading them downwards introduces nothing unknown.
///
/// `packages` maps directories, relative to the root, to what is in them.
pub(super) fn check_order(root: &str, packages: &BTreeMap<String, &Package>) -> Vec<Violation> {
    let members = match toml::from_str::<Root>(root) {
        Ok(root) => root.workspace.members,
        Err(error) => return vec![Violation::Members { what: error.to_string() }],
    };
    let mut violations = Vec::new();
    let mut position = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        match packages.get(member) {
            Some(package) => {
                position.insert(package.name.as_str(), at);
            }
            None => violations.push(Violation::Members {
                what: format!("member `{member}` is not the directory of one crate (patterns have no order)"),
            }),
        }
    }
    for package in packages.values() {
        let Some(own) = position.get(package.name.as_str()) else {
            let what = format!("{} is missing from `members`", package.name);
            violations.push(Violation::Members { what });
            continue;
        };
        for dependency in &package.dependencies {
            if position.get(dependency.name.as_str()).is_some_and(|other| other >= own) {
                violations.push(Violation::Order {
                    name: package.name.clone(),
                    dependency: dependency.name.clone(),
                });
            }
        }
    }
    violations
}

/// The crate takes its lints from the workspace. The one that may contain `unsafe` repeats them, since a manifest cannot
/// take some: they must be the same but for `unsafe_code`, which is denied there, so that a module can lift it.
pub(super) fn check_lints(name: &str, manifest: &str, root: &str) -> Option<Violation> {
    let syntax = |file, error: toml::de::Error| {
        Some(Violation::Syntax { name: name.into(), file, error: error.to_string() })
    };
    let manifest: toml::Table = match manifest.parse() {
        Ok(table) => table,
        Err(error) => return syntax("Cargo.toml", error),
    };
    let lints = manifest.get("lints");
    if name != rules::UNSAFE {
        let inherited = lints.and_then(|lints| lints.get("workspace")) == Some(&toml::Value::Boolean(true));
        return (!inherited).then(|| Violation::Lints { name: name.into() });
    }
    let root: toml::Table = match root.parse() {
        Ok(table) => table,
        Err(error) => return syntax("Cargo.toml of the workspace", error),
    };
    let mut expected = root.get("workspace").and_then(|workspace| workspace.get("lints")).cloned();
    if let Some(rule) = expected.as_mut().and_then(|lints| lints.get_mut("rust")?.get_mut("unsafe_code")) {
        *rule = toml::Value::String("deny".into());
    }
    (lints != expected.as_ref()).then(|| Violation::UnsafeLints { name: name.into() })
}

/// The files below a directory that lift the rule against `unsafe`, relative to it. Only an attribute can, and it names the lint.
///
/// # Errors
///
/// A directory or file could not be read.
pub(super) fn lifting_files(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(at) = rest.pop() {
        for entry in std::fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                rest.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                if text.contains("unsafe_code") {
                    let relative = path.strip_prefix(directory).unwrap_or(&path);
                    found.insert(relative.to_string_lossy().into_owned());
                }
            }
        }
    }
    Ok(found)
}

/// The crate that may contain `unsafe` has it in the files that the rules name, and in no other.
pub(super) fn check_unsafe(name: &str, files: &BTreeSet<String>) -> Vec<Violation> {
    let allowed: BTreeSet<String> = rules::UNSAFE_FILES.map(String::from).into();
    let more =
        files.difference(&allowed).map(|file| Violation::Unsafe { name: name.into(), file: file.clone() });
    let less =
        allowed.difference(files).map(|file| Violation::NoUnsafe { name: name.into(), file: file.clone() });
    more.chain(less).collect()
}

/// An entry of a list in `clippy.toml`: a path alone, or a table with a path and more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Path(String),
    Table { path: String },
}

impl Entry {
    fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::Table { path } => path,
        }
    }
}

/// The `clippy.toml` of a pure crate bans clocks, threads, channels and random iteration order. An absent file is an
/// empty one.
pub(super) fn check_bans(name: &str, clippy: &str) -> Vec<Violation> {
    let table: toml::Table = match clippy.parse() {
        Ok(table) => table,
        Err(error) => {
            let error = toml::de::Error::to_string(&error);
            return vec![Violation::Syntax { name: name.into(), file: "clippy.toml", error }];
        }
    };
    let mut violations = Vec::new();
    for (list, paths) in rules::CLIPPY_BANS {
        let entries: Vec<Entry> =
            table.get(*list).cloned().and_then(|value| value.try_into().ok()).unwrap_or_default();
        for path in *paths {
            if !entries.iter().any(|entry| entry.path() == *path) {
                violations.push(Violation::Ban { name: name.into(), list, path });
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Dependency, Kind};

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            id: name.into(),
            name: name.into(),
            manifest_path: format!("/{name}/Cargo.toml").into(),
            targets: Vec::new(),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).into(), kind: Kind::Normal })
                .collect(),
        }
    }

    #[test]
    fn members_stand_in_topological_order() {
        let (low, high) = (package("low", &[]), package("high", &["low"]));
        let packages = BTreeMap::from([("crates/low".into(), &low), ("crates/high".into(), &high)]);
        let root = |members: &str| format!("[workspace]\nmembers = [{members}]");

        let ordered = root(r#""crates/low", "crates/high""#);
        assert_eq!(check_order(&ordered, &packages), []);
        let reversed = root(r#""crates/high", "crates/low""#);
        assert_eq!(
            check_order(&reversed, &packages),
            [Violation::Order { name: "high".into(), dependency: "low".into() }]
        );
        let pattern = root(r#""crates/*""#);
        assert_eq!(check_order(&pattern, &packages).len(), 3, "the pattern and two members without a place");
    }

    #[test]
    fn lints_come_from_the_workspace() {
        assert_eq!(check_lints("a", "[lints]\nworkspace = true", ""), None);
        for lacking in ["", "[lints]\nworkspace = false", "[lints.rust]\nunsafe_code = \"allow\""] {
            assert_eq!(
                check_lints("a", lacking, ""),
                Some(Violation::Lints { name: "a".into() }),
                "{lacking}"
            );
        }
        assert!(matches!(check_lints("a", "[lints", ""), Some(Violation::Syntax { .. })));
    }

    #[test]
    fn the_crate_with_unsafe_code_has_all_other_lints() {
        let root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"";
        let check = |lints: &str| check_lints(rules::UNSAFE, lints, root);
        assert_eq!(check("[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\""), None);
        for lacking in [
            "",
            "[lints]\nworkspace = true",
            "[lints.rust]\nunsafe_code = \"deny\"",
            "[lints.rust]\nunsafe_code = \"allow\"\nmissing_docs = \"warn\"",
            "[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"allow\"",
        ] {
            assert_eq!(
                check(lacking),
                Some(Violation::UnsafeLints { name: rules::UNSAFE.into() }),
                "{lacking}"
            );
        }
    }

    #[test]
    fn unsafe_code_stands_in_the_files_that_are_named() {
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/lanes");
        let mut files = lifting_files(&crate_directory).unwrap();
        assert_eq!(check_unsafe("a", &files), []);
        files.insert("src/new.rs".into());
        let more = Violation::Unsafe { name: "a".into(), file: "src/new.rs".into() };
        assert_eq!(check_unsafe("a", &files), [more]);
        files.remove("src/new.rs");
        files.remove(rules::UNSAFE_FILES[0]);
        let less = Violation::NoUnsafe { name: "a".into(), file: rules::UNSAFE_FILES[0].into() };
        assert_eq!(check_unsafe("a", &files), [less]);
    }

    #[test]
    fn every_ban_is_needed() {
        let mut complete = String::new();
        for (list, paths) in rules::CLIPPY_BANS {
            // Both spellings that clippy knows.
            let entries = paths.iter().map(|path| match path.len() % 2 {
                0 => format!("\"{path}\""),
                _ => format!("{{ path = \"{path}\", reason = \"why\" }}"),
            });
            complete += &format!("{list} = [{}]\n", entries.collect::<Vec<_>>().join(", "));
        }
        assert_eq!(check_bans("a", &complete), []);

        let all: usize = rules::CLIPPY_BANS.iter().map(|(_, paths)| paths.len()).sum();
        assert_eq!(check_bans("a", "").len(), all);
        let without = complete.replace("std::time::Instant::now", "std::time::Instant::elapsed");
        assert_eq!(
            check_bans("a", &without),
            [Violation::Ban {
                name: "a".into(),
                list: "disallowed-methods",
                path: "std::time::Instant::now"
            }]
        );
    }
}

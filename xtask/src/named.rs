//! Tests that the threat model names: each must exist where it is said to be, or a defence is claimed that nobody tests.
//!
//! They stand in the last column of a table's row, as `` `path/file.rs`: `name_of_a_test`, `another` ``; several files are
//! apart by `;`. Paths begin in `crates/`, those of [`AT_THE_ROOT`] at the root of the repository.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::metadata::Workspace;

const DOCUMENT: &str = "docs/threat-model.md";
const AT_THE_ROOT: [&str; 3] = ["contracts", "fuzz", "tests"];

/// Checks the threat model.
///
/// # Errors
///
/// A file or a test is not there; all of them are listed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(workspace.root().join(DOCUMENT))
        .with_context(|| format!("cannot read {DOCUMENT}"))?;
    let count = check(workspace.root(), &text)?;
    println!("{count} tests that {DOCUMENT} names are there");
    Ok(())
}

/// How many tests are named, if all of them exist.
fn check(root: &Path, text: &str) -> anyhow::Result<usize> {
    let (mut missing, mut count) = (String::new(), 0);
    for (line, named) in rows(text) {
        if let Err(reason) = find(root, &named) {
            write!(missing, "\n  {DOCUMENT}:{line}: {reason}")?;
        }
        count += usize::from(named.test.is_some());
    }
    if !missing.is_empty() {
        bail!("tests that are named and not there:{missing}");
    }
    if count == 0 {
        bail!("{DOCUMENT} names no tests: it has another form than this check reads");
    }
    Ok(count)
}

/// A file, or a test in it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: String,
    test: Option<String>,
}

/// What the rows of a text name, with their lines.
fn rows(text: &str) -> Vec<(usize, Named)> {
    let mut named = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.trim_end().strip_suffix('|')) else {
            continue;
        };
        let cell = row.rsplit('|').next().unwrap_or(row);
        // Odd pieces between backticks are code.
        let code = cell.split('`').skip(1).step_by(2);
        let mut path = None;
        for code in code {
            if code.contains('/') {
                path = Some(code);
                named.push((index + 1, Named { path: code.into(), test: None }));
            } else if let Some(path) = path {
                named.push((index + 1, Named { path: path.into(), test: Some(code.into()) }));
            }
        }
    }
    named
}

fn place(root: &Path, path: &str) -> PathBuf {
    let first = path.split('/').next().unwrap_or(path);
    if AT_THE_ROOT.contains(&first) { root.join(path) } else { root.join("crates").join(path) }
}

fn find(root: &Path, named: &Named) -> Result<(), String> {
    let path = place(root, &named.path);
    let Some(test) = &named.test else {
        return if path.exists() { Ok(()) } else { Err(format!("there is no `{}`", named.path)) };
    };
    // That there is no such file is said once.
    let Ok(source) = std::fs::read_to_string(path) else { return Ok(()) };
    let is_there =
        if named.path.ends_with(".sol") { in_solidity(&source, test) } else { in_rust(&source, test) };
    if is_there { Ok(()) } else { Err(format!("`{}` has no test `{test}`", named.path)) }
}

/// Whether there is a function of this name that is marked as a test.
fn in_rust(source: &str, test: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let is_it = |line: &str| {
        let rest = line.trim_start_matches("async ").strip_prefix("fn ");
        rest.and_then(|rest| rest.strip_prefix(test)).is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().filter(|(_, line)| is_it(line)).any(|(at, _)| {
        let above = lines[..at].iter().rev();
        above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).any(|line| {
            let attribute = line.trim_start_matches("#[");
            attribute.starts_with("test]") || attribute.starts_with("tokio::test")
        })
    })
}

/// In Solidity the name says that it is a test.
fn in_solidity(source: &str, test: &str) -> bool {
    let is_test = ["test", "invariant"].iter().any(|prefix| test.starts_with(prefix));
    is_test && source.contains(&format!("function {test}("))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| requirement | state | tests |\n|---|---|---|\n";

    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let source = "/// Does it.\n#[test]\n#[cfg(unix)]\nfn it_holds() {}\n\nfn helper() {}\n\n#[test]\nfn it_holds_too() {}\n";
        write("crates/a/tests/b.rs", source);
        write("tests/tests/c.rs", "    #[tokio::test]\n    async fn waits() {}\n");
        write("contracts/test/D.t.sol", "function test_pays() public {}\nfunction pays() public {}\n");
        write("fuzz/fuzz_targets/e.rs", "");
        root
    }

    fn checked(cell: &str) -> Result<usize, String> {
        let root = repository();
        let text = format!("{HEAD}| it holds | done | {cell} |\n");
        check(root.path(), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_there_is_found_wherever_it_is() {
        let all = "`a/tests/b.rs`: `it_holds`, `it_holds_too`; `tests/tests/c.rs`: `waits`; `contracts/test/D.t.sol`: \
                   `test_pays` and more; `fuzz/fuzz_targets`, all of them; `fuzz/fuzz_targets/e.rs`";
        assert_eq!(checked(all), Ok(4));
    }

    #[test]
    fn a_test_that_is_missing_is_named_with_its_line() {
        for (cell, expected) in [
            (
                "`a/tests/b.rs`: `it_holds`, `it_held`",
                "docs/threat-model.md:3: `a/tests/b.rs` has no test `it_held`",
            ),
            ("`a/tests/b.rs`: `it_hold`", "`it_hold`"),
            ("`a/tests/b.rs`: `helper`", "`helper`"),
            ("`contracts/test/D.t.sol`: `pays`", "`pays`"),
            ("`tests/tests/c.rs`: `it_holds`", "`it_holds`"),
            ("`a/tests/c.rs`: `it_holds`", "there is no `a/tests/c.rs`"),
        ] {
            let error = checked(cell).unwrap_err();
            assert!(error.contains(expected), "{cell}: {error}");
        }
        assert!(checked("`it_holds`").unwrap_err().contains("names no tests"));
    }

    #[test]
    fn the_threat_model_names_tests_that_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join(DOCUMENT)).unwrap();
        assert!(check(&root, &text).unwrap() > 100);
    }

    #[test]
    fn code_in_other_columns_and_outside_of_tables_is_left_alone() {
        let text = format!("`x/y.rs`: `z`\n{HEAD}| `x/y.rs`: `z` | `z` | `a/tests/b.rs`: `it_holds` |\n");
        assert_eq!(check(repository().path(), &text).unwrap(), 1);
    }
}

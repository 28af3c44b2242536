//! What a redemption costs: measured by `contracts/test/Gas.t.sol`, compared with what is checked in, and shown beside
//! the figures of other ticket systems.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;

use super::forge::{folder, forge};
use crate::metadata::Workspace;

/// The test contract that measures. It needs `--isolate`, the others do not.
pub(super) const TEST: &str = "GasTest";

/// The figures of others, in gas for each winning ticket, for a whole transaction with cold storage: one ticket, and ten
/// in one call. Published contracts, run in the same way.
const PEERS: [(&str, &str, &str); 4] = [
    ("HOPR", "145800", "90700"),
    ("Livepeer, first", "266000", "82000"),
    ("Livepeer, later", "172000", ""),
    ("Orchid v1, first", "87100", "35100"),
];

/// What was measured, by the names that the test gives.
pub(super) struct Measured(BTreeMap<String, u64>);

impl Measured {
    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Prints a table.
    #[expect(clippy::print_stdout, reason = "a command-line tool reports on its standard output")]
    pub(super) fn print(&self) {
        println!("\nGas for each winning ticket, whole transaction:");
        println!("  {:20} {:>8} {:>8} {:>8} {:>14}", "", "one", "ten", "fifty", "hour of a link");
        println!(
            "  {:20} {:>8} {:>8} {:>8} {:>14}",
            "Tombola",
            self.get("single"),
            self.get("ten_per_ticket"),
            self.get("fifty_per_ticket"),
            self.get("hour_window_per_ticket")
        );
        for (name, one, ten) in PEERS {
            println!("  {name:20} {one:>8} {ten:>8}");
        }
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let json = json!({
            "redeem": {
                "single": self.get("single"),
                "ten_per_ticket": self.get("ten_per_ticket"),
                "fifty_per_ticket": self.get("fifty_per_ticket"),
                "hour_window_per_ticket": self.get("hour_window_per_ticket"),
            }
        });
        fs::write(path, serde_json::to_string_pretty(&json)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Measures, into the build folder.
///
/// # Errors
///
/// A test failed, for example because a figure exceeds its limit, or did not say what it measured.
pub(super) fn measure(workspace: &Workspace) -> anyhow::Result<Measured> {
    let fresh = fresh(workspace);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    forge(workspace)
        .args(["test", "--isolate", "--match-contract", TEST, "--gas-limit", "100000000000"])
        .env("FOUNDRY_SNAPSHOTS", &fresh)
        .run()?;
    let measured = read(&fresh.join("redeem.json"))?;
    for name in ["single", "ten_per_ticket", "fifty_per_ticket", "hour_window_per_ticket"] {
        ensure!(measured.get(name) > 0, "the tests did not say what `{name}` costs");
    }
    Ok(measured)
}

/// Measures, and compares with what is checked in.
///
/// # Errors
///
/// As [`measure`], or a figure has changed.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let measured = measure(workspace)?;
    let kept = read(&kept(workspace))?;
    ensure!(
        measured.0 == kept.0,
        "gas has changed, from {:#?} to {:#?}; if that is meant, run `cargo xtask gas --update`",
        kept.0,
        measured.0
    );
    measured.print();
    Ok(())
}

/// Makes what was measured last the figures that are checked in.
///
/// # Errors
///
/// A file cannot be written.
pub(super) fn update(workspace: &Workspace) -> anyhow::Result<()> {
    fs::copy(fresh(workspace).join("redeem.json"), kept(workspace))?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Measured> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not what forge writes", path.display()))
}

/// Forge writes numbers as texts.
fn parse(text: &str) -> anyhow::Result<Measured> {
    let figures: BTreeMap<String, String> = serde_json::from_str(text)?;
    let figures = figures.into_iter().map(|(name, figure)| Ok((name, figure.parse()?)));
    Ok(Measured(figures.collect::<anyhow::Result<_>>()?))
}

fn fresh(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("cache/gas")
}

fn kept(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("snapshots/redeem.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_numbers() {
        let measured = parse(r#"{ "single": "53685" }"#).unwrap();
        assert_eq!(measured.get("single"), 53_685);
        assert_eq!(measured.get("ten_per_ticket"), 0);
        assert!(parse(r#"{ "single": "much" }"#).is_err());
    }
}

//! `contracts/artifacts`: ABI and bytecode of the contracts, so that nobody needs a Solidity compiler to run a node.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::forge::folder;
use crate::metadata::Workspace;

/// The contracts that something outside deploys or calls.
const CONTRACTS: [&str; 3] = ["Escrow", "Registry", "TestToken"];

/// Writes the artefacts from what forge has built.
///
/// # Errors
///
/// Nothing was built, or a file cannot be written.
pub(super) fn write(workspace: &Workspace) -> anyhow::Result<()> {
    let artifacts = folder(workspace).join("artifacts");
    fs::create_dir_all(&artifacts)?;
    for name in CONTRACTS {
        let path = artifacts.join(format!("{name}.json"));
        fs::write(&path, artifact(workspace, name)?)?;
        println!("  {}", path.display());
    }
    Ok(())
}

/// Checks that the artefacts are what forge has built from the sources.
///
/// # Errors
///
/// An artefact is missing or another one.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    for name in CONTRACTS {
        let path = folder(workspace).join("artifacts").join(format!("{name}.json"));
        let kept = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            kept == artifact(workspace, name)?,
            "{} is not what the sources compile to; run `cargo xtask artifacts`",
            path.display()
        );
    }
    println!("  {} artefacts match the sources", CONTRACTS.len());
    Ok(())
}

/// The text of one artefact.
fn artifact(workspace: &Workspace, name: &str) -> anyhow::Result<String> {
    let path = folder(workspace).join(format!("out/{name}.sol/{name}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let built: Value = serde_json::from_str(&text)?;
    let artifact = select(name, &built).with_context(|| format!("{} lacks something", path.display()))?;
    Ok(serde_json::to_string_pretty(&artifact)? + "\n")
}

/// What of forge's output is kept.
fn select(name: &str, built: &Value) -> Option<Value> {
    let settings = built.pointer("/metadata/settings")?;
    Some(json!({
        "contract": name,
        "compiler": built.pointer("/metadata/compiler/version")?,
        "settings": {
            "evmVersion": settings.get("evmVersion")?,
            "optimizer": settings.get("optimizer")?,
            // Left out by the compiler when it is off.
            "viaIR": settings.get("viaIR").cloned().unwrap_or(Value::Bool(false)),
        },
        "abi": built.get("abi")?,
        "bytecode": built.pointer("/bytecode/object")?,
        "deployedBytecode": built.pointer("/deployedBytecode/object")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_noticed() {
        let mut built = json!({
            "metadata": {
                "compiler": { "version": "0.8" },
                "settings": { "evmVersion": "osaka", "optimizer": {} },
            },
            "abi": [],
            "bytecode": { "object": "0x60" },
            "deployedBytecode": { "object": "0x61" },
        });
        let kept = select("Escrow", &built).unwrap();
        assert_eq!(kept["bytecode"], "0x60");
        assert_eq!(kept["settings"]["viaIR"], false);
        built["bytecode"] = json!({});
        assert!(select("Escrow", &built).is_none());
    }
}

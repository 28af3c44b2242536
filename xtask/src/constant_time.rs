//! `cargo xtask constant-time`: no branch and no address depends on a secret.
//!
//! The paths that valgrind can run (portable and AVX2) are run by memcheck on secrets that it takes for undefined
//! (`crates/lanes/examples/secrets.rs`). Valgrind knows no AVX-512: there the disassembly is read. Secrets are in vector
//! and mask registers only, and no instruction takes anything from those to the flags, to an address or, as a mask, to a
//! general register; what goes in and out by memory is treated by the same code as on the portable path. Times are
//! compared by the benchmark `dudect`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::metadata::Workspace;
use crate::process::{self, Process};
use crate::stages::Stages;
use crate::tools;

/// Code that works in AVX-512 lanes: all of it is part of these functions.
const LANES: [&str; 2] = ["tombola_lanes::vector::with_avx512::enter", "tombola_lanes::vector::words::"];

/// Runs both checks.
///
/// # Errors
///
/// A secret leaks, a leak on purpose is not found, or a tool is missing and does not install.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut stages = Stages::new();
    stages.run("find valgrind and objdump", || install(workspace))?;
    check(workspace, &mut stages)?;
    stages.finish();
    Ok(())
}

/// Runs both checks as a part of all tests, where their tools are or can be installed.
///
/// # Errors
///
/// A secret leaks, or a leak on purpose is not found.
pub(crate) fn run_if_possible(workspace: &Workspace, stages: &mut Stages) -> anyhow::Result<()> {
    if let Err(error) = install(workspace) {
        println!("\nwhether branches and addresses depend on secrets is NOT checked: {error:#}");
        return Ok(());
    }
    check(workspace, stages)
}

fn install(workspace: &Workspace) -> anyhow::Result<()> {
    tools::install_from_debian(workspace.root(), "valgrind", "valgrind")?;
    tools::install_from_debian(workspace.root(), "objdump", "binutils")
}

fn check(workspace: &Workspace, stages: &mut Stages) -> anyhow::Result<()> {
    let root = workspace.root();
    let binary = stages.run("build", || binary(workspace))?;
    stages.run("branches and addresses that depend on secrets: portable, AVX2", || {
        let (passed, output) = memcheck(root, &binary, None)?;
        ensure!(passed, "memcheck complains:\n{output}");
        for leak in ["branch", "address"] {
            let (passed, output) = memcheck(root, &binary, Some(leak))?;
            ensure!(!passed, "memcheck does not find a {leak} that depends on a secret:\n{output}");
        }
        Ok(())
    })?;
    stages.run("ways out of vector registers: AVX-512", || {
        let listing = Process::new("objdump", root).args(["-d", "--no-show-raw-insn", "-C"]).arg(&binary);
        let checked = check_disassembly(&listing.capture()?)?;
        println!("  {checked} instructions");
        Ok(())
    })
}

/// A line of `cargo build --message-format json`, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

fn binary(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut executable = None;
    process::cargo(workspace.root())
        .args(["build", "--release", "--locked", "--package", "tombola-lanes", "--example", "secrets"])
        .arg("--message-format=json-render-diagnostics")
        .run_with_lines(|line| {
            if let Ok(Message { executable: Some(path) }) = serde_json::from_str(line) {
                executable = Some(path);
            }
        })?;
    executable.context("cargo did not say where it put the example `secrets`")
}

fn memcheck(root: &Path, binary: &Path, leak: Option<&str>) -> anyhow::Result<(bool, String)> {
    Process::new("valgrind", root)
        .args(["--tool=memcheck", "--error-exitcode=9", "--leak-check=no"])
        .arg(binary)
        .args(leak)
        .try_capture_errors()
}

/// Reads what objdump prints. Gives the number of instructions that were looked at.
///
/// # Errors
///
/// One of them is forbidden, or there were none of those that do the work.
fn check_disassembly(listing: &str) -> anyhow::Result<usize> {
    let mut inside = None;
    let (mut checked, mut multiplications) = (0, 0);
    let mut forbidden = Vec::new();
    for line in listing.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            inside = LANES.iter().any(|lanes| name.starts_with(lanes)).then_some(name);
        } else if let (Some(name), Some((_, instruction))) = (inside, line.split_once(":\t")) {
            checked += 1;
            multiplications += usize::from(instruction.starts_with("vpmadd52"));
            if leaves_the_registers(instruction) {
                forbidden.push(format!("{name}: {instruction}"));
            }
        }
    }
    if multiplications == 0 {
        bail!("no code for AVX-512 was found: were the functions renamed?");
    }
    ensure!(forbidden.is_empty(), "instructions that may leak a secret:\n{}", forbidden.join("\n"));
    Ok(checked)
}

/// Whether an instruction takes a value from a vector or mask register to the flags, to an address, or, as a mask, to a
/// general register.
fn leaves_the_registers(instruction: &str) -> bool {
    let (name, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
    let operands = operands.trim();
    let flags = name == "vptest"
        || ["kortest", "ktest", "vtestp", "vcomis", "vucomis", "comis", "ucomis", "ptest"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    let address = name.contains("gather") || name.contains("scatter") || name.contains("compress");
    let mask = name.contains("movmsk")
        || (name.starts_with("kmov")
            && operands.split(',').next_back().is_some_and(|to| !to.starts_with("%k") && !to.ends_with(')')));
    flags || address || mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out() {
        for way in [
            "kmovd  %k1,%eax",
            "kortestb %k0,%k0",
            "vptest %ymm0,%ymm0",
            "vpgatherqq (%rax,%zmm1,8),%zmm0{%k1}",
            "vpmovmskb %ymm0,%eax",
            "vucomisd %xmm0,%xmm1",
        ] {
            assert!(leaves_the_registers(way), "{way}");
        }
        for no_way in [
            "kmovd  %eax,%k1",
            "kmovb  %k1,0x40(%rsp)",
            "vptestmq %zmm0,%zmm1,%k1",
            "vpmadd52luq %zmm0,%zmm1,%zmm2",
            "vmovdqa64 0x40(%rsp),%zmm0{%k1}",
            "ret",
        ] {
            assert!(!leaves_the_registers(no_way), "{no_way}");
        }
    }

    #[test]
    fn only_code_in_lanes_is_read_and_some_must_be_there() {
        let elsewhere = "00 <main>:\n  1:\tkmovd  %k1,%eax\n";
        let sound = "10 <tombola_lanes::vector::with_avx512::enter>:\n 11:\tvpmadd52luq %zmm0,%zmm1,%zmm2\n";
        assert!(check_disassembly(elsewhere).is_err());
        assert_eq!(check_disassembly(&format!("{elsewhere}{sound}")).unwrap(), 1);
        let leak = format!("{sound} 12:\tkmovd  %k1,%eax\n");
        assert!(check_disassembly(&leak).unwrap_err().to_string().contains("kmovd"));
    }
}

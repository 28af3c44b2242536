//! `cargo xtask constant-time`: no branch and no address depends on a secret.
//!
//! The paths that valgrind can run (portable and AVX2) are run by memcheck on secrets that it takes for undefined
//! (`crates/lanes/examples/secrets.rs`). Valgrind knows no AVX-512: there the disassembly is read. Secrets are in vector
//! and mask registers only, and no instruction takes anything from those to the flags, to an address or to a general
//! register, directly or, as a mask, by way of the stack; what else goes in and out by memory is treated by the same code as
//! on the portable path. Times are compared by the benchmark `dudect`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::metadata::Workspace;
use crate::process::{self, Process};
use crate::stages::Stages;
use crate::tools;

/// Code that works in AVX-512 lanes is part of these functions; there must be some of each. A method of a trait has a name that
/// begins with `<`. Any other function of the crate that uses the registers of AVX-512 is read too.
const LANES: [&str; 2] = [
    "tombola_lanes::vector::with_avx512::enter",
    "tombola_lanes::vector::words::Sixteen as tombola_lanes::sha256",
];
/// How names of the crate's functions begin, or what they contain.
const CRATE: &str = "tombola_lanes::";

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

/// Runs both checks as a part of all tests, where their tools are or can be installed. Continuous integration, which sets the
/// variable `CI`, has to have them: nobody would read there that nothing was checked.
///
/// # Errors
///
/// A secret leaks, or a leak on purpose is not found; or a tool is missing in continuous integration.
pub(crate) fn run_if_possible(workspace: &Workspace, stages: &mut Stages) -> anyhow::Result<()> {
    let installed = install(workspace);
    if may_be_missing(std::env::var_os("CI").as_deref())
        && let Err(error) = &installed
    {
        println!("\nwhether branches and addresses depend on secrets is NOT checked: {error:#}");
        return Ok(());
    }
    installed.context("whether branches and addresses depend on secrets cannot be checked")?;
    check(workspace, stages)
}

/// Whether the tools may be missing, by the value of `CI`.
fn may_be_missing(ci: Option<&OsStr>) -> bool {
    ci.is_none_or(|ci| ci.is_empty() || ci == "false")
}

fn install(workspace: &Workspace) -> anyhow::Result<()> {
    tools::install_from_debian(workspace.root(), "valgrind", "valgrind")?;
    tools::install_from_debian(workspace.root(), "objdump", "binutils")
}

fn check(workspace: &Workspace, stages: &mut Stages) -> anyhow::Result<()> {
    let root = workspace.root();
    let binary = stages.run("build", || binary(workspace))?;
    stages.run("branches and addresses that depend on secrets: portable, AVX2", || {
        let (code, output) = memcheck(root, &binary, None)?;
        ensure!(code != Some(COMPLAINT), "memcheck complains:\n{output}");
        ensure!(code == Some(0), "memcheck did not run to its end:\n{output}");
        for path in paths_for_valgrind() {
            let line = format!("{PATH_LINE}{path}");
            ensure!(output.lines().any(|said| said == line), "the path {path} was not run:\n{output}");
            println!("  {path}");
        }
        for leak in ["branch", "address"] {
            let (code, output) = memcheck(root, &binary, Some(leak))?;
            ensure!(
                code == Some(COMPLAINT),
                "memcheck does not find a {leak} that depends on a secret:\n{output}"
            );
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

/// What valgrind ends with, and nothing else does, if memcheck complained.
const COMPLAINT: i32 = 9;
/// What the program says before the name of each path that it has run.
const PATH_LINE: &str = "path ";

/// The exit code, and what memcheck and the program say.
fn memcheck(root: &Path, binary: &Path, leak: Option<&str>) -> anyhow::Result<(Option<i32>, String)> {
    Process::new("valgrind", root)
        .args(["--tool=memcheck", "--leak-check=no"])
        .arg(format!("--error-exitcode={COMPLAINT}"))
        .arg(binary)
        .args(leak)
        .capture_code_and_errors()
}

/// Paths that valgrind has to run on this processor. One that it hides from the program would not be checked.
fn paths_for_valgrind() -> &'static [&'static str] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return &["avx2", "portable"];
    }
    &["portable"]
}

/// Reads what objdump prints. Gives the number of instructions that were looked at.
///
/// # Errors
///
/// One of them is forbidden, or there were none of those that do the work.
fn check_disassembly(listing: &str) -> anyhow::Result<usize> {
    let mut found = [false; LANES.len()];
    let (mut checked, mut multiplications) = (0, 0);
    let mut forbidden = Vec::new();
    for Function { name, instructions } in functions(listing) {
        let at = LANES.iter().position(|lanes| name.trim_start_matches('<').starts_with(lanes));
        if let Some(at) = at {
            found[at] = true;
        } else if !name.contains(CRATE)
            || !instructions.iter().any(|instruction| instruction.contains("%zmm"))
        {
            continue;
        }
        checked += instructions.len();
        multiplications +=
            instructions.iter().filter(|instruction| instruction.starts_with("vpmadd52")).count();
        let leaks = instructions.iter().filter(|instruction| leaves_the_registers(instruction));
        forbidden.extend(
            leaks.chain(&masks_read_back(&instructions)).map(|instruction| format!("{name}: {instruction}")),
        );
    }
    for (lanes, found) in LANES.iter().zip(found) {
        ensure!(found, "no code of `{lanes}` was found: was it renamed?");
    }
    ensure!(multiplications > 0, "no multiplication with AVX-512 was found");
    ensure!(forbidden.is_empty(), "instructions that may leak a secret:\n{}", forbidden.join("\n"));
    Ok(checked)
}

/// A function in a listing.
struct Function<'a> {
    name: &'a str,
    /// Without addresses, and without the comments of objdump, in which names of symbols stand.
    instructions: Vec<&'a str>,
}

fn functions(listing: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in listing.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            functions.push(Function { name, instructions: Vec::new() });
        } else if let (Some(function), Some((_, instruction))) =
            (functions.last_mut(), line.split_once(":\t"))
        {
            let instruction =
                instruction.split_once(" #").map_or(instruction, |(instruction, _)| instruction);
            function.instructions.push(instruction.trim_end());
        }
    }
    functions
}

/// Name and operands.
fn parts(instruction: &str) -> (&str, &str) {
    let (name, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
    (name, operands.trim())
}

/// Whether an instruction takes a value from a vector or mask register to the flags, to an address, or to a general
/// register.
fn leaves_the_registers(instruction: &str) -> bool {
    let (name, operands) = parts(instruction);
    let flags = name == "vptest"
        || ["kortest", "ktest", "vtestp", "vcomis", "vucomis", "comis", "ucomis", "ptest"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    let address = name.contains("gather") || name.contains("scatter") || name.contains("compress");
    let is_lane = |register: &str| ["%xmm", "%ymm", "%zmm", "%k"].iter().any(|lane| register.contains(lane));
    // The destination stands last; what ends with a parenthesis is in memory.
    let to = operands.rsplit(',').next().unwrap_or_default();
    let general = is_lane(operands) && to.starts_with('%') && !is_lane(to);
    flags || address || general
}

/// Instructions that are not for masks or vectors, and touch the memory in which a mask was put.
///
/// Of the same function and by the same register: masks that do not fit their registers lie on the stack.
fn masks_read_back<'a>(instructions: &[&'a str]) -> Vec<&'a str> {
    let is_for_lanes = |name: &str| name.starts_with(['k', 'v']);
    let masks: Vec<_> = instructions
        .iter()
        .map(|instruction| parts(instruction))
        .filter(|(name, operands)| name.starts_with("kmov") && operands.ends_with(')'))
        .filter_map(|(name, operands)| place(operands, width_of_mask(name)))
        .collect();
    let is_touched = |name: &str, operands: &str| {
        place(operands, width(name, operands)).is_some_and(|touched| {
            masks
                .iter()
                .any(|mask| mask.base == touched.base && mask.from < touched.to && touched.from < mask.to)
        })
    };
    let touches = |instruction: &&&str| {
        let (name, operands) = parts(instruction);
        !is_for_lanes(name) && is_touched(name, operands)
    };
    instructions.iter().filter(touches).copied().collect()
}

/// Bytes by a base register.
struct Place<'a> {
    base: &'a str,
    from: i64,
    to: i64,
}

/// Where an operand in memory lies, of so many bytes.
fn place(operands: &str, width: i64) -> Option<Place<'_>> {
    let (before, behind) = operands.split_once('(')?;
    let displacement = before.rsplit([',', ' ', '*', ':']).next()?;
    let (sign, digits) = displacement.strip_prefix('-').map_or((1, displacement), |digits| (-1, digits));
    let from = match digits.strip_prefix("0x") {
        Some(digits) => sign * i64::from_str_radix(digits, 16).ok()?,
        None => 0,
    };
    Some(Place { base: behind.split_once([',', ')'])?.0, from, to: from + width })
}

/// By its name: `kmovb` to `kmovq`.
fn width_of_mask(name: &str) -> i64 {
    match name.as_bytes().last() {
        Some(b'b') => 1,
        Some(b'w') => 2,
        Some(b'd') => 4,
        _ => 8,
    }
}

/// How much memory an instruction for general registers touches: by its register if it has one that says so, else 8 bytes.
fn width(name: &str, operands: &str) -> i64 {
    let is_of_4 =
        |operand: &str| operand.starts_with("%e") || operand.starts_with("%r") && operand.ends_with('d');
    match name {
        _ if name.starts_with("movzb") || name.starts_with("movsb") => 1,
        _ if name.starts_with("movzw") || name.starts_with("movsw") => 2,
        "lea" => 8,
        _ if operands.split(',').any(is_of_4) => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_continuous_integration_the_tools_must_be_there() {
        assert!([None, Some(""), Some("false")].into_iter().all(|ci| may_be_missing(ci.map(OsStr::new))));
        assert!(!["true", "1"].into_iter().any(|ci| may_be_missing(Some(OsStr::new(ci)))));
    }

    #[test]
    fn ways_out() {
        for way in [
            "kmovd  %k1,%eax",
            "kortestb %k0,%k0",
            "vptest %ymm0,%ymm0",
            "vpgatherqq (%rax,%zmm1,8),%zmm0{%k1}",
            "vpmovmskb %ymm0,%eax",
            "vucomisd %xmm0,%xmm1",
            "vmovq  %xmm0,%rax",
            "vmovd  %xmm17,%r8d",
            "vpextrb $0x1,%xmm0,%ecx",
        ] {
            assert!(leaves_the_registers(way), "{way}");
        }
        for no_way in [
            "kmovd  %eax,%k1",
            "kmovb  %k1,0x40(%rsp)",
            "vptestmq %zmm0,%zmm1,%k1",
            "vpmadd52luq %zmm0,%zmm1,%zmm2",
            "vmovdqa64 0x40(%rsp),%zmm0{%k1}",
            "vmovq  %xmm0,(%rax,%rcx,8)",
            "vpbroadcastq %rax,%zmm0{%k1}{z}",
            "mov    0x40(%rsp),%rax",
            "ret",
        ] {
            assert!(!leaves_the_registers(no_way), "{no_way}");
        }
    }

    #[test]
    fn masks_on_the_stack_stay_masks() {
        let mask = "kmovb  %k1,0x40(%rsp)";
        for back in [
            "movzbl 0x40(%rsp),%eax",
            "mov    0x3c(%rsp),%rax",
            "lea    0x40(%rsp),%rdi",
            "cmpb $0x0,0x40(%rsp)",
        ] {
            assert_eq!(masks_read_back(&[mask, back]), [back]);
        }
        for other in [
            "kmovb  0x40(%rsp),%k2",
            "mov    0x48(%rsp),%rax",
            "mov    0x40(%rdi),%rax",
            "mov    -0x40(%rsp),%rax",
        ] {
            assert!(masks_read_back(&[mask, other]).is_empty(), "{other}");
        }
    }

    #[test]
    fn all_code_in_lanes_is_read_and_there_must_be_some_of_each_kind() {
        const COMPRESS: &str =
            "<tombola_lanes::vector::words::Sixteen as tombola_lanes::sha256::Sha256>::compress::compress";
        let elsewhere = "00 <main>:\n  1:\tkmovd  %k1,%eax\n";
        let products =
            "10 <tombola_lanes::vector::with_avx512::enter>:\n 11:\tvpmadd52luq %zmm0,%zmm1,%zmm2\n";
        let hashes = format!("20 <{COMPRESS}>:\n 21:\tvpaddd %zmm0,%zmm1,%zmm2\n");
        let leak = " 31:\tkmovd  %k1,%eax\n";
        assert_eq!(check_disassembly(&format!("{elsewhere}{products}{hashes}")).unwrap(), 2);
        for missing in [elsewhere, products, &hashes] {
            assert!(check_disassembly(missing).is_err(), "{missing}");
        }
        let fails = |listing: &str| check_disassembly(listing).unwrap_err().to_string().contains("kmovd");
        assert!(fails(&format!("{hashes}{products}{leak}")));
        assert!(fails(&format!("{products}{hashes}{leak}")));
        let new = "30 <tombola_lanes::vector::new::enter>:\n 30:\tvpxorq %zmm0,%zmm0,%zmm0\n";
        assert!(fails(&format!("{products}{hashes}{new}{leak}")));
        assert!(check_disassembly(&format!("{products}{hashes}{elsewhere}")).is_ok());
    }
}

//! `cargo xtask flamegraph`: where the time of unwrapping goes, as a picture.
//!
//! `perf` looks a thousand times a second where the benchmark `paths` is while it opens batches. Nearly all that it calls is
//! inlined into a few functions, one for each set of instructions, so that a stack of calls would say little: what stands in
//! the picture are the functions that each instruction was inlined from, which `addr2line` knows. The program is the one that
//! is measured, without additional flags. `inferno` draws.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::bench;
use crate::metadata::Workspace;
use crate::process::Process;
use crate::tools;

/// Looks per second: not in step with anything that happens every millisecond.
const FREQUENCY: &str = "997";
/// Batches that are opened: some seconds.
const BATCHES: &str = "20000";
/// Frames narrower than this percentage are left out.
const MIN_WIDTH: &str = "0.25";

/// Draws the path of `tombola-lanes` called `path` into `svg`.
///
/// # Errors
///
/// A tool is missing and does not install, this processor does not have the path, or nothing was seen.
pub(crate) fn run(workspace: &Workspace, path: &str, svg: &Path) -> anyhow::Result<()> {
    let root = workspace.root();
    ensure!(
        tools::is_on_path("perf"),
        "`perf` is missing: install the package `linux-perf` or `linux-tools`"
    );
    tools::install_from_debian(root, "addr2line", "binutils")?;
    tools::INFERNO.install(workspace)?;
    let binary = bench::paths_binary(workspace)?;
    let directory = tempfile::tempdir()?;
    let samples = directory.path().join("samples");
    // The clock, since virtual machines often have no counters of cycles.
    Process::new("perf", root)
        .args(["record", "--quiet", "--event", "cpu-clock:u", "--freq", FREQUENCY, "--output"])
        .args([&samples, Path::new("--"), &binary])
        .args(["--instructions", path, BATCHES])
        .run()?;
    let seen = Process::new("perf", root)
        .args(["script", "--fields", "ip,sym,symoff", "--no-demangle", "--input"])
        .arg(&samples)
        .capture()?;
    let symbols = Process::new("nm", root).args(["--defined-only"]).arg(&binary).capture()?;
    let places = places(&seen, &symbols);
    ensure!(!places.is_empty(), "perf saw nothing of the program");
    let addresses = directory.path().join("addresses");
    let list = places.keys().fold(String::new(), |mut list, address| {
        writeln!(list, "{address:#x}").expect("a string has room");
        list
    });
    std::fs::write(&addresses, list)?;
    let inlined = Process::new("addr2line", root)
        .args(["--functions", "--inlines", "--demangle", "--addresses", "--exe"])
        .arg(&binary)
        .arg(format!("@{}", addresses.display()))
        .capture()?;
    let stacks = directory.path().join("stacks");
    std::fs::write(&stacks, fold(&inlined, &places))?;
    let picture = Process::new("inferno-flamegraph", root)
        .args(["--title", &format!("Unwrapping, {path}"), "--countname", "samples", "--deterministic"])
        .args(["--minwidth", MIN_WIDTH])
        .arg(&stacks)
        .capture()?;
    std::fs::write(svg, picture).with_context(|| format!("cannot write {}", svg.display()))?;
    println!("wrote {}: {} samples", svg.display(), places.values().sum::<u64>());
    Ok(())
}

/// How often each address of the program was seen. Lines of perf are `7f3a mangled_name+0x1f`, the first of which depends on
/// where the program was loaded; lines of nm are `000012 t mangled_name`.
fn places(seen: &str, symbols: &str) -> BTreeMap<u64, u64> {
    let starts: BTreeMap<&str, u64> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, _, name) = (words.next()?, words.next()?, words.next()?);
            Some((name, u64::from_str_radix(address, 16).ok()?))
        })
        .collect();
    let mut places = BTreeMap::new();
    for line in seen.lines() {
        let place = line.split_whitespace().nth(1).and_then(|symbol| {
            let (name, offset) = symbol.rsplit_once("+0x")?;
            Some(starts.get(name)? + u64::from_str_radix(offset, 16).ok()?)
        });
        if let Some(address) = place {
            *places.entry(address).or_default() += 1;
        }
    }
    places
}

/// Reads what addr2line prints: an address, then name and line of each function, the innermost first. Gives a line
/// `outer;inner COUNT` for each stack.
fn fold(inlined: &str, places: &BTreeMap<u64, u64>) -> String {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    let mut lines = inlined.lines().peekable();
    while let Some(line) = lines.next() {
        let address = line.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let mut names = Vec::new();
        while lines.peek().is_some_and(|line| !line.starts_with("0x")) {
            names.extend(lines.next().map(short));
            lines.next();
        }
        // The innermost name is that of the whole symbol, whatever was inlined there.
        if names.len() > 1 {
            names.remove(0);
        }
        names.reverse();
        names.dedup();
        let count = address.and_then(|address| places.get(&address)).copied().unwrap_or_default();
        *stacks.entry(names.join(";")).or_default() += count;
    }
    stacks.iter().filter(|(_, count)| **count > 0).fold(String::new(), |mut text, (stack, count)| {
        writeln!(text, "{stack} {count}").expect("a string has room");
        text
    })
}

/// A name without crates and generic arguments; but those of `enter` say what is done with the vector instructions.
fn short(name: &str) -> String {
    if let Some(arguments) = name.strip_prefix("enter<").and_then(|rest| rest.strip_suffix('>')) {
        let work = arguments.split_once(", ").map_or(arguments, |(_, work)| work);
        return last(work).to_owned();
    }
    // `<T as Trait>::f` is T's.
    if let Some((implementor, function)) = name.strip_prefix('<').and_then(|rest| rest.rsplit_once(">::")) {
        let implementor = implementor.split(" as ").next().unwrap_or(implementor);
        let implementor = implementor.split('<').next().unwrap_or(implementor);
        return last(&format!("{implementor}::{function}")).to_owned();
    }
    let mut plain = String::new();
    let mut depth = 0_usize;
    for character in name.chars() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    last(plain.trim_end_matches("::")).to_owned()
}

/// The last two parts of a path, without its generic arguments.
fn last(path: &str) -> &str {
    let path = path.split('<').next().unwrap_or(path);
    path.rmatch_indices("::").nth(1).map_or(path, |(at, _)| &path[at + 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(short("enter<lanes::vector::ifma::Eight, lanes::x25519::Fill<a::B, 2>>"), "x25519::Fill");
        assert_eq!(short("square_times<lanes::vector::ifma::Eight, 2>"), "square_times");
        assert_eq!(short("tombola_lanes::vector::with_avx512::enter"), "with_avx512::enter");
        assert_eq!(short("<lanes::portable::Portable as lanes::field::Field>::mul"), "Portable::mul");
    }

    #[test]
    fn stacks_of_what_was_inlined() {
        let seen = "    7f01 outer+0x4\n\n    7f05 outer+0x4\n 7f09 other+0x1\n 7fff libc_only+0x1\n";
        let symbols = "0000000000000010 t outer\n0000000000000020 T other\n";
        let places = places(seen, symbols);
        assert_eq!(places, BTreeMap::from([(0x14, 2), (0x21, 1)]));
        let inlined = "0x0014\nouter\nadd.rs:1\nmul<a::B>\nb.rs:2\nouter\nc.rs:3\n0x0021\nother\nd.rs:4\n";
        assert_eq!(fold(inlined, &places), "other 1\nouter;mul 2\n");
    }
}

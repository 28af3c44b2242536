#![doc = include_str!("../README.md")]
#![expect(clippy::print_stdout, reason = "a command-line tool reports on its standard output")]

mod bench;
mod check;
mod constant_time;
mod contracts;
mod fixtures;
mod flamegraph;
mod fuzz;
mod layers;
mod links;
mod metadata;
mod named;
mod process;
mod soak;
mod stages;
mod test;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::metadata::Workspace;

/// Development tasks of the Tombola workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything that tests the project.
    Test,
    /// Check format, lints, layers, documentation, links, licences and unused dependencies.
    Check,
    /// Check the dependency rules between the crates.
    Layers,
    /// Check the links between Markdown files.
    Links,
    /// Build the API documentation with warnings as errors.
    Docs,
    /// Run the benchmarks.
    Bench {
        /// Write medians, ratios and the machine to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Draw where the time of unwrapping goes.
    Flamegraph {
        /// Which instructions are used: avx512ifma, avx512ifma-few, avx2 or portable.
        #[arg(long, value_name = "PATH", default_value = "avx512ifma")]
        path: String,
        /// Write the picture to this file.
        #[arg(long, value_name = "FILE", default_value = "docs/performance-unwrap.svg")]
        svg: PathBuf,
    },
    /// Check that no branch and no address depends on a secret.
    ConstantTime,
    /// Kill processes of a running network at random, and check that nothing that was accepted is lost.
    Soak {
        /// How many processes are killed; there are some 30 in a minute.
        #[arg(long, value_name = "N", default_value_t = 300)]
        kills: u32,
        /// Decides which process is killed when; default: another one each time.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Write the counts to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Write the data of this version for the tests of later ones, just before it is released.
    Fixtures,
    /// Run the part of `test` that is about contracts.
    Contracts,
    /// Measure what redemption costs on the chain.
    Gas {
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Make them the figures that the tests expect.
        #[arg(long)]
        update: bool,
    },
    /// Write ABI and bytecode of the contracts, which must be checked in.
    Artifacts,
    /// Analyse the contracts with slither.
    Slither,
    /// Run the fuzz targets, all of them unless some are named.
    Fuzz {
        /// How long each target runs.
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u32,
        /// Names of targets (files of fuzz/fuzz_targets without extension).
        targets: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // On the standard output, so that it comes after what the failed stage printed.
            println!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match command {
        Command::Test => test::run(&workspace),
        Command::Check => check::run(&workspace),
        Command::Layers => layers::run(&workspace),
        Command::Links => links::run(&workspace),
        Command::Docs => check::docs(&workspace),
        Command::Bench { json } => bench::run(&workspace, json.as_deref()),
        Command::Flamegraph { path, svg } => flamegraph::run(&workspace, path, svg),
        Command::ConstantTime => constant_time::run(&workspace),
        Command::Soak { kills, seed, json } => soak::run(&workspace, *kills, *seed, json.as_deref()),
        Command::Fixtures => fixtures::run(&workspace),
        Command::Contracts => contracts::run(&workspace),
        Command::Gas { json, update } => contracts::gas(&workspace, json.as_deref(), *update),
        Command::Artifacts => contracts::artifacts(&workspace),
        Command::Slither => contracts::slither(&workspace),
        Command::Fuzz { seconds, targets } => fuzz::run(&workspace, *seconds, targets),
    }
}

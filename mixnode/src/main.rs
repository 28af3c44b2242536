//! The mix node on its own: the same as `tombola mixnode`.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "tombola-mixnode", version, about = "A Tombola mix node")]
struct Cli {
    #[command(flatten)]
    args: tombola_mixnode::Args,
}

fn main() -> ExitCode {
    tombola_node::entry::run("tombola-mixnode", || tombola_mixnode::run(&Cli::parse().args))
}

//! The client on its own: the same as `tombola client`.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "tombola-client", version, about = "A Tombola client")]
struct Cli {
    #[command(flatten)]
    args: tombola_client::cli::Args,
}

fn main() -> ExitCode {
    tombola_node::entry::run("tombola-client", || tombola_client::cli::run(&Cli::parse().args))
}

//! The gateway on its own: the same as `tombola gateway`.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "tombola-gateway", version, about = "A Tombola gateway")]
struct Cli {
    #[command(flatten)]
    args: tombola_gateway::Args,
}

fn main() -> ExitCode {
    tombola_node::entry::run("tombola-gateway", || tombola_gateway::run(&Cli::parse().args))
}

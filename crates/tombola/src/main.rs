//! The multi-call binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tombola::{account, authority, devchain, local};

#[derive(Parser)]
#[command(
    name = "tombola",
    version,
    about = "A mixnet whose hops earn. Without a subcommand: a whole network on this machine.",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    local: local::Args,
}

#[derive(Subcommand)]
enum Role {
    /// Run a mix node.
    Mixnode(tombola_mixnode::Args),
    /// Run a gateway.
    Gateway(tombola_gateway::Args),
    /// Use a client.
    Client(tombola_client::cli::Args),
    /// Keys and documents of a network's authority and nodes.
    Network(authority::Args),
    /// What a client or node has on the chain: balance, deposits, withdrawals, earnings.
    Account(account::Args),
    /// Run a chain for development.
    Devchain(devchain::Args),
    /// Clears up after a local network whose own process has died. Started by it.
    #[command(hide = true)]
    Keeper(local::KeeperArgs),
}

fn main() -> ExitCode {
    tombola_node::entry::run("tombola", || {
        let cli = Cli::parse();
        match cli.role {
            None => local::run(&cli.local),
            Some(Role::Mixnode(args)) => tombola_mixnode::run(&args),
            Some(Role::Gateway(args)) => tombola_gateway::run(&args),
            Some(Role::Client(args)) => tombola_client::cli::run(&args),
            Some(Role::Network(args)) => authority::run(&args),
            Some(Role::Account(args)) => account::run(&args),
            Some(Role::Devchain(args)) => devchain::run(&args),
            Some(Role::Keeper(args)) => local::keep(&args),
        }
    })
}

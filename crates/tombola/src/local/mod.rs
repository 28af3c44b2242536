//! A whole network on this machine: every node and client a process of its own, on free loopback ports, in a temporary
//! folder. Nothing of it outlives the process that started it.

mod bank;
mod child;
mod cli;
mod keeper;
mod ledger;
mod money;
mod network;
mod node;
mod plan;
mod ports;
mod report;
mod scrape;
mod traffic;

pub(crate) use bank::Till;
pub use cli::{Args, run};
pub use keeper::{KeeperArgs, keep};
pub use money::{NOT_CONSERVED, Settled, Tickets};
pub use network::{Chain, Funder, LocalError, LocalNetwork, Options, Transport};
pub use node::{NodeInfo, Restart};

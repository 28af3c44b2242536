#![doc = include_str!("../README.md")]

pub mod clock;
pub mod config;
pub mod data;
pub mod derive;
pub mod driver;
pub mod egress;
pub mod entry;
pub mod hop;
pub mod ingress;
pub mod keyring;
pub mod keys;
pub mod lateness;
pub mod logging;
pub mod membership;
pub mod meters;
pub mod metrics;
pub mod opening;
pub mod process;
pub mod reload;
pub mod rotation;
pub mod shutdown;
pub mod workers;

pub use tombola_storage::files;

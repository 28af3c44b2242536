#![doc = include_str!("../README.md")]

pub mod account;
pub mod claims;
pub mod clock;
pub mod config;
pub mod cursor;
pub mod data;
pub mod derive;
pub mod driver;
pub mod earnings;
pub mod egress;
pub mod entry;
pub mod funding;
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
pub mod payment;
pub mod payment_client;
pub mod process;
pub mod purse;
pub mod redeem;
pub mod reload;
mod rest;
pub mod rotation;
pub mod settled;
pub mod shutdown;
pub mod workers;

pub use tombola_storage::files;

#![doc = include_str!("../README.md")]

mod accounts;
mod config;
mod machine;
mod run;

pub use accounts::paying_accounts;
pub use config::Config;
pub use run::{Args, run};

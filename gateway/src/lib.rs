#![doc = include_str!("../README.md")]

mod config;
mod machine;
mod run;

pub use config::Config;
pub use run::{Args, run};

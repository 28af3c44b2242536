#![doc = include_str!("../README.md")]

mod config;
mod disk;
mod machine;
mod run;

pub use config::Config;
pub use run::{Args, run};

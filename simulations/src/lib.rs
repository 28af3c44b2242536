#![doc = include_str!("../README.md")]

pub mod bench;
pub mod cli;
pub mod engine;
pub mod experiment;
pub mod fidelity;
pub mod metrics;
pub mod mixes;
pub mod output;
pub mod plot;
pub mod process;
pub mod scenario;
pub mod screen;
pub mod stats;
pub mod verify;
pub mod world;

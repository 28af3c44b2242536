#![doc = include_str!("../README.md")]

pub mod engine;
pub mod experiment;
pub mod fidelity;
pub mod metrics;
pub mod mixes;
pub mod output;
pub mod scenario;
pub mod stats;
pub mod world;

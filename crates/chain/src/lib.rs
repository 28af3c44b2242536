#![doc = include_str!("../README.md")]

pub mod artifacts;
pub mod bindings;
pub mod devchain;
mod wallet;

pub use wallet::{NoKey, SignedTransaction, Wallet};

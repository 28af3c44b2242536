#![doc = include_str!("../README.md")]

pub mod artifacts;
pub mod bindings;
pub mod devchain;
pub mod keystore;
mod wallet;

pub use wallet::{NoKey, SignedTransaction, Wallet};

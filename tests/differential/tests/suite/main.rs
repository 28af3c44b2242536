//! The contracts against `tombola-tickets`: the same claims go to the bytecode that is checked in, in an EVM in memory, and
//! to the model of the contract's checks. What one accepts the other must accept, and pay the same.
//!
//! Signatures are made and recovered by libsecp256k1 on one side and recovered by k256 on the other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod chain;
mod claims;
mod fuzzing;
mod mutations;
mod vectors;
mod world;

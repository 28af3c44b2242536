//! The chain, from deployment to payment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod accounts;
mod anvil;
mod bindings;
mod claims;
mod conformance;
mod fake;
mod hosts;
mod keystore;
mod operations;
mod paid;
mod redeeming;
mod redemption;
mod reorganisations;
mod server;
mod watching;
mod world;

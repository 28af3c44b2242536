//! The chain, from deployment to payment.

mod claims;
mod fake;
mod keystore;
mod operations;
mod redeeming;
mod redemption;
mod reorganisations;
mod server;
mod world;

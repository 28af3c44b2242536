//! The chain, from deployment to payment.

mod claims;
mod keystore;
mod operations;
mod redemption;
mod server;
mod world;

//! The crate from outside: what a reader of documents and addresses gets, and what an attacker does not.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not themselves tests")]

mod address;
mod fixtures;
mod lookups;
mod mutation;
mod network;
mod phases;
mod refused;
mod routes;
mod succession;
mod vectors;

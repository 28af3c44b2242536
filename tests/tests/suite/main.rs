//! End to end, with real processes on the loopback interface: what a user gets, what an operator is told, what an observer
//! of the wires and of the logs sees, what strangers can do, and that nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

mod account;
mod chain_faults;
mod devchain;
mod displaced;
mod doors;
mod epochs;
mod insolvent;
mod kills;
mod left_behind;
mod mailboxes;
mod observed;
mod operator;
mod paid;
mod paid_observed;
mod report;
mod sdk;
mod sizes;
mod supervision;
mod versions;
mod wire;

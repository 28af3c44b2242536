//! Tests of stores and tag logs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failure must stop the test; numbers are small"
)]

mod disk;
mod log_basics;
mod log_faults;
mod processes;
mod store_basics;
mod store_crash;
mod store_damage;
mod store_faults;

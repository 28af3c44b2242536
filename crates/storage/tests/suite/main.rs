//! Tests of stores and tag logs.

mod log_basics;
mod store_basics;

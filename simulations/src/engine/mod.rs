//! Virtual time, the queue of what is to happen, and where randomness comes from.

mod queue;
mod seeds;

pub use queue::EventQueue;
pub use seeds::{Purpose, Seeds};

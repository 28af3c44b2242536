//! What is measured, and by which rule.

pub mod masses;
mod moments;
pub mod tracker;

pub use moments::{Histogram, Moments};

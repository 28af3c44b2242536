#![doc = include_str!("../README.md")]

mod edwards;
mod field;
mod montgomery;
mod path;
mod portable;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vector;
mod x25519;

pub use path::Path;
pub use x25519::{BATCH, Multiples, Single, x25519};

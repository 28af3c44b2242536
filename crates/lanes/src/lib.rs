#![doc = include_str!("../README.md")]

pub mod blake2b;
pub mod chacha20;
mod edwards;
mod erase;
#[cfg(target_arch = "x86_64")]
mod few;
mod field;
pub mod keccak;
mod montgomery;
mod path;
mod portable;
mod scalar;
pub mod sha256;
#[cfg(target_arch = "x86_64")]
mod vector;
mod x25519;

pub use erase::{Erasing, Plain, erase};
pub use path::Path;
pub use x25519::{BATCH, Kept, Multiples, Single, x25519, x25519_base};

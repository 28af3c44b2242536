#![doc = include_str!("../README.md")]

mod database;
mod error;
pub mod files;
mod group;
mod mark;
mod medium;
mod pending;
pub mod record;
mod store;
pub mod taglog;
mod volume;
mod writer;

pub use error::StoreError;
pub use medium::{LockedFile, Medium, Memory};
pub use store::{Format, Migration, Pair, Store};
pub use writer::{BACKLOG_BYTES, Backlog, Writer};

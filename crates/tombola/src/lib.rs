#![doc = include_str!("../README.md")]

pub mod authority;
pub mod devchain;
pub mod local;

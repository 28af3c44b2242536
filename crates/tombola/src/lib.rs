#![doc = include_str!("../README.md")]

pub mod account;
pub mod authority;
pub mod devchain;
pub mod local;

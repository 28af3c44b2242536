#![doc = include_str!("../README.md")]

pub mod client;
pub mod drops;
pub mod fragment;
pub mod frame;
pub mod gateway;
pub mod halfloops;
pub mod hop;
pub mod mailbox;
pub mod opener;
pub mod packet;
pub mod reassembly;
pub mod relay;
pub mod replay;
pub mod sendqueue;
pub mod store;
pub mod view;

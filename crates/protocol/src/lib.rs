#![doc = include_str!("../README.md")]

mod changes;
pub mod client;
pub mod control;
pub mod drops;
pub mod durable;
pub mod erasure;
pub mod fragment;
pub mod frame;
pub mod gateway;
pub mod halfloops;
pub mod hop;
mod inbox;
pub mod mailbox;
pub mod opener;
pub mod outbox;
pub mod packet;
pub mod payload;
pub mod payment;
pub mod reassembly;
pub mod records;
pub mod relay;
pub mod replay;
mod replyblocks;
pub mod store;
pub mod taglog;
pub mod unix;
pub mod view;

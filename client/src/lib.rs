#![doc = include_str!("../README.md")]

pub mod cli;
mod content;
mod home;
mod lines;
mod machine;
mod progress;
mod session;

pub use content::{Content, ContentError};
pub use home::{Home, HomeError, NewHome};
pub use session::{Client, ClientError, ConnectOptions, EmittedAt, Event, Received};
pub use tombola_link::install_crypto_provider;
pub use tombola_protocol::client::ClientCounts;
pub use tombola_protocol::fragment::{MESSAGE_MAX, MessageId};
pub use tombola_topology::{ClientAddress, Network};

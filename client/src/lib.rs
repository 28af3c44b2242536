#![doc = include_str!("../README.md")]

pub mod cli;
mod content;
mod epochs;
mod event;
mod home;
mod lines;
mod machine;
mod progress;
mod session;
mod signed;

pub use content::{Content, ContentError};
pub use event::{EmittedAt, Event, Received};
pub use home::{Home, HomeError, HomePayer, NewHome};
pub use session::{Client, ClientError, ConnectOptions, MessageOptions};
pub use tombola_link::install_crypto_provider;
pub use tombola_protocol::client::{ClientCounts, FinalState};
pub use tombola_protocol::fragment::{MESSAGE_MAX, MessageId};
pub use tombola_topology::{ClientAddress, Network};

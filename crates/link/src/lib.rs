#![doc = include_str!("../README.md")]

mod address;
mod backoff;
mod behaviour;
mod config;
mod connection;
mod dialer;
mod door;
mod driver;
mod handler;
mod identity;
mod links;
mod listen;
mod mux;
mod pool;
mod queue;
mod session;
mod shared;
mod sink;
mod stats;
mod stream;
mod transport;

pub use address::AddressError;
pub use config::{CLIENT_PROTOCOL, ClientLimits, LinkConfig, NODE_PROTOCOL, Peer, PeersError, Policy};
pub use identity::LinkSecret;
pub use links::{Links, SendError, StartError, start};
pub use listen::ListenError;
pub use pool::FramePool;
pub use sink::{ChannelSink, FrameSink, LinkEvent, Taken};
pub use stats::{DropReason, LinkEnd, LinkStats, Refusal};
pub use stream::BATCH;

/// Chooses the implementation of TLS's primitives for the whole process; to be called first thing in `main`.
///
/// The links themselves do not depend on it: libp2p names its implementation. But rustls refuses to guess, and panics, when
/// another library uses it without naming one and two are linked in, as they are here. Calling it again, or after somebody
/// else has chosen, changes nothing.
pub fn install_crypto_provider() {
    // Err: one has been installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

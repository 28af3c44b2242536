//! The gateway's configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tombola_node::payment::PaymentConfig;

/// `gateway.toml`. Relative paths start at the file's own directory. Nothing in it affects anonymity: what does comes
/// from the network document alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network document.
    pub network: PathBuf,
    /// The key that signs it: 64 hexadecimal digits.
    pub authority: String,
    /// Key file of the link identity.
    pub link_secret: PathBuf,
    /// A folder with the key files of the Sphinx keys, one for each epoch: `*.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sphinx_secrets: Option<PathBuf>,
    /// The key file of the only Sphinx key, in place of `sphinx_secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sphinx_secret: Option<PathBuf>,
    /// Where it keeps what has to survive it: mail among it; a folder that nobody else uses.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Addresses to listen on for neighbours, TCP and QUIC: `/ip4/0.0.0.0/tcp/9000`, `/ip4/0.0.0.0/udp/9000/quic-v1`.
    pub listen: Vec<String>,
    /// Addresses to listen on for clients.
    pub client_listen: Vec<String>,
    /// Where metrics are served, a loopback address; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Threads that open packets; 0: the threads that read them from links; absent: one per processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Threads that move bytes on links. One is enough for some 10 000 frames a second; 0: one, which drives the state
    /// machine too, which saves processor time and costs accuracy of release under load.
    #[serde(default = "default_link_threads")]
    pub link_threads: usize,
    /// Packets that may be on their way through the node at one time, mail excluded: 2.5 kB each.
    #[serde(default = "default_places")]
    pub places: usize,
    /// Packets that all mailboxes may hold together: 2.5 kB of disk each, and 16 bytes of memory.
    #[serde(default = "default_mail_packets")]
    pub mail_packets: usize,
    /// How it pays and is paid; absent in a network without payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentConfig>,
    /// Connections of clients from one IPv4 address or IPv6 /64; 0 for no limit.
    #[serde(default = "default_per_origin")]
    pub clients_per_origin: usize,
}

fn default_data() -> PathBuf {
    PathBuf::from("data")
}

fn default_link_threads() -> usize {
    1
}

/// 16 384 packets, 40 MB.
fn default_places() -> usize {
    16_384
}

/// 1 048 576 packets, 2.6 GB on disk.
fn default_mail_packets() -> usize {
    1_048_576
}

fn default_per_origin() -> usize {
    64
}

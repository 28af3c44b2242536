//! The mix node's configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tombola_node::payment::PaymentConfig;

/// `mixnode.toml`. Relative paths start at the file's own directory. Nothing in it affects anonymity: what does comes
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
    /// Where it keeps what has to survive it: a folder that nobody else uses.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Addresses to listen on for neighbours, TCP and QUIC: `/ip4/0.0.0.0/tcp/9000`, `/ip4/0.0.0.0/udp/9000/quic-v1`.
    pub listen: Vec<String>,
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
    /// How it pays and is paid; absent in a network without payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentConfig>,
    /// Packets that may be in the node at one time, from the header's processing to departure: 2.5 kB each.
    #[serde(default = "default_places")]
    pub places: usize,
}

fn default_data() -> PathBuf {
    PathBuf::from("data")
}

fn default_link_threads() -> usize {
    1
}

/// 16 384 packets, 40 MB: a mean delay of 0.45 s at 36 000 packets a second.
fn default_places() -> usize {
    16_384
}

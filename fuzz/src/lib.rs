//! What several fuzz targets share: a network of one mix node and one gateway with known keys.

use std::sync::Arc;
use std::time::Duration;

use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_topology::{
    AuthoritySecret, Draft, EpochDraft, EpochNumber, IdentityKey, Network, Node, NodeIndex, Parameters, Role,
    SphinxKey, UnixTime,
};

/// The only mix node.
pub const MIX: NodeIndex = NodeIndex(0);
/// The only gateway.
pub const GATEWAY: NodeIndex = NodeIndex(1);
/// A moment in the only epoch.
pub const NOW: UnixTime = UnixTime(1_800_000_100);

/// Sphinx key of a node.
pub fn sphinx_key(node: NodeIndex) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(node.0).unwrap_or(u8::MAX) ^ 0x5a; 32])
}

/// Identity of a node.
pub fn identity(node: NodeIndex) -> IdentityKey {
    IdentityKey::of_seed(&[u8::try_from(node.0).unwrap_or(u8::MAX) ^ 0xa5; 32])
}

/// What the authority of the network signs with.
pub fn authority() -> AuthoritySecret {
    AuthoritySecret::from_seed([7; 32])
}

/// The network's document.
pub fn network() -> Network {
    let node = |index, role, client_addresses| Node {
        role,
        identity: identity(index),
        sphinx_key: SphinxKey::from_bytes(sphinx_key(index).public_key().to_bytes()),
        addresses: vec!["/ip4/127.0.0.1/udp/1700/quic-v1".into()],
        client_addresses,
    };
    let draft = Draft {
        name: "fuzz".into(),
        serial: 1,
        parameters: Parameters {
            layers: 1,
            mailbox_packets: 8,
            mailbox_retention: Duration::from_secs(60),
            clients_per_gateway: 4,
            ..Parameters::default()
        },
        epochs: vec![EpochDraft {
            number: EpochNumber(2),
            valid_from: UnixTime(1_800_000_000),
            valid_until: UnixTime(1_800_003_600),
            nodes: vec![
                node(MIX, Role::Mix { layer: 1 }, Vec::new()),
                node(GATEWAY, Role::Gateway, vec!["/ip4/127.0.0.1/udp/1701/quic-v1".into()]),
            ],
        }],
    };
    draft.sign(&authority()).expect("the document above is valid")
}

/// The network as its nodes see it.
pub fn view() -> Arc<EpochView> {
    EpochView::at(&network(), NOW).expect("NOW is in the epoch, and its keys are points")
}

//! What several fuzz targets share: a network of one mix node and one gateway with known keys, and a client's disk.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tombola_protocol::frame::Frame;
use tombola_protocol::hop::NextHop;
use tombola_protocol::opener::{Half, Ticket};
use tombola_protocol::records::Restore;
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Admission, RelaySecrets, ReplayFilter, ReplayTag, Routing, SecretKey, verify};
use tombola_tickets::por;
use tombola_topology::{
    AuthoritySecret, Draft, EpochDraft, EpochNumber, IdentityKey, MailboxId, Network, Node, NodeIndex,
    Parameters, Role, SphinxKey, UnixTime,
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
        account: None,
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
            payment: None,
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

/// What a hop would know of its ticket.
pub fn any_ticket() -> Ticket {
    let opener = por::Opener::from_bytes([0; 16]);
    Ticket { challenge: opener.challenge(), ack: por::Ack::from_bytes([0; 16]), half: Half::Whole(opener) }
}

/// Lets everything pass, as often as it comes.
struct Open;

impl ReplayFilter for Open {
    type Rejected = Infallible;

    fn check_and_insert(&self, _: &ReplayTag) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Admission for Open {
    type Refused = Infallible;

    fn admit(&self, _: &RelaySecrets, _: &Routing) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Carries a client's packet through the network, at once: the mailbox that it ends in, if it does.
pub fn carry(mut frame: Frame) -> Option<(MailboxId, Frame)> {
    let mut node = MIX;
    loop {
        let Ok(fresh) = verify(&sphinx_key(node), frame.packet_mut()).ok()?.check_fresh(&Open);
        let Ok(admitted) = fresh.admit(&Open);
        let Routing::Forward { next, .. } = admitted.unwrap().routing else { return None };
        match NextHop::from_bytes(&next) {
            NextHop::Node { index, .. } if index == MIX || index == GATEWAY => node = index,
            NextHop::Node { .. } => return None,
            NextHop::Mailbox(mailbox) => return Some((mailbox, frame)),
        }
    }
}

/// What a client has on disk, and what is on its way there in groups.
#[derive(Default)]
pub struct ClientDisk {
    records: BTreeMap<(Table, Box<[u8]>), Box<[u8]>>,
    groups: VecDeque<Vec<StoreOp>>,
    durable: u64,
    /// Groups that were ever taken, and those that are durable.
    taken: u64,
    written: u64,
}

impl ClientDisk {
    /// Takes what one call asked for: one group. Returns its number.
    pub fn submit(&mut self, ops: impl Iterator<Item = StoreOp>) -> u64 {
        let group: Vec<_> = ops.collect();
        if !group.is_empty() {
            self.groups.push_back(group);
            self.taken += 1;
        }
        self.taken
    }

    /// Makes the next groups durable; how many changes are.
    pub fn commit(&mut self, groups: usize) -> u64 {
        for group in self.groups.drain(..groups.min(self.groups.len())) {
            self.written += 1;
            for op in group {
                self.durable += 1;
                match op {
                    StoreOp::Put { table, key, value } => drop(self.records.insert((table, key), value)),
                    StoreOp::Delete { table, key } => drop(self.records.remove(&(table, key))),
                    StoreOp::DeleteRange { table, from, to } => {
                        self.records.retain(|(t, key), _| *t != table || *key < from || *key > to);
                    }
                }
            }
        }
        self.durable
    }

    /// Whether a group is durable.
    pub fn has(&self, group: u64) -> bool {
        group <= self.written
    }

    /// Whether there is such a record.
    pub fn contains(&self, table: Table, key: &[u8]) -> bool {
        self.records.contains_key(&(table, key.into()))
    }

    /// The process ends; what the next one finds.
    pub fn crash(&mut self) -> Restore {
        self.taken -= self.groups.len() as u64;
        self.groups.clear();
        self.durable = 0;
        let mut restore = Restore::default();
        for ((table, key), value) in &self.records {
            restore.feed(*table, key, value).expect("a client wrote it");
        }
        restore
    }
}

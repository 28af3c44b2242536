//! The network's document, and everybody's keys.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_protocol::client::{Client, ClientKeys};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::gateway::{Gateway, GatewayMail};
use tombola_protocol::mailbox::Stored;
use tombola_protocol::opener::{Occupancy, Opener};
use tombola_protocol::relay::Relay;
use tombola_protocol::replay::{TagFilter, capacity_for};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_topology::{
    AuthoritySecret, Draft, EpochDraft, EpochNumber, IdentityKey, Node, NodeIndex, Parameters, Role,
    SphinxKey, UnixTime,
};

/// Mix nodes in a layer.
pub(crate) const NODES_PER_LAYER: u32 = 2;
/// Gateways; they come first in the node list.
const GATEWAYS: u32 = 2;

/// What a network is made of. Two gateways, layers of two mix nodes.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Everything random follows from it.
    pub(crate) seed: u64,
    /// As the document has them.
    pub(crate) parameters: Parameters,
    /// Client `i` is at gateway `i % 2`.
    pub(crate) clients: usize,
    /// Accounts of each mix node, account `i` at gateway `i % 2`. Without any, mix nodes send no loops.
    pub(crate) accounts: usize,
    /// Of every link.
    pub(crate) latency: Duration,
    /// Places in each node.
    pub(crate) capacity: usize,
    /// Packets in all mailboxes of a gateway.
    pub(crate) memory: usize,
    /// Number of the epoch, whose parity frames carry.
    pub(crate) epoch: u64,
}

impl Setup {
    /// Two clients, no accounts, links of 1 ms, the parameters of a real network.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            parameters: parameters(),
            clients: 2,
            accounts: 0,
            latency: Duration::from_millis(1),
            capacity: 10_000,
            memory: 100_000,
            epoch: 3,
        }
    }

    /// The document signed, verified, and read.
    pub(crate) fn world(&self) -> World {
        let mut rng = Rng::from_seed(seed_of(self.seed, 0));
        let roles = (0..GATEWAYS).map(|_| Role::Gateway).chain(
            (1..=self.parameters.layers)
                .flat_map(|layer| (0..NODES_PER_LAYER).map(move |_| Role::Mix { layer })),
        );
        let mut secrets = Vec::new();
        let nodes = roles
            .map(|role| {
                let secret = SecretKey::from_bytes(rng.seed());
                let node = Node {
                    role,
                    identity: IdentityKey::of_seed(&rng.seed()),
                    sphinx_key: SphinxKey::from_bytes(secret.public_key().to_bytes()),
                    addresses: vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()],
                    client_addresses: match role {
                        Role::Gateway => vec!["/ip4/127.0.0.1/udp/2/quic-v1".into()],
                        Role::Mix { .. } => vec![],
                    },
                };
                secrets.push(secret);
                node
            })
            .collect();
        let epoch = EpochDraft {
            number: EpochNumber(self.epoch),
            valid_from: UnixTime(1_000_000),
            valid_until: UnixTime(1_086_400),
            nodes,
        };
        let draft = Draft {
            name: "virtual".into(),
            serial: 1,
            parameters: self.parameters.clone(),
            epochs: vec![epoch],
        };
        let network = draft.sign(&AuthoritySecret::from_seed([1; 32])).unwrap();
        let view = EpochView::at(&network, UnixTime(1_000_000)).unwrap();
        World { setup: self.clone(), view, secrets, rng }
    }
}

/// A network that could be started, and the keys that only its nodes have.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) view: Arc<EpochView>,
    secrets: Vec<SecretKey>,
    rng: Rng,
}

impl World {
    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> u32 {
        u32::try_from(self.secrets.len()).unwrap()
    }

    /// What opens the packets of a node.
    pub(crate) fn opener(&self, node: u32, occupancy: &Occupancy, drops: &Arc<DropCounters>) -> Opener {
        let admitted = u64::from(self.setup.parameters.admitted_rate);
        let seen = TagFilter::new(capacity_for(admitted, self.view.life()), 1);
        let secret = self.secrets[node as usize].clone();
        Opener::new(
            Arc::clone(&self.view),
            NodeIndex(node),
            secret,
            seen,
            occupancy.clone(),
            Arc::clone(drops),
        )
    }

    /// A client of that gateway with fresh keys, and its link identity.
    pub(crate) fn client(&mut self, gateway: u32) -> (IdentityKey, Client) {
        let identity = IdentityKey::of_seed(&self.rng.seed());
        let keys = ClientKeys {
            sphinx: SecretKey::from_bytes(self.rng.seed()),
            identity,
            gateway: self.view.epoch().nodes()[gateway as usize].identity,
        };
        (identity, Client::new(Time::ZERO, Arc::clone(&self.view), keys, self.rng.seed()).unwrap())
    }

    /// The state machine of a mix node, and the link identities of its accounts.
    pub(crate) fn relay(
        &mut self,
        node: u32,
        occupancy: &Occupancy,
        drops: &Arc<DropCounters>,
    ) -> (Vec<IdentityKey>, Relay) {
        let (identities, accounts) = (0..self.setup.accounts).map(|i| self.client(gateway_of(i))).unzip();
        let (view, places, drops) = (Arc::clone(&self.view), occupancy.clone(), Arc::clone(drops));
        let seed = self.rng.seed();
        let relay = Relay::new(Time::ZERO, view, NodeIndex(node), accounts, places, drops, seed);
        (identities, relay.unwrap())
    }

    /// The state machine of a gateway with an empty disk.
    pub(crate) fn gateway(&mut self, node: u32, occupancy: &Occupancy, drops: &Arc<DropCounters>) -> Gateway {
        self.gateway_with(Time::ZERO, node, Stored::default(), occupancy, drops)
    }

    /// The state machine of a gateway that begins now, with what is on its disk.
    pub(crate) fn gateway_with(
        &mut self,
        now: Time,
        node: u32,
        stored: Stored,
        occupancy: &Occupancy,
        drops: &Arc<DropCounters>,
    ) -> Gateway {
        let (view, places, drops) = (Arc::clone(&self.view), occupancy.clone(), Arc::clone(drops));
        let clock = WallClock { at_zero: UnixNanos(1_000_000_000_000_000) };
        let (mail, seed) = (GatewayMail { packets: self.setup.memory, clock, stored }, self.rng.seed());
        Gateway::new(now, view, NodeIndex(node), mail, places, drops, seed).unwrap()
    }
}

/// The gateway of the `i`-th client, or of a node's `i`-th account.
pub(crate) fn gateway_of(i: usize) -> u32 {
    u32::try_from(i).unwrap() % GATEWAYS
}

fn seed_of(seed: u64, purpose: u8) -> [u8; 32] {
    let mut bytes = [purpose; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// Rates of the tests' own: what they expect shall not move with the defaults.
fn parameters() -> Parameters {
    Parameters {
        mean_delay: Duration::from_millis(250),
        main_interval: Duration::from_millis(40),
        loop_interval: Duration::from_secs(1),
        drop_interval: Duration::from_secs(1),
        mix_loop_interval: Duration::from_secs(1),
        downlink_interval: Duration::from_millis(20),
        ..Parameters::default()
    }
}

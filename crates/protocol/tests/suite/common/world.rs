//! The network's document, and everybody's keys.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_protocol::client::{Client, ClientKeys};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::gateway::{Gateway, GatewayMail};
use tombola_protocol::mailbox::Stored;
use tombola_protocol::opener::{NodeKey, Occupancy, Opener};
use tombola_protocol::payment::{Account, Fact, Payments, Setting};
use tombola_protocol::records::Restore;
use tombola_protocol::relay::Relay;
use tombola_protocol::replay::{TagFilter, capacity_for};
use tombola_protocol::taglog::TagLog;
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::{EpochView, Seat};

use tombola_sphinx::SecretKey;
use tombola_tickets::{
    Address, ClassNumber, Domain, Limits, PriceClass, SignerKey, UnixSeconds, WinProbability,
};
use tombola_topology::{
    AuthoritySecret, ChainAddress, Draft, EpochDraft, EpochNumber, IdentityKey, Network, Node, Parameters,
    Payment, Role, SphinxKey, UnixTime,
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
    /// Number of the first epoch, whose parity frames carry.
    pub(crate) epoch: u64,
    /// How many epochs the document has. The second begins when time is [`Setup::epoch_length`].
    pub(crate) epochs: u64,
    /// In whole seconds.
    pub(crate) epoch_length: Duration,
    /// Packets are paid for.
    pub(crate) paid: bool,
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
            epochs: 1,
            epoch_length: Duration::from_secs(86_400),
            paid: false,
        }
    }

    /// The same, with payment.
    pub(crate) fn paid(seed: u64) -> Self {
        Self { paid: true, ..Self::new(seed) }
    }

    /// The document signed, verified, and read.
    pub(crate) fn world(&self) -> World {
        let mut rng = Rng::from_seed(seed_of(self.seed, 0));
        let roles = (0..GATEWAYS).map(|_| Role::Gateway).chain(
            (1..=self.parameters.layers)
                .flat_map(|layer| (0..NODES_PER_LAYER).map(move |_| Role::Mix { layer })),
        );
        let mut secrets = Vec::new();
        let nodes: Vec<_> = roles
            .zip(1u8..)
            .map(|(role, number)| {
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
                    account: self.paid.then(|| ChainAddress(account_of(number).into())),
                };
                secrets.push(secret);
                node
            })
            .collect();
        let identities = nodes.iter().map(|node| node.identity).collect();
        let mut secrets = vec![secrets];
        let mut drafts = vec![self.epoch_draft(0, nodes)];
        for number in 1..self.epochs {
            let mut nodes = drafts[0].nodes.clone();
            let keys: Vec<_> = nodes.iter().map(|_| SecretKey::from_bytes(rng.seed())).collect();
            for (node, secret) in nodes.iter_mut().zip(&keys) {
                node.sphinx_key = SphinxKey::from_bytes(secret.public_key().to_bytes());
            }
            // Another index in each epoch, so that none can be mistaken for one of another list.
            let shift = usize::try_from(number).unwrap() % nodes.len();
            nodes.rotate_right(shift);
            secrets.push(keys);
            drafts.push(self.epoch_draft(number, nodes));
        }
        let draft =
            Draft { name: "virtual".into(), serial: 1, parameters: self.parameters.clone(), epochs: drafts };
        let network = draft.sign(&AuthoritySecret::from_seed([1; 32])).unwrap();
        let views: Vec<_> =
            network.epochs().iter().map(|epoch| EpochView::of(&network, epoch).unwrap()).collect();
        World {
            setup: self.clone(),
            view: Arc::clone(&views[0]),
            views,
            network,
            identities,
            secrets,
            clients: vec![],
            purses: 0,
            signers: BTreeMap::new(),
            rng,
        }
    }

    fn epoch_draft(&self, number: u64, nodes: Vec<Node>) -> EpochDraft {
        let begins = START + number * self.epoch_length.as_secs();
        EpochDraft {
            number: EpochNumber(self.epoch + number),
            valid_from: UnixTime(begins),
            valid_until: UnixTime(begins + self.epoch_length.as_secs()),
            payment: self.paid.then(|| Payment {
                chain_id: CHAIN,
                escrow: ChainAddress([0xee; 20]),
                classes: (0..u32::from(self.parameters.layers) + 2)
                    .map(|link| class_of(number, link).0)
                    .collect(),
            }),
            nodes,
        }
    }
}

/// When time is zero, since 1970.
pub(crate) const START: u64 = 1_000_000;

/// A network that could be started, and the keys that only its nodes have.
pub(crate) struct World {
    pub(crate) setup: Setup,
    /// The first epoch.
    pub(crate) view: Arc<EpochView>,
    /// All of them.
    pub(crate) views: Vec<Arc<EpochView>>,
    pub(crate) network: Network,
    /// Of the nodes, which are numbered as in the first epoch.
    pub(crate) identities: Vec<IdentityKey>,
    /// By epoch and node.
    secrets: Vec<Vec<SecretKey>>,
    clients: Vec<(IdentityKey, SecretKey, u32)>,
    purses: u8,
    /// Keys that sign for accounts instead of their own, by number.
    pub(crate) signers: BTreeMap<u8, u8>,
    rng: Rng,
}

impl World {
    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> u32 {
        u32::try_from(self.identities.len()).unwrap()
    }

    /// The identity of a node; of one that there is not, somebody's.
    pub(crate) fn identity(&self, node: u32) -> IdentityKey {
        let somebody = || IdentityKey::of_seed(&[0xee; 32]);
        self.identities.get(node as usize).copied().unwrap_or_else(somebody)
    }

    /// What opens the packets of a node in the first epoch.
    pub(crate) fn opener(&self, node: u32, occupancy: &Occupancy, drops: &Arc<DropCounters>) -> Opener {
        let opener = Opener::new(&self.setup.parameters, occupancy.clone(), Arc::clone(drops));
        opener.open(self.seat(0, node), self.key(0, node, None));
        opener
    }

    /// The place of a node in an epoch, counted from 0.
    pub(crate) fn seat(&self, epoch: usize, node: u32) -> Seat {
        Seat::of(Arc::clone(&self.views[epoch]), &self.identity(node)).unwrap()
    }

    /// The key of a node in an epoch, unused.
    pub(crate) fn key(&self, epoch: usize, node: u32, log: Option<Arc<dyn TagLog>>) -> Arc<NodeKey> {
        let admitted = u64::from(self.setup.parameters.admitted_rate);
        let seen = TagFilter::new(capacity_for(admitted, 2 * self.view.life()), 1);
        let secret = self.secrets[epoch][node as usize].clone();
        Arc::new(NodeKey::new(secret, seen, log))
    }

    /// A client of that gateway with fresh keys, and its link identity.
    pub(crate) fn client(&mut self, gateway: u32) -> (IdentityKey, Client) {
        let identity = IdentityKey::of_seed(&self.rng.seed());
        self.clients.push((identity, SecretKey::from_bytes(self.rng.seed()), gateway));
        (identity, self.restarted(self.clients.len() - 1, Time::ZERO, Restore::default()))
    }

    /// The client of that number, with what it had kept.
    pub(crate) fn restarted(&mut self, number: usize, now: Time, stored: Restore) -> Client {
        let (identity, sphinx, gateway) = self.clients[number].clone();
        let gateway = self.identity(gateway);
        let keys = ClientKeys { sphinx, identity, gateway };
        let wall = WallClock { at_zero: UnixNanos(START * 1_000_000_000) };
        let client = Client::new(now, wall, Arc::clone(&self.view), keys, stored, self.rng.seed()).unwrap();
        self.paying(now, identity, client)
    }

    /// As many accounts as a mix node has, in an epoch that has begun.
    pub(crate) fn accounts(&mut self, now: Time, view: &Arc<EpochView>) -> (Vec<IdentityKey>, Vec<Client>) {
        (0..self.setup.accounts)
            .map(|i| {
                let identity = IdentityKey::of_seed(&self.rng.seed());
                let (sphinx, gateway) =
                    (SecretKey::from_bytes(self.rng.seed()), self.identity(gateway_of(i)));
                let keys = ClientKeys { sphinx, identity, gateway };
                let client = Client::account(now, Arc::clone(view), keys, self.rng.seed()).unwrap();
                (identity, self.paying(now, identity, client))
            })
            .unzip()
    }

    /// The state machine of a mix node, and the link identities of its accounts.
    pub(crate) fn relay(
        &mut self,
        node: u32,
        occupancy: &Occupancy,
        drops: &Arc<DropCounters>,
    ) -> (Vec<IdentityKey>, Relay) {
        let (identities, accounts) = self.accounts(Time::ZERO, &Arc::clone(&self.view));
        let (view, places, drops) = (Arc::clone(&self.view), occupancy.clone(), Arc::clone(drops));
        let seed = self.rng.seed();
        let relay =
            Relay::new(Time::ZERO, view, self.identity(node), accounts, places, Arc::clone(&drops), seed);
        let relay = match self.node_payments(node, drops) {
            Some(payments) => relay.with_payments(Time::ZERO, payments, &self.seat(0, node).into()),
            None => relay,
        };
        (identities, relay)
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
        let (views, places, drops) = (self.seat(0, node).into(), occupancy.clone(), Arc::clone(drops));
        let clock = WallClock { at_zero: UnixNanos(1_000_000_000_000_000) };
        let (mail, seed) = (GatewayMail { packets: self.setup.memory, clock, stored }, self.rng.seed());
        let gateway =
            Gateway::new(now, &self.setup.parameters, views, mail, places, Arc::clone(&drops), seed);
        match self.node_payments(node, drops) {
            Some(payments) => gateway.with_payments(now, payments),
            None => gateway,
        }
    }
}

impl World {
    /// The price classes of all epochs.
    pub(crate) fn prices(&self) -> BTreeMap<ClassNumber, PriceClass> {
        let links = 0..u32::from(self.setup.parameters.layers) + 2;
        let price = |epoch: u64, link: u32| PriceClass {
            // Each hop keeps one part of it, and passes on the rest.
            face_value: FEE
                * u128::from(self.setup.parameters.layers + 2 - u8::try_from(link).unwrap())
                * ONE_IN,
            win_probability: WinProbability::from_ratio(1, u32::try_from(ONE_IN).unwrap()).unwrap(),
            valid_from: UnixSeconds(u32::try_from(START).unwrap() - 10),
            expiry: UnixSeconds(u32::try_from(START).unwrap() + 1_000_000),
            epoch: u32::try_from(epoch).unwrap(),
        };
        let epochs = 0..self.setup.epochs;
        epochs
            .flat_map(|epoch| links.clone().map(move |link| (class_of(epoch, link), price(epoch, link))))
            .collect()
    }

    fn node_payments(&mut self, node: u32, drops: Arc<DropCounters>) -> Option<Payments> {
        let number = u8::try_from(node).unwrap() + 1;
        let kept = tombola_tickets::Restore::default();
        self.setup.paid.then(|| self.payments(Time::ZERO, number, self.identity(node), drops, &kept))
    }

    /// A mix node without accounts that begins again, with what payment has kept.
    pub(crate) fn restarted_relay(
        &mut self,
        now: Time,
        node: u32,
        occupancy: &Occupancy,
        drops: &Arc<DropCounters>,
        kept: &tombola_tickets::Restore,
    ) -> Relay {
        let (view, places, seed) = (Arc::clone(&self.view), occupancy.clone(), self.rng.seed());
        let number = u8::try_from(node).unwrap() + 1;
        let payments = self.payments(now, number, self.identity(node), Arc::clone(drops), kept);
        Relay::new(now, view, self.identity(node), vec![], places, Arc::clone(drops), seed).with_payments(
            now,
            payments,
            &self.seat(0, node).into(),
        )
    }

    /// Payments of an account; everybody knows that everybody has plenty.
    fn payments(
        &mut self,
        now: Time,
        number: u8,
        me: IdentityKey,
        drops: Arc<DropCounters>,
        kept: &tombola_tickets::Restore,
    ) -> Payments {
        let key = self.signers.get(&number).copied().unwrap_or(number);
        let signer = SignerKey::from_bytes(&[key; 32]).unwrap();
        let account =
            Account { address: account_of(number), signer, secret: [number; 32].into(), domain: domain() };
        let limits = Limits {
            settled_after: self.setup.parameters.max_delay + Duration::from_secs(2),
            claim_before_expiry: 3600,
        };
        let wall = WallClock { at_zero: UnixNanos(START * 1_000_000_000) };
        let setting = Setting { me, wall, limits, drops, seed: self.rng.seed() };
        let mut payments = Payments::new(now, account, setting, self.prices(), kept).unwrap();
        payments.handle_fact(Time::ZERO, Fact::Deposit(PLENTY));
        for other in 1..=u8::try_from(self.identities.len()).unwrap() {
            payments.handle_fact(Time::ZERO, Fact::Guarantee { issuer: account_of(other), amount: PLENTY });
        }
        payments
    }

    fn paying(&mut self, now: Time, identity: IdentityKey, client: Client) -> Client {
        if !self.setup.paid {
            return client;
        }
        // Accounts of nodes come first.
        self.purses += 1;
        let drops = Arc::clone(client.drops());
        let kept = tombola_tickets::Restore::default();
        let payments = self.payments(now, 100 + self.purses, identity, drops, &kept);
        client.with_payments(now, payments)
    }
}

/// What a hop keeps of each packet.
pub(crate) const FEE: u128 = 1000;
/// One ticket in so many wins.
pub(crate) const ONE_IN: u128 = 64;
/// More than anybody spends.
pub(crate) const PLENTY: u128 = 1 << 100;
const CHAIN: u64 = 31_337;

/// The account of that number: its own key signs for it.
pub(crate) fn account_of(number: u8) -> Address {
    SignerKey::from_bytes(&[number; 32]).unwrap().address()
}

pub(crate) fn domain() -> Domain {
    Domain::new(CHAIN, Address::repeat_byte(0xee))
}

fn class_of(epoch: u64, link: u32) -> ClassNumber {
    ClassNumber(u32::try_from(epoch).unwrap() * 10 + link + 1)
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

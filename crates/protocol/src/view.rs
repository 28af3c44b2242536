//! One epoch of the network as the state machines use it: parameters, nodes, and their Sphinx keys checked once.

use core::time::Duration;
use std::sync::Arc;

use thiserror::Error;
use tombola_mixing::Rng;
use tombola_sphinx::{PointError, PublicKey};
use tombola_topology::{
    ClientAddress, Epoch, EpochError, IdentityKey, MixRoute, Network, NodeIndex, Parameters, Role, UnixTime,
};

use crate::frame::Parity;

/// Why an epoch of a verified document cannot be used.
#[derive(Debug, Error)]
pub enum ViewError {
    /// No epoch of the document is valid now.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// A node's Sphinx key is no usable point.
    #[error(
        "epoch {epoch}, node {index}: its Sphinx key is unusable: {source}; ask the network's authority for a corrected document"
    )]
    SphinxKey {
        /// The epoch.
        epoch: u64,
        /// Index into the epoch's node list.
        index: u32,
        /// What is wrong with it.
        source: PointError,
    },
}

/// An address that does not belong to this network.
#[derive(Debug, Error)]
pub enum AddressError {
    /// The gateway is not in the node list.
    #[error(
        "the address names a gateway that is not part of this network; check that sender and recipient use the same network document"
    )]
    UnknownGateway,
    /// The Sphinx key is no usable point.
    #[error("the address holds an unusable Sphinx key: {0}; ask the recipient for the address again")]
    SphinxKey(#[from] PointError),
}

/// Where a message goes: a [`ClientAddress`] whose key was checked.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The recipient's address.
    pub address: ClientAddress,
    /// Its Sphinx key, a usable point.
    pub key: PublicKey,
}

impl Recipient {
    /// An address whose key is a usable point. That its gateway exists is for each epoch to say.
    ///
    /// # Errors
    /// The key is unusable.
    pub fn new(address: &ClientAddress) -> Result<Self, PointError> {
        Ok(Self { address: *address, key: PublicKey::from_bytes(address.sphinx_key.as_bytes())? })
    }
}

/// One epoch, checked. Shared between the state machines of a process.
#[derive(Debug)]
pub struct EpochView {
    parameters: Parameters,
    epoch: Arc<Epoch>,
    keys: Vec<PublicKey>,
}

impl EpochView {
    /// The epoch of `network` that is valid at `now`.
    pub fn at(network: &Network, now: UnixTime) -> Result<Arc<Self>, ViewError> {
        Self::of(network, network.epoch_at(now)?)
    }

    /// One epoch of `network`, valid now or not. Costs a multiplication on the curve for each node.
    pub fn of(network: &Network, epoch: &Arc<Epoch>) -> Result<Arc<Self>, ViewError> {
        let (parameters, epoch) = (network.parameters().clone(), Arc::clone(epoch));
        let keys = epoch
            .nodes()
            .iter()
            .zip(0u32..)
            .map(|(node, index)| {
                PublicKey::from_bytes(node.sphinx_key.as_bytes()).map_err(|source| ViewError::SphinxKey {
                    epoch: epoch.number().0,
                    index,
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { parameters, epoch, keys }))
    }

    /// The network's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The epoch itself.
    pub fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// How long the epoch lasts. Its keys live through the next one, too.
    pub fn life(&self) -> Duration {
        let lasts = self.epoch.valid_until().0.saturating_sub(self.epoch.valid_from().0);
        Duration::from_secs(lasts)
    }

    /// The epoch's number.
    pub fn number(&self) -> u64 {
        self.epoch.number().0
    }

    /// Parity of the epoch, as frames carry it.
    pub fn parity(&self) -> Parity {
        Parity::of(self.epoch.number().0)
    }

    /// The Sphinx key of a node of this epoch.
    pub fn key(&self, index: NodeIndex) -> Option<&PublicKey> {
        self.keys.get(index.0 as usize)
    }

    /// What a node does.
    pub fn role(&self, index: NodeIndex) -> Option<Role> {
        self.epoch.node(index).map(|node| node.role)
    }

    /// Checks an address against this epoch.
    pub fn recipient(&self, address: &ClientAddress) -> Result<Recipient, AddressError> {
        self.gateway(&address.gateway).ok_or(AddressError::UnknownGateway)?;
        Ok(Recipient::new(address)?)
    }

    /// The place of a gateway in the node list.
    pub fn gateway(&self, identity: &IdentityKey) -> Option<NodeIndex> {
        let index = self.epoch.index_of(identity)?;
        matches!(self.role(index), Some(Role::Gateway)).then_some(index)
    }

    /// One mix node per layer, each uniform in its layer.
    pub fn draw_route(&self, rng: &mut Rng) -> MixRoute {
        self.epoch.mix_route(draw_with(rng))
    }

    /// One mix node for each layer after `layer`.
    pub fn draw_route_after(&self, layer: u8, rng: &mut Rng) -> MixRoute {
        self.epoch.mix_route_after(layer, draw_with(rng))
    }

    /// One mix node for each layer before `layer`.
    pub fn draw_route_before(&self, layer: u8, rng: &mut Rng) -> MixRoute {
        self.epoch.mix_route_before(layer, draw_with(rng))
    }

    /// A uniformly random gateway.
    pub fn draw_gateway(&self, rng: &mut Rng) -> NodeIndex {
        self.epoch.draw_gateway(draw_with(rng))
    }
}

/// A node's place in an epoch.
#[derive(Clone, Debug)]
pub struct Seat {
    view: Arc<EpochView>,
    me: NodeIndex,
    role: Role,
}

impl Seat {
    /// The place of node `me`; `None` if the epoch has no such node.
    pub fn new(view: Arc<EpochView>, me: NodeIndex) -> Option<Self> {
        let role = view.role(me)?;
        Some(Self { view, me, role })
    }

    /// The place of whoever has this identity; `None` if the epoch does not list it.
    pub fn of(view: Arc<EpochView>, identity: &IdentityKey) -> Option<Self> {
        let me = view.epoch().index_of(identity)?;
        Self::new(view, me)
    }

    /// The epoch.
    pub fn view(&self) -> &Arc<EpochView> {
        &self.view
    }

    /// The place in its node list.
    pub fn me(&self) -> NodeIndex {
        self.me
    }

    /// What the node does in it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether packets come from there to here.
    pub fn takes_from(&self, identity: &IdentityKey) -> bool {
        let epoch = self.view.epoch();
        epoch.index_of(identity).is_some_and(|from| epoch.is_successor(from, self.me))
    }

    /// How many nodes packets come from.
    pub fn predecessors(&self) -> usize {
        self.view.epoch().predecessors(self.me).len()
    }

    /// Who that node is, if packets go there from here.
    pub fn successor(&self, next: NodeIndex) -> Option<IdentityKey> {
        let epoch = self.view.epoch();
        epoch.node(next).filter(|_| epoch.is_successor(self.me, next)).map(|node| node.identity)
    }
}

/// The epochs whose packets a node takes, by parity, with its place in each.
#[derive(Clone, Debug, Default)]
pub struct OpenViews([Option<Seat>; 2]);

impl OpenViews {
    /// Puts an epoch in the place of the one of its parity.
    #[must_use]
    pub fn with(mut self, seat: Seat) -> Self {
        let slot = seat.view.parity().index();
        self.0[slot] = Some(seat);
        self
    }

    /// The epochs, with its place in each.
    pub fn iter(&self) -> impl Iterator<Item = &Seat> {
        self.0.iter().flatten()
    }

    /// The epoch of that parity.
    pub fn get(&self, parity: Parity) -> Option<&Seat> {
        self.0[parity.index()].as_ref()
    }
}

impl From<Seat> for OpenViews {
    fn from(seat: Seat) -> Self {
        Self::default().with(seat)
    }
}

/// One packet in this many uses the epoch before, as long as its keys live, whatever it carries: a late reply, which has
/// to, is then no exception that stands out.
pub const OLD_SHARE: u64 = 16;

/// The epochs that a sender may use now.
#[derive(Clone, Debug)]
pub struct SendViews {
    /// The epoch that is valid now.
    pub current: Arc<EpochView>,
    /// The epoch before, as long as all its keys are still accepted.
    pub old: Option<Arc<EpochView>>,
}

impl From<Arc<EpochView>> for SendViews {
    fn from(current: Arc<EpochView>) -> Self {
        Self { current, old: None }
    }
}

impl SendViews {
    /// The epoch that the next packet uses: one in [`OLD_SHARE`] the old one.
    pub fn draw(&self, rng: &mut Rng) -> &Arc<EpochView> {
        match &self.old {
            Some(old) if rng.below(OLD_SHARE) == 0 => old,
            _ => &self.current,
        }
    }

    /// The epoch of this number, if it may be used now.
    pub fn by_number(&self, number: u64) -> Option<&Arc<EpochView>> {
        [Some(&self.current), self.old.as_ref()].into_iter().flatten().find(|view| view.number() == number)
    }
}

/// A uniform draw below `n`, as route selection wants it.
fn draw_with(rng: &mut Rng) -> impl FnMut(usize) -> usize + '_ {
    |n| usize::try_from(rng.below(n as u64)).expect("below a usize")
}

//! One epoch: its nodes, where each stands, and how routes are drawn.

use crate::error::{Invalid, Problem};
use crate::ids::{EpochNumber, IdentityKey, NodeIndex, UnixTime};
use crate::json::Json;
use crate::node::{Node, Role};
use crate::parameters::Parameters;
use crate::payment::Payment;
use crate::reader::{Path, Reader};
use crate::route::MixRoute;
use crate::strata::Strata;

/// Nodes that one epoch may list.
pub const MAX_NODES: usize = 65_536;

/// An epoch as somebody wrote it down, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochDraft {
    /// One more than the epoch before.
    pub number: EpochNumber,
    /// First second.
    pub valid_from: UnixTime,
    /// The second after the last; the next epoch begins then.
    pub valid_until: UnixTime,
    /// How packets are paid for; `None`: they are not.
    pub payment: Option<Payment>,
    /// A node's position here is its [`NodeIndex`].
    pub nodes: Vec<Node>,
}

/// An epoch whose nodes have been checked, with everything that is asked per packet worked out in advance.
///
/// The nodes are stratified: gateways send to layer 1, each layer to the next, the last layer to the
/// gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    number: EpochNumber,
    valid_from: UnixTime,
    valid_until: UnixTime,
    layers: u8,
    payment: Option<Payment>,
    nodes: Vec<Node>,
    /// Sorted.
    by_identity: Vec<(IdentityKey, NodeIndex)>,
    /// Strata around which packets travel: the gateways, then layer 1 to the last. None is empty.
    strata: Strata,
}

impl Epoch {
    /// Checks an epoch by itself: each node, their keys, layers and gateways, its times.
    ///
    /// # Errors
    /// The first place that is wrong, its path relative to the epoch: `nodes[3].identity`; or what is wrong
    /// with the parameters, as `parameters.layers`.
    pub fn new(draft: EpochDraft, parameters: &Parameters) -> Result<Self, Invalid> {
        parameters.validate_at(&Path::Field(&Path::Root, "parameters"))?;
        Self::new_at(draft, parameters, &Path::Root)
    }

    /// The parameters have been validated.
    pub(crate) fn new_at(
        draft: EpochDraft,
        parameters: &Parameters,
        path: &Path<'_>,
    ) -> Result<Self, Invalid> {
        let EpochDraft { number, valid_from, valid_until, payment, nodes } = draft;
        validate_times(path, parameters, valid_from, valid_until)?;

        let nodes_path = Path::Field(path, "nodes");
        if nodes.len() > MAX_NODES {
            return Err(nodes_path.invalid(Problem::TooMany { limit: MAX_NODES, found: nodes.len() }));
        }
        let mut strata = vec![Vec::new(); 1 + usize::from(parameters.layers)];
        for (index, node) in (0..).map(NodeIndex).zip(&nodes) {
            node.validate_at(&Path::Index(&nodes_path, index.as_usize()), parameters.layers)?;
            strata[stratum_of(node.role)].push(index);
        }
        let by_identity = sorted_by(&nodes, |node| node.identity);
        if let Some((first, second)) = first_duplicate(&by_identity) {
            let first = Path::Index(&nodes_path, first.as_usize()).to_string();
            let second = Path::Index(&nodes_path, second.as_usize());
            return Err(Path::Field(&second, "identity").invalid(Problem::DuplicateIdentity { first }));
        }
        if let Some((first, second)) = first_duplicate(&sorted_by(&nodes, |node| node.sphinx_key)) {
            let [first, second] = [first, second].map(|node| Path::Index(&nodes_path, node.as_usize()));
            let first = Path::Field(&first, "sphinx_key").to_string();
            return Err(Path::Field(&second, "sphinx_key").invalid(Problem::DuplicateSphinxKey { first }));
        }
        for (stratum, layer) in strata.iter().zip(0..) {
            if stratum.is_empty() {
                let problem = if layer == 0 { Problem::NoGateways } else { Problem::EmptyLayer { layer } };
                return Err(nodes_path.invalid(problem));
            }
        }
        let layers = parameters.layers;
        let strata = Strata::new(strata);
        if let Some(payment) = &payment {
            payment.validate_at(&Path::Field(path, "payment"), layers)?;
            validate_accounts(&nodes_path, &nodes)?;
        }
        Ok(Self { number, valid_from, valid_until, layers, payment, nodes, by_identity, strata })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> EpochNumber {
        self.number
    }

    /// First second.
    #[must_use]
    pub fn valid_from(&self) -> UnixTime {
        self.valid_from
    }

    /// The second after the last.
    #[must_use]
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// Mix layers.
    #[must_use]
    pub fn layers(&self) -> u8 {
        self.layers
    }

    /// How its packets are paid for; `None`: they are not.
    #[must_use]
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_ref()
    }

    /// The stratum of a node: 0 for gateways, else the layer.
    #[must_use]
    pub fn stratum_of(&self, node: NodeIndex) -> Option<usize> {
        self.stratum(node)
    }

    /// All nodes in the order of their indices.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node, `None` if there is none with this index (indices come out of packets).
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(index.as_usize())
    }

    /// The index of whoever has this identity, in logarithmic time.
    #[must_use]
    pub fn index_of(&self, identity: &IdentityKey) -> Option<NodeIndex> {
        let found = self.by_identity.binary_search_by(|(known, _)| known.cmp(identity)).ok()?;
        Some(self.by_identity[found].1)
    }

    /// The mix nodes of a layer, in ascending order; layers count from 1, of any other there are none.
    #[must_use]
    pub fn layer(&self, layer: u8) -> &[NodeIndex] {
        if layer == 0 { &[] } else { self.strata.get(layer.into()) }
    }

    /// The gateways, in ascending order.
    #[must_use]
    pub fn gateways(&self) -> &[NodeIndex] {
        self.strata.get(0)
    }

    /// The nodes to which a node sends packets; none if there is no such node.
    #[must_use]
    pub fn successors(&self, of: NodeIndex) -> &[NodeIndex] {
        self.stratum(of).map_or(&[], |stratum| self.strata.get(self.after(stratum)))
    }

    /// The nodes that send packets to a node; none if there is no such node.
    #[must_use]
    pub fn predecessors(&self, of: NodeIndex) -> &[NodeIndex] {
        self.stratum(of).map_or(&[], |stratum| self.strata.get(self.before(stratum)))
    }

    /// Whether packets go from `from` to `to`, in constant time.
    #[must_use]
    pub fn is_successor(&self, from: NodeIndex, to: NodeIndex) -> bool {
        match (self.stratum(from), self.stratum(to)) {
            (Some(from), Some(to)) => self.after(from) == to,
            _ => false,
        }
    }

    /// Whether the two keep a link: packets go from one to the other, in either direction. Constant time,
    /// symmetric.
    #[must_use]
    pub fn is_neighbour(&self, a: NodeIndex, b: NodeIndex) -> bool {
        self.is_successor(a, b) || self.is_successor(b, a)
    }

    /// One mix node of every layer.
    ///
    /// Each is uniform and independent of all else: a client that preferred nodes by what it alone has seen
    /// would be known by its routes. `draw(n)` returns a uniformly random number below `n`; it is called once
    /// per layer, from the first to the last.
    ///
    /// # Panics
    /// If `draw(n)` returns `n` or more.
    #[must_use]
    pub fn mix_route(&self, draw: impl FnMut(usize) -> usize) -> MixRoute {
        self.draw_strata(1, self.strata.len(), draw)
    }

    /// As [`Self::mix_route`], only the layers behind `layer`: the way out of a mix node's own loop.
    ///
    /// # Panics
    /// If `draw(n)` returns `n` or more.
    #[must_use]
    pub fn mix_route_after(&self, layer: u8, draw: impl FnMut(usize) -> usize) -> MixRoute {
        self.draw_strata(usize::from(layer) + 1, self.strata.len(), draw)
    }

    /// As [`Self::mix_route`], only the layers ahead of `layer`: the way back of a mix node's own loop.
    ///
    /// # Panics
    /// If `draw(n)` returns `n` or more.
    #[must_use]
    pub fn mix_route_before(&self, layer: u8, draw: impl FnMut(usize) -> usize) -> MixRoute {
        self.draw_strata(1, usize::from(layer).min(self.strata.len()), draw)
    }

    /// A uniformly random gateway, where drop cover ends.
    ///
    /// # Panics
    /// If `draw(n)` returns `n` or more.
    #[must_use]
    pub fn draw_gateway(&self, mut draw: impl FnMut(usize) -> usize) -> NodeIndex {
        self.gateways()[draw(self.gateways().len())]
    }

    fn draw_strata(&self, from: usize, to: usize, draw: impl FnMut(usize) -> usize) -> MixRoute {
        let mut route = MixRoute::EMPTY;
        self.strata.draw(from..to, draw).for_each(|node| route.push(node));
        route
    }

    fn stratum(&self, node: NodeIndex) -> Option<usize> {
        self.node(node).map(|node| stratum_of(node.role))
    }

    /// Where packets go from a stratum: round and round, gateways after the last layer.
    fn after(&self, stratum: usize) -> usize {
        (stratum + 1) % self.strata.len()
    }

    fn before(&self, stratum: usize) -> usize {
        (stratum + self.strata.len() - 1) % self.strata.len()
    }
}

/// 0 for gateways, else the layer.
fn stratum_of(role: Role) -> usize {
    match role {
        Role::Gateway => 0,
        Role::Mix { layer } => layer.into(),
    }
}

fn validate_times(
    path: &Path<'_>,
    parameters: &Parameters,
    valid_from: UnixTime,
    valid_until: UnixTime,
) -> Result<(), Invalid> {
    let path = Path::Field(path, "valid_until");
    if valid_until <= valid_from {
        return Err(path.invalid(Problem::EpochInverted { from: valid_from, found: valid_until }));
    }
    // While an epoch lasts, the keys of the one before are retired layer by layer, one delay bound apart.
    let needed = parameters.max_delay * (u32::from(parameters.layers) + 1);
    let seconds = needed.as_secs() + u64::from(needed.subsec_nanos() > 0);
    if valid_until.0 - valid_from.0 < seconds {
        let least = UnixTime(valid_from.0.saturating_add(seconds));
        return Err(path.invalid(Problem::EpochShort { least }));
    }
    Ok(())
}

/// Where packets are paid for, every node has an account of its own.
fn validate_accounts(path: &Path<'_>, nodes: &[Node]) -> Result<(), Invalid> {
    let wrong = |at: usize, problem| Path::Field(&Path::Index(path, at), "account").invalid(problem);
    if let Some(at) = nodes.iter().position(|node| node.account.is_none()) {
        return Err(wrong(at, Problem::NoAccount));
    }
    if let Some((first, second)) = first_duplicate(&sorted_by(nodes, |node| node.account)) {
        return Err(wrong(second.as_usize(), Problem::DuplicateAccount { first: first.as_usize() }));
    }
    Ok(())
}

/// The nodes by some key of theirs, equal keys in the order of the nodes.
fn sorted_by<K: Ord>(nodes: &[Node], key: impl Fn(&Node) -> K) -> Vec<(K, NodeIndex)> {
    let mut sorted: Vec<_> =
        (0..).map(NodeIndex).zip(nodes).map(|(index, node)| (key(node), index)).collect();
    sorted.sort_unstable();
    sorted
}

/// Two nodes with equal keys.
fn first_duplicate<K: Eq>(sorted: &[(K, NodeIndex)]) -> Option<(NodeIndex, NodeIndex)> {
    sorted.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1))
}

/// Names in the document.
const FIELDS: &[&str] = &["nodes", "number", "payment", "valid_from", "valid_until"];

impl EpochDraft {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self, Invalid> {
        let object = reader.object(FIELDS)?;
        let nodes = object.required("nodes")?;
        Ok(Self {
            number: EpochNumber(object.required("number")?.integer()?),
            valid_from: UnixTime(object.required("valid_from")?.integer()?),
            valid_until: UnixTime(object.required("valid_until")?.integer()?),
            payment: object.optional("payment").map(|payment| Payment::read(&payment)).transpose()?,
            nodes: nodes.array(MAX_NODES)?.map(|node| Node::read(&node)).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn to_json(&self) -> Json {
        let nodes = Json::Array(self.nodes.iter().map(Node::to_json).collect());
        let mut fields = vec![
            ("number", Json::Integer(self.number.0)),
            ("valid_from", Json::Integer(self.valid_from.0)),
            ("valid_until", Json::Integer(self.valid_until.0)),
            ("nodes", nodes),
        ];
        if let Some(payment) = &self.payment {
            fields.push(("payment", payment.to_json()));
        }
        Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

//! What the network document says about who pays whom, and how much.

use tombola_tickets::{Address, ClassNumber};
use tombola_topology::{IdentityKey, NodeIndex};

use super::{Side, Terms};
use crate::view::{EpochView, Seat};

/// The price classes of an epoch, by link.
#[derive(Clone, Copy, Debug)]
pub struct EpochPrices<'v>(&'v [u32]);

impl<'v> EpochPrices<'v> {
    /// Those of an epoch; `None` if its packets are not paid for.
    pub fn of(view: &'v EpochView) -> Option<Self> {
        view.epoch().payment().map(|payment| Self(&payment.classes))
    }

    /// What a client pays its gateway.
    pub fn client(&self) -> Option<ClassNumber> {
        self.of_link(0)
    }

    /// What a node of that stratum (0: gateways, else the layer) pays the next.
    pub fn from_stratum(&self, stratum: usize) -> Option<ClassNumber> {
        self.of_link(stratum + 1)
    }

    fn of_link(&self, link: usize) -> Option<ClassNumber> {
        self.0.get(link).copied().map(ClassNumber)
    }
}

/// What a node pays and is paid on the links to its neighbours in an epoch. Nothing, where packets are not paid for.
pub fn terms_of(seat: &Seat) -> Vec<(IdentityKey, Side, Terms)> {
    let (view, epoch, me) = (seat.view(), seat.view().epoch(), seat.me());
    let Some(prices) = EpochPrices::of(view) else { return Vec::new() };
    let class_from = |node: NodeIndex| prices.from_stratum(epoch.stratum_of(node)?);
    let terms = |peer: NodeIndex, class: Option<ClassNumber>| {
        let node = epoch.node(peer)?;
        Some((node.identity, Terms { account: Address::from(node.account?.0), class: class? }))
    };
    let paid = epoch.successors(me).iter().filter_map(|next| {
        let (identity, terms) = terms(*next, class_from(me))?;
        Some((identity, Side::Paying, terms))
    });
    let earned = epoch.predecessors(me).iter().filter_map(|previous| {
        let (identity, terms) = terms(*previous, class_from(*previous))?;
        Some((identity, Side::Earning, terms))
    });
    paid.chain(earned).collect()
}

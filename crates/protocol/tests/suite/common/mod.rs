//! A whole network on one thread, in virtual time: what happens in it is a function of its [`Setup`].

mod by_hand;
mod chain;
mod disk;
mod memory;
mod net;
mod paying;
mod post;
mod stats;
mod world;

pub(crate) use by_hand::{ByHand, Hop, any_ticket, at_layer_3};
pub(crate) use chain::Chain;
pub(crate) use disk::Disk;
pub(crate) use net::{Net, Place, Sighting};
pub(crate) use post::{Post, marks};
pub(crate) use stats::{P_MIN, is_exponential};
pub(crate) use world::{NODES_PER_LAYER, START, Setup, World, account_of, domain};

use tombola_protocol::drops::{DropCounters, DropReason};

/// What was dropped, by reason; nothing else is in the list.
pub(crate) fn dropped(drops: &DropCounters) -> Vec<(DropReason, u64)> {
    drops.iter().filter(|(_, count)| *count > 0).collect()
}

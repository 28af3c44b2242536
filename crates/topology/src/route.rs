//! The mix nodes of a route, held inline.

use core::ops::Deref;

use crate::ids::NodeIndex;
use crate::parameters::MAX_LAYERS;

/// The mix nodes of a route in the order of travel, one per layer: zero to three indices, without allocation.
///
/// Dereferences to a slice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MixRoute {
    nodes: [NodeIndex; MAX_LAYERS as usize],
    len: u8,
}

impl MixRoute {
    /// No node at all: what lies before layer 1 or after the last layer.
    pub(crate) const EMPTY: Self = Self { nodes: [NodeIndex(0); MAX_LAYERS as usize], len: 0 };

    /// Adds the next layer's node.
    pub(crate) fn push(&mut self, node: NodeIndex) {
        self.nodes[usize::from(self.len)] = node;
        self.len += 1;
    }

    /// The nodes in the order of travel.
    #[must_use]
    pub fn as_slice(&self) -> &[NodeIndex] {
        &self.nodes[..usize::from(self.len)]
    }
}

impl Deref for MixRoute {
    type Target = [NodeIndex];

    fn deref(&self) -> &[NodeIndex] {
        self.as_slice()
    }
}

impl<'a> IntoIterator for &'a MixRoute {
    type Item = &'a NodeIndex;
    type IntoIter = core::slice::Iter<'a, NodeIndex>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl core::fmt::Debug for MixRoute {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

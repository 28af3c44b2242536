//! Groups of nodes that packets pass one after the other, and how a route through them is drawn.

use core::ops::Range;

use crate::ids::NodeIndex;

/// Groups of nodes ("strata"), in the order in which packets pass them. Any number, of any width.
///
/// An [`Epoch`](crate::Epoch) has the gateways as the first, then its layers; a simulation has what it likes. Both draw
/// routes with [`Strata::draw`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strata(Vec<Vec<NodeIndex>>);

impl Strata {
    /// Strata as they are given. One that is empty has no part in any route.
    #[must_use]
    pub fn new(strata: Vec<Vec<NodeIndex>>) -> Self {
        Self(strata)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes of a stratum; none if there is no such stratum.
    #[must_use]
    pub fn get(&self, stratum: usize) -> &[NodeIndex] {
        self.0.get(stratum).map_or(&[], Vec::as_slice)
    }

    /// One node of each stratum in `range`, in order; nothing if it reaches beyond the last one.
    ///
    /// Each is uniform and independent of all else: a client that preferred nodes by what it alone has seen
    /// would be known by its routes. `draw(n)` returns a uniformly random number below `n`; it is called once
    /// per stratum, from the first to the last.
    ///
    /// # Panics
    /// The iterator does, if `draw(n)` returns `n` or more.
    pub fn draw(
        &self,
        range: Range<usize>,
        mut draw: impl FnMut(usize) -> usize,
    ) -> impl Iterator<Item = NodeIndex> {
        let strata = self.0.get(range).unwrap_or_default();
        strata.iter().filter(|stratum| !stratum.is_empty()).map(move |stratum| stratum[draw(stratum.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strata(widths: &[u32]) -> Strata {
        let mut nodes = (0..).map(NodeIndex);
        Strata::new(widths.iter().map(|&width| nodes.by_ref().take(width as usize).collect()).collect())
    }

    #[test]
    fn a_route_has_one_node_of_each_stratum_in_order() {
        let strata = strata(&[2, 3, 4, 5, 6]);
        let mut asked = Vec::new();
        let route: Vec<_> = strata
            .draw(1..5, |n| {
                asked.push(n);
                n - 1
            })
            .collect();
        assert_eq!(route, [4, 8, 13, 19].map(NodeIndex));
        assert_eq!(asked, [3, 4, 5, 6]);
    }

    #[test]
    fn what_is_not_there_is_not_drawn() {
        let strata = strata(&[2, 0, 1]);
        assert_eq!(strata.draw(0..3, |_| 0).collect::<Vec<_>>(), [NodeIndex(0), NodeIndex(2)]);
        assert_eq!(strata.draw(0..4, |_| 0).count(), 0);
        assert_eq!(strata.get(3), &[]);
        assert_eq!((strata.len(), strata.is_empty()), (3, false));
    }
}

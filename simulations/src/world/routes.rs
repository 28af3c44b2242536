//! Which mixes a packet goes through.

use tombola_mixing::Rng;
use tombola_topology::{NodeIndex, Strata};

use crate::scenario::{Scenario, Topology};

/// Draws routes with what the deployed client draws them with: [`Strata::draw`], and a uniform number below `n`.
///
/// Mixes are numbered from 0, layer by layer (cascade by cascade); gateways are numbered apart, from 0.
#[derive(Debug)]
pub struct Routes {
    /// The gateways, then what the topology draws from: its layers, its cascades, or all of its mixes.
    strata: Strata,
    kind: Kind,
    mixes: usize,
}

#[derive(Debug)]
enum Kind {
    /// Behind the last mix of each layer.
    Stratified {
        ends: Vec<usize>,
    },
    Cascade {
        length: u32,
    },
    Free {
        hops: usize,
    },
}

fn numbered(from: usize, count: usize) -> Vec<NodeIndex> {
    (from..from + count).map(|index| NodeIndex(u32::try_from(index).unwrap_or(u32::MAX))).collect()
}

fn draw_with(rng: &mut Rng) -> impl FnMut(usize) -> usize + '_ {
    |n| rng.below(n as u64) as usize
}

impl Routes {
    /// Those of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let mut strata = vec![numbered(0, scenario.gateways)];
        let kind = match &scenario.topology {
            Topology::Stratified(widths) => {
                let mut ends = Vec::new();
                for &width in widths {
                    let first = ends.last().copied().unwrap_or(0);
                    strata.push(numbered(first, width));
                    ends.push(first + width);
                }
                Kind::Stratified { ends }
            }
            Topology::Cascade { cascades, length } => {
                strata.push(numbered(0, *cascades));
                Kind::Cascade { length: u32::try_from(*length).unwrap_or(u32::MAX) }
            }
            Topology::Free { mixes, hops } => {
                strata.push(numbered(0, *mixes));
                Kind::Free { hops: *hops }
            }
        };
        Self { strata: Strata::new(strata), kind, mixes: scenario.topology.mixes() }
    }

    /// All mixes.
    #[must_use]
    pub fn mixes(&self) -> usize {
        self.mixes
    }

    /// The layer of a mix, from 1, in a stratified network; else 0.
    #[must_use]
    pub fn layer_of(&self, mix: usize) -> usize {
        match &self.kind {
            Kind::Stratified { ends } if mix < self.mixes => 1 + ends.partition_point(|&end| end <= mix),
            _ => 0,
        }
    }

    /// Which mixes are corrupt if so many are in each layer, chosen at random.
    #[must_use]
    pub fn corrupt(&self, per_layer: usize, rng: &mut Rng) -> Vec<bool> {
        let mut groups: Vec<Vec<usize>> = match self.kind {
            Kind::Stratified { .. } => {
                let layer = |layer| self.strata.get(layer).iter().map(|node| node.as_usize()).collect();
                (1..self.strata.len()).map(layer).collect()
            }
            // The mixes in the same place of every cascade.
            Kind::Cascade { length } => {
                let length = length as usize;
                (0..length).map(|place| (place..self.mixes).step_by(length).collect()).collect()
            }
            Kind::Free { .. } => vec![(0..self.mixes).collect()],
        };
        let mut corrupt = vec![false; self.mixes];
        for group in &mut groups {
            rng.shuffle(group);
            group.iter().take(per_layer).for_each(|&mix| corrupt[mix] = true);
        }
        corrupt
    }

    /// A whole route; each of its mixes is handed to `hop`.
    #[inline]
    pub fn draw(&self, rng: &mut Rng, mut hop: impl FnMut(u32)) {
        match self.kind {
            Kind::Stratified { .. } => {
                self.strata.draw(1..self.strata.len(), draw_with(rng)).for_each(|node| hop(node.0));
            }
            Kind::Cascade { length } => {
                let cascade = self.strata.draw(1..2, draw_with(rng)).next().map_or(0, |node| node.0);
                (cascade * length..(cascade + 1) * length).for_each(hop);
            }
            Kind::Free { hops } => {
                let mut drawn = Vec::with_capacity(hops);
                while drawn.len() < hops {
                    let node = self.strata.draw(1..2, draw_with(rng)).next().map_or(0, |node| node.0);
                    if !drawn.contains(&node) {
                        drawn.push(node);
                        hop(node);
                    }
                }
            }
        }
    }

    /// The way out of a mix's own loop: the layers behind its own.
    pub fn draw_after(&self, layer: usize, rng: &mut Rng, mut hop: impl FnMut(u32)) {
        self.strata.draw(layer + 1..self.strata.len(), draw_with(rng)).for_each(|node| hop(node.0));
    }

    /// The way in of a mix's own loop: the layers ahead of its own.
    pub fn draw_before(&self, layer: usize, rng: &mut Rng, mut hop: impl FnMut(u32)) {
        self.strata.draw(1..layer, draw_with(rng)).for_each(|node| hop(node.0));
    }

    /// A gateway.
    #[inline]
    pub fn draw_gateway(&self, rng: &mut Rng) -> u32 {
        self.strata.draw(0..1, draw_with(rng)).next().map_or(0, |node| node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(network: &str) -> Routes {
        let rest = "[mix]\ndelay = \"1ms\"\n[clients]\ncount = 2\n[clients.user]\ninterval = \"1s\"\n[run]\nmeasure = \"1s\"";
        Routes::new(&Scenario::parse(&format!("[network]\n{network}\n{rest}")).unwrap())
    }

    fn drawn(routes: &Routes, count: usize) -> Vec<Vec<u32>> {
        let mut rng = Rng::from_seed([3; 32]);
        (0..count)
            .map(|_| {
                let mut route = Vec::new();
                routes.draw(&mut rng, |mix| route.push(mix));
                route
            })
            .collect()
    }

    #[test]
    fn stratified_routes_have_one_mix_of_each_layer_equally_often() {
        let routes = routes("width = [2, 3, 1, 4, 2]");
        assert_eq!(
            (routes.mixes(), routes.layer_of(0), routes.layer_of(5), routes.layer_of(11)),
            (12, 1, 3, 5)
        );
        let mut count = [0; 12];
        for route in drawn(&routes, 12_000) {
            let layers: Vec<_> = route.iter().map(|&mix| routes.layer_of(mix as usize)).collect();
            assert_eq!(layers, [1, 2, 3, 4, 5]);
            route.iter().for_each(|&mix| count[mix as usize] += 1);
        }
        for (mix, &found) in count.iter().enumerate() {
            let expected = 12_000.0 / [2.0, 3.0, 1.0, 4.0, 2.0][routes.layer_of(mix) - 1];
            // Five standard deviations.
            assert!((f64::from(found) - expected).abs() <= 5.0 * expected.sqrt(), "{mix}: {found}");
        }
    }

    #[test]
    fn a_cascade_is_passed_from_its_first_mix_to_its_last() {
        let routes = routes("topology = \"cascade\"\nwidth = 4\nlayers = 3");
        let mut seen: Vec<_> = drawn(&routes, 200);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]);
    }

    #[test]
    fn a_free_route_visits_no_mix_twice_and_every_pair_occurs() {
        let routes = routes("topology = \"free\"\nwidth = 5\nlayers = 3");
        let mut pairs = [[0; 5]; 5];
        for route in drawn(&routes, 2000) {
            assert!(route.len() == 3 && route[0] != route[1] && route[1] != route[2] && route[0] != route[2]);
            pairs[route[0] as usize][route[2] as usize] += 1;
        }
        for (first, row) in pairs.iter().enumerate() {
            for (last, &count) in row.iter().enumerate() {
                assert!(if first == last { count == 0 } else { (50..150).contains(&count) }, "{count}");
            }
        }
    }

    #[test]
    fn so_many_mixes_of_each_layer_are_corrupt() {
        let mut rng = Rng::from_seed([3; 32]);
        let stratified = routes("width = [4, 6]");
        for _ in 0..10 {
            let corrupt = stratified.corrupt(3, &mut rng);
            assert_eq!(corrupt[..4].iter().filter(|corrupt| **corrupt).count(), 3);
            assert_eq!(corrupt[4..].iter().filter(|corrupt| **corrupt).count(), 3);
        }
        let cascade = routes("topology = \"cascade\"\nwidth = 4\nlayers = 3");
        let corrupt = cascade.corrupt(1, &mut rng);
        assert!((0..3).all(|place| (place..12).step_by(3).filter(|&mix| corrupt[mix]).count() == 1));
    }
}

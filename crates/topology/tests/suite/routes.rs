//! Routes are uniform over all combinations of nodes, and depend on nothing but the draws.

use std::collections::BTreeMap;

use tombola_topology::{Epoch, MixRoute, NodeIndex};

use crate::fixtures::{Numbers, epoch, parameters};

fn built() -> Epoch {
    Epoch::new(epoch(1, 2, &[3, 4, 5]), &parameters(3)).unwrap()
}

/// Pearson's statistic of `count` draws against the uniform distribution over `cells` outcomes.
fn chi_square(cells: usize, count: u32, mut draw: impl FnMut() -> MixRoute) -> f64 {
    let mut seen: BTreeMap<Vec<NodeIndex>, u32> = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(draw().to_vec()).or_default() += 1;
    }
    assert!(seen.len() <= cells);
    let expected = f64::from(count) / cells as f64;
    let missed = (cells - seen.len()) as f64 * expected;
    missed + seen.values().map(|seen| (f64::from(*seen) - expected).powi(2) / expected).sum::<f64>()
}

/// The 99.9th percentile of the chi-square distribution with 59 degrees of freedom.
const CRITICAL_59: f64 = 98.3;

#[test]
fn all_sixty_routes_are_equally_likely() {
    let epoch = built();
    let mut numbers = Numbers(1);
    let statistic = chi_square(60, 60_000, || epoch.mix_route(|n| numbers.below(n)));
    assert!(statistic < CRITICAL_59, "{statistic}");
}

#[test]
fn a_slight_preference_would_be_seen() {
    let epoch = built();
    let mut numbers = Numbers(1);
    // One in twenty draws is the first node.
    let mut biased = |n| if numbers.below(20) == 0 { 0 } else { numbers.below(n) };
    let statistic = chi_square(60, 60_000, || epoch.mix_route(&mut biased));
    assert!(statistic > 2.0 * CRITICAL_59, "{statistic}");
}

#[test]
fn each_sequence_of_draws_is_one_route_through_the_layers() {
    let epoch = built();
    let mut routes = Vec::new();
    for draws in (0..60).map(|i| [i / 20, i / 5 % 4, i % 5]) {
        let mut asked = Vec::new();
        let mut rest = draws.iter();
        let route = epoch.mix_route(|n| {
            asked.push(n);
            *rest.next().unwrap()
        });
        assert_eq!(asked, [3, 4, 5], "one draw per layer, below its width");
        let by_hand: Vec<_> = (1..).zip(draws).map(|(layer, draw)| epoch.layer(layer)[draw]).collect();
        assert_eq!(route.as_slice(), by_hand);
        assert!(route.windows(2).all(|pair| epoch.is_successor(pair[0], pair[1])));
        assert!(epoch.successors(route[2]).contains(&epoch.gateways()[0]));
        routes.push(by_hand);
    }
    routes.sort();
    routes.dedup();
    assert_eq!(routes.len(), 60);
}

#[test]
fn halves_of_a_loop_complete_each_other() {
    let epoch = built();
    for layer in 1..=3 {
        let before = epoch.mix_route_before(layer, |n| n - 1);
        let after = epoch.mix_route_after(layer, |n| n - 1);
        let layers = |range: std::ops::RangeInclusive<u8>| -> Vec<_> {
            range.map(|layer| *epoch.layer(layer).last().unwrap()).collect()
        };
        assert_eq!(before.as_slice(), layers(1..=layer - 1));
        assert_eq!(after.as_slice(), layers(layer + 1..=3));
    }
}

#[test]
fn beyond_the_layers_there_is_nothing() {
    let epoch = built();
    let lengths =
        |layer| [epoch.mix_route_before(layer, |_| 0).len(), epoch.mix_route_after(layer, |_| 0).len()];
    assert_eq!(lengths(0), [0, 3]);
    assert_eq!(lengths(4), [3, 0]);
    assert_eq!(lengths(u8::MAX), [3, 0]);
    assert_eq!(format!("{:?}", epoch.mix_route_before(1, |_| 0)), "[]");
}

#[test]
fn gateways_are_drawn_among_gateways() {
    let epoch = built();
    assert_eq!(epoch.draw_gateway(|n| n - 1), epoch.gateways()[1]);
    assert_eq!(epoch.draw_gateway(|_| 0), epoch.gateways()[0]);
}

#[test]
fn a_route_is_small_enough_to_copy() {
    assert_eq!(size_of::<MixRoute>(), 16);
    let route = built().mix_route(|_| 0);
    assert_eq!((&route).into_iter().count(), 3);
    assert_eq!(format!("{route:?}"), format!("{:?}", route.as_slice()));
}

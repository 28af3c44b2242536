//! Who is where, and who talks to whom.

use tombola_topology::{Epoch, EpochDraft, IdentityKey, NodeIndex, Role};

use crate::fixtures::{epoch, identity, parameters};

fn built(gateways: usize, widths: &[usize]) -> Epoch {
    Epoch::new(epoch(1, gateways, widths), &parameters(u8::try_from(widths.len()).unwrap())).unwrap()
}

#[test]
fn layers_and_gateways_partition_the_nodes() {
    let epoch = built(3, &[4, 2, 5]);
    assert_eq!(epoch.layers(), 3);
    let widths: Vec<_> = (0..=5).map(|layer| epoch.layer(layer).len()).collect();
    assert_eq!(widths, [0, 4, 2, 5, 0, 0], "layers count from 1");
    assert!(epoch.layer(u8::MAX).is_empty());

    let strata = [epoch.gateways(), epoch.layer(1), epoch.layer(2), epoch.layer(3)];
    for (stratum, role) in strata.iter().zip([
        Role::Gateway,
        Role::Mix { layer: 1 },
        Role::Mix { layer: 2 },
        Role::Mix { layer: 3 },
    ]) {
        assert!(stratum.is_sorted());
        assert!(stratum.iter().all(|index| epoch.node(*index).unwrap().role == role));
    }
    let mut all: Vec<_> = strata.concat();
    all.sort_unstable();
    assert_eq!(all, (0..14).map(NodeIndex).collect::<Vec<_>>());
}

#[test]
fn every_identity_is_found_and_no_other() {
    let epoch = built(3, &[4, 2, 5]);
    for (index, node) in (0..).map(NodeIndex).zip(epoch.nodes()) {
        assert_eq!(epoch.index_of(&node.identity), Some(index));
        assert_eq!(epoch.node(index), Some(node));
    }
    assert_eq!(epoch.index_of(&identity(200)), None);
    assert_eq!(epoch.index_of(&IdentityKey::from_bytes([0; 32])), None);
    assert_eq!(epoch.index_of(&IdentityKey::from_bytes([0xFF; 32])), None);
}

#[test]
fn packets_go_from_gateways_through_the_layers_to_gateways() {
    let epoch = built(2, &[2, 3, 2]);
    let around = [epoch.gateways(), epoch.layer(1), epoch.layer(2), epoch.layer(3), epoch.gateways()];
    for pair in around.windows(2) {
        for from in pair[0] {
            assert_eq!(epoch.successors(*from), pair[1]);
        }
        for to in pair[1] {
            assert_eq!(epoch.predecessors(*to), pair[0]);
        }
    }
}

#[test]
fn neighbours_are_successors_and_predecessors() {
    for (gateways, widths) in [(2, vec![2, 3, 2]), (2, vec![1, 2]), (3, vec![2])] {
        let epoch = built(gateways, &widths);
        let all: Vec<_> = (0..).map(NodeIndex).take(epoch.nodes().len()).collect();
        for a in &all {
            for b in &all {
                let follows = epoch.successors(*a).contains(b);
                assert_eq!(epoch.is_successor(*a, *b), follows);
                assert_eq!(epoch.is_successor(*b, *a), epoch.predecessors(*a).contains(b));
                assert_eq!(epoch.is_neighbour(*a, *b), follows || epoch.predecessors(*a).contains(b));
                assert_eq!(epoch.is_neighbour(*a, *b), epoch.is_neighbour(*b, *a));
            }
            assert!(!epoch.is_neighbour(*a, *a));
        }
    }
}

#[test]
fn layers_that_are_not_adjacent_keep_no_link() {
    let epoch = built(2, &[2, 2, 2]);
    let first_of = |stratum: &[NodeIndex]| stratum[0];
    let [gateway, other] = [epoch.gateways()[0], epoch.gateways()[1]];
    let [one, two, three] = [1, 2, 3].map(|layer| first_of(epoch.layer(layer)));
    assert!(epoch.is_neighbour(gateway, one) && epoch.is_neighbour(gateway, three));
    assert!(epoch.is_neighbour(one, two) && epoch.is_neighbour(two, three));
    assert!(!epoch.is_neighbour(gateway, two));
    assert!(!epoch.is_neighbour(one, three));
    assert!(!epoch.is_neighbour(gateway, other));
    assert!(!epoch.is_successor(two, one), "packets do not go back");
    assert!(!epoch.is_successor(gateway, three));
}

#[test]
fn an_index_out_of_a_packet_may_be_anything() {
    let epoch = built(1, &[1]);
    for index in [2, 1000, u32::MAX].map(NodeIndex) {
        assert_eq!(epoch.node(index), None);
        assert!(epoch.successors(index).is_empty());
        assert!(epoch.predecessors(index).is_empty());
        assert!(!epoch.is_neighbour(index, NodeIndex(0)));
        assert!(!epoch.is_neighbour(index, index));
    }
}

#[test]
fn an_epoch_by_itself_names_paths_from_itself() {
    let build = |draft: EpochDraft, layers| Epoch::new(draft, &parameters(layers)).unwrap_err().to_string();
    let mut draft = epoch(1, 1, &[1, 1]);
    draft.nodes[1].identity = draft.nodes[0].identity;
    assert_eq!(build(draft, 2), "nodes[1].identity: the same identity as nodes[0]: every node has its own");
    assert_eq!(build(epoch(1, 1, &[1]), 9), "parameters.layers: expected 1 to 3, found 9");
}

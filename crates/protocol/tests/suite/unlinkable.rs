//! Whoever reads all links, without any key, finds nothing on one side of a Sphinx hop that is on the other side too.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tombola_protocol::frame::{FrameKind, META_LEN, META_OFFSET};

use crate::common::{Net, Place, Setup, Sighting};

/// Eight bytes in common: by chance in one of 10^12 pairs of frames.
const WINDOW: usize = 8;

/// Every stretch of eight bytes of a frame, without what the layout fixes: kind, parity, and zeroes.
fn windows(seen: &Sighting) -> BTreeSet<[u8; WINDOW]> {
    let meta_len = match (seen.from, seen.to) {
        (Place::Node(0 | 1), Place::Node(_)) => 28,
        (Place::Node(_), Place::Node(_)) => 20,
        (Place::Node(_), _) => 8,
        _ => META_LEN,
    };
    let meta = &seen.frame.as_bytes()[META_OFFSET..META_OFFSET + meta_len];
    let stretches = meta.windows(WINDOW).chain(seen.frame.packet().windows(WINDOW));
    stretches.map(|window| window.try_into().unwrap()).collect()
}

#[test]
fn no_eight_bytes_of_a_packet_or_beside_it_are_the_same_on_both_sides_of_a_hop() {
    let mut setup = Setup::new(140);
    setup.accounts = 1;
    let mut net = Net::new(setup);
    net.watch();
    net.send_message(0, 1, &[0; 40_000]);
    net.send_message(1, 0, &[0; 40_000]);
    net.run_for(Duration::from_millis(2500));

    // The first link of a packet, then those behind each hop that it came through.
    let on_link: BTreeMap<_, _> = net.seen.iter().map(|seen| ((seen.from, seen.alpha()), seen)).collect();
    let onwards: BTreeMap<_, _> =
        net.passages.iter().map(|passage| ((passage.node, passage.alpha_in), passage.alpha_out)).collect();
    let mut lengths = BTreeMap::new();
    let firsts = net.seen.iter().filter(|seen| !matches!(seen.from, Place::Node(_)));
    for first in firsts.filter(|seen| seen.kind() == FrameKind::Packet).take(100) {
        // The sender's gateway is no Sphinx hop: it passes the packet on as it is.
        let mut path = vec![first];
        path.extend(on_link.get(&(first.to, first.alpha())));
        while let Some(last) = path.last() {
            let Place::Node(node) = last.to else { break };
            let Some(alpha) = onwards.get(&(node, last.alpha())) else { break };
            let Some(next) = on_link.get(&(Place::Node(node), *alpha)) else { break };
            path.push(next);
        }
        *lengths.entry(path.len()).or_insert(0) += 1;
        let sides: Vec<_> = path.iter().map(|seen| windows(seen)).collect();
        for (at, side) in sides.iter().enumerate() {
            for (other, far) in sides.iter().enumerate().skip(at + 1).filter(|(other, _)| *other > 1) {
                let common = side.intersection(far).count();
                assert_eq!(
                    common,
                    0,
                    "links {at} and {other} of {:?}",
                    path.iter().map(|s| s.to).collect::<Vec<_>>()
                );
            }
        }
        if let [first, second, ..] = &path[..] {
            assert_eq!(first.frame.packet(), second.frame.packet());
        }
    }
    println!("paths by the number of their links: {lengths:?}");
    assert!(lengths[&6] > 20, "some went all the way from client to client");
}

#[test]
fn each_value_on_a_link_is_there_once() {
    let mut setup = Setup::new(141);
    setup.accounts = 2;
    let mut net = Net::new(setup);
    net.watch();
    net.run_for(Duration::from_secs(2));
    let between_nodes: Vec<_> = net
        .seen
        .iter()
        .filter(|seen| matches!((seen.from, seen.to), (Place::Node(_), Place::Node(_))))
        .collect();
    assert!(between_nodes.len() > 1000);
    let challenges: BTreeSet<_> = between_nodes.iter().map(|seen| seen.frame.link_meta().challenge).collect();
    assert_eq!(challenges.len(), between_nodes.len(), "no packet is told from another by a challenge");
    let alphas: BTreeSet<_> = between_nodes.iter().map(|seen| seen.alpha()).collect();
    assert_eq!(alphas.len(), between_nodes.len());
}

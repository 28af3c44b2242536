//! Whoever reads all links, without any key, finds nothing on one side of a Sphinx hop that is on the other side too.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tombola_protocol::control::{Record, records};
use tombola_protocol::frame::{FrameKind, META_LEN, META_OFFSET};
use tombola_tickets::IssuerMessage;
use tombola_topology::NodeIndex;

use crate::common::{Net, Place, Setup, Sighting, account_of};

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

/// The links on either side of a node as a Sphinx hop, in both directions: where its packets come from, and where they go. A
/// gateway is a hop for what comes out of layer 3; what its clients send up goes into layer 1 as it is.
fn sides(net: &Net, hop: u32) -> [Vec<&Sighting>; 2] {
    let stratum = |node: u32| node / 2;
    let before = |place: Place| matches!(place, Place::Node(node) if stratum(node) == (stratum(hop) + 3) % 4);
    let behind = |place: Place| match place {
        Place::Node(node) => hop > 1 && stratum(node) == (stratum(hop) + 1) % 4,
        Place::Client(_) | Place::Account(..) => hop < 2,
    };
    let links = |is_other_end: &dyn Fn(Place) -> bool| {
        let is_on = |seen: &&Sighting| match Place::Node(hop) {
            here if seen.from == here => is_other_end(seen.to),
            here => seen.to == here && is_other_end(seen.from),
        };
        net.seen.iter().filter(is_on).collect()
    };
    [links(&before), links(&behind)]
}

/// Every stretch of eight bytes at every offset of every frame, but for runs of zeroes.
fn stretches(side: &[&Sighting]) -> BTreeSet<[u8; WINDOW]> {
    let all = side.iter().flat_map(|seen| seen.frame.as_bytes().windows(WINDOW));
    let all = all.map(|window| <[u8; WINDOW]>::try_from(window).unwrap());
    all.filter(|window| window.iter().filter(|byte| **byte == 0).count() < 4).collect()
}

/// Whether it is about the two ends of a link, and not about a packet: five bytes of an account in a row.
fn is_of_the_ends(window: &[u8; WINDOW], accounts: &[tombola_tickets::Address]) -> bool {
    let is_account = |part: &[u8]| accounts.iter().any(|account| account.windows(5).any(|own| own == part));
    window.windows(5).any(is_account)
}

/// Sessions, and numbers of packets on these links, where they are given and where they are acknowledged.
fn numbers(side: &[&Sighting]) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for seen in side {
        match seen.kind() {
            FrameKind::Packet => all.extend([seen.frame.number().0, seen.frame.number().1]),
            FrameKind::Control => {
                for record in records(&seen.frame) {
                    let Ok(Record::Acks(_, acks, _)) = record else { continue };
                    let packets = acks.iter().flat_map(|ack| [ack.packet.session, ack.packet.counter]);
                    all.extend(packets.map(|number| u32::try_from(number).unwrap()));
                }
            }
            _ => {}
        }
    }
    all
}

#[test]
fn of_a_run_that_is_paid_nothing_is_common_to_the_links_on_the_two_sides_of_any_hop() {
    let mut setup = Setup::paid(306);
    setup.accounts = 1;
    let mut net = Net::offline(setup);
    net.watch();
    // Clients come, and show their accounts, while it is watched.
    [0, 1].into_iter().for_each(|client| net.connect(Place::Client(client)));
    net.send_message(0, 1, &[7; 5000]);
    net.run_for(Duration::from_secs(5));
    // All links between nodes begin anew while it is watched.
    let is_neighbour =
        |net: &Net, a: u32, b: u32| net.world.view.epoch().is_neighbour(NodeIndex(a), NodeIndex(b));
    for up in [false, true] {
        for (a, b) in (0..8).flat_map(|a| (0..8).map(move |b| (a, b))) {
            if is_neighbour(&net, a, b) {
                net.link_node(a, b, up);
            }
        }
    }
    net.run_for(Duration::from_secs(15));
    assert_eq!(net.inbox(1).len(), 1);

    let accounts: Vec<_> = (1..=120).map(account_of).collect();
    for hop in 0..8 {
        let [before, behind] = sides(&net, hop);
        // All that there is on such links is there.
        for side in [&before, &behind] {
            let mut kinds = BTreeMap::new();
            for record in side.iter().flat_map(|seen| records(&seen.frame)) {
                let kind = match record {
                    Ok(Record::Account(_)) => "account",
                    Ok(Record::Issuer(_, IssuerMessage::Batch(_))) => "batch",
                    Ok(Record::Issuer(..)) => "issuer",
                    Ok(Record::Recipient(..)) => "recipient",
                    Ok(Record::Acks(..)) => "acks",
                    Err(_) => continue,
                };
                *kinds.entry(kind).or_insert(0) += 1;
            }
            assert!(
                ["batch", "issuer", "recipient", "acks"].iter().all(|kind| kinds.contains_key(kind)),
                "{kinds:?}"
            );
        }
        let (one, other) = (stretches(&before), stretches(&behind));
        assert!(one.len().min(other.len()) > 300_000, "{} {}", one.len(), other.len());
        let common: Vec<_> =
            one.intersection(&other).filter(|window| !is_of_the_ends(window, &accounts)).collect();
        let places = || {
            let on = |seen: &&&Sighting| seen.frame.as_bytes().windows(WINDOW).any(|part| part == *common[0]);
            let all = before.iter().chain(&behind).filter(on);
            all.map(|seen| (seen.from, seen.to, format!("{:?}", seen.kind()))).collect::<BTreeSet<_>>()
        };
        assert!(common.is_empty(), "hop {hop}: {common:02x?} {:?}", places());
        let (one, other) = (numbers(&before), numbers(&behind));
        assert!(one.len().min(other.len()) > 100 && one.is_disjoint(&other), "hop {hop}: numbers of packets");
    }
}

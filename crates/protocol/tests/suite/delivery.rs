//! What is sent arrives: once, unchanged, and after exactly the time that the protocol says.

use core::time::Duration;
use std::collections::BTreeMap;

use tombola_protocol::drops::DropReason;

use crate::common::{Net, Place, Setup, dropped};

/// Links from a client through gateway, three mix nodes and gateway to a client.
const LINKS: u32 = 6;

/// The body of message `n` of a client: every length from nothing to a whole fragment.
fn body(client: usize, n: usize) -> Vec<u8> {
    (0..n * 10).map(|i| (i * 7 + n + client * 100) as u8).collect()
}

#[test]
fn two_hundred_messages_each_way_and_a_file_arrive_once_and_unchanged() {
    let mut net = Net::new(Setup::new(1));
    let file: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut sent = [BTreeMap::new(), BTreeMap::new()];
    let id = net.send_message(0, 1, &file);
    sent[1].insert(id, file);
    for n in 0..200 {
        for from in 0..2 {
            let body = body(from, n);
            sent[1 - from].insert(net.send_message(from, 1 - from, &body), body);
        }
        net.run_for(Duration::from_millis(100));
    }
    // 523 fragments, 200 texts and as many reports take 37 s of the clock.
    net.run_for(Duration::from_secs(30));

    for (client, sent) in sent.iter().enumerate() {
        let inbox = net.inbox(client);
        let received: BTreeMap<_, _> = inbox.iter().map(|got| (got.message, got.body.clone())).collect();
        assert_eq!(inbox.len(), sent.len(), "each once");
        assert!(received == *sent, "unchanged");
        assert_eq!(dropped(net.clients[client].drops()), []);
        assert_eq!(net.clients[client].waiting(), 0);
    }
    for node in &net.nodes {
        let lost = dropped(&node.drops).into_iter().find(|(reason, _)| *reason != DropReason::Discarded);
        assert_eq!(lost, None, "nothing is dropped but drop cover");
    }
}

#[test]
fn latency_is_emission_wait_plus_delays_plus_links_plus_slot_to_the_nanosecond() {
    let mut net = Net::new(Setup::new(2));
    for n in 0..100 {
        net.send_message(0, 1, &body(0, n));
        net.send_message(1, 0, &body(1, n));
        net.run_for(Duration::from_millis(160));
    }
    net.run_for(Duration::from_secs(10));
    let mut latencies = vec![];
    for from in 0..2 {
        for emitted in net.emitted(from) {
            let inbox = net.inbox(1 - from);
            let got = inbox.iter().find(|got| got.message == emitted.message).unwrap();
            let explained = (emitted.emitted - emitted.queued)
                + emitted.delays
                + LINKS * net.world.setup.latency
                + got.held;
            assert_eq!(net.received_at(got) - emitted.queued, explained);
            assert!(got.held <= 100 * net.world.setup.parameters.downlink_interval);
            latencies.push(explained.as_secs_f64());
        }
    }
    assert_eq!(latencies.len(), 200);
    // Three mean delays, some 60 ms until its tick (messages and as many acknowledgements take half of the clock), half a
    // slot, six links: 0.826 s, with a standard error of 0.03 s.
    let mean = latencies.iter().sum::<f64>() / 200.0;
    println!("mean latency {mean:.3} s");
    assert!((mean - 0.826).abs() < 0.12);
}

#[test]
fn fewer_layers_deliver_as_well() {
    for layers in 1..=2 {
        let mut setup = Setup::new(3);
        setup.parameters.layers = layers;
        let mut net = Net::new(setup);
        net.watch();
        let long = vec![9; 10_000];
        net.send_message(0, 1, &long);
        net.send_message(1, 1, b"to myself");
        net.run_for(Duration::from_secs(5));
        assert_eq!(net.inbox(1).iter().map(|got| got.body.len()).max(), Some(10_000));
        assert_eq!(net.inbox(1).len(), 2);
        let last = Place::Node(net.world.nodes() - 1);
        assert!(!net.on_link(last, Place::Node(0)).is_empty());
    }
}

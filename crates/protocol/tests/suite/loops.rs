//! What a mix node learns from its own loops about the network around it, and what an adversary can do with that.

use core::time::Duration;

use tombola_mixing::{Time, Verdict};
use tombola_protocol::halfloops::Half;

use crate::common::{Net, Place, Setup, Sighting};

const HALVES: [Half; 2] = [Half::Outbound, Half::Inbound];
/// Node of layers 1, 2 and 3.
const NODES: [usize; 3] = [2, 4, 6];

/// Short delays and many loops, so that verdicts come within seconds; little other traffic.
fn setup() -> Setup {
    let mut setup = Setup::new(70);
    setup.clients = 1;
    setup.accounts = 2;
    setup.parameters.main_interval = Duration::from_millis(60);
    setup.parameters.drop_interval = Duration::from_secs(10);
    setup.parameters.mean_delay = Duration::from_millis(20);
    setup.parameters.max_delay = Duration::from_millis(800);
    setup.parameters.mix_loop_interval = Duration::from_millis(50);
    setup.parameters.loop_timeout = Duration::from_secs(1);
    setup
}

#[test]
fn loops_come_back_when_all_is_well() {
    let mut net = Net::new(setup());
    net.run_for(Duration::from_millis(900));
    let early = net.nodes[2].relay();
    assert_eq!(early.delivery_ratio(Half::Outbound), None, "no loop is due yet");
    net.run_for(Duration::from_secs(8));
    for node in NODES {
        let relay = net.nodes[node].relay();
        for half in HALVES {
            let ratio = relay.delivery_ratio(half).unwrap();
            assert!(ratio > 0.99, "node {node}, {half:?}: {ratio}");
            for account in 0..2 {
                let stats = relay.loops().stats(half, account);
                assert!(stats.due > 40, "{stats:?}");
                assert_ne!(relay.loops().verdict(half, account), Verdict::Alarm);
            }
        }
    }
    let healthy = NODES
        .iter()
        .flat_map(|node| HALVES.map(|half| net.nodes[*node].relay().loops().verdict(half, 0)))
        .filter(|verdict| *verdict == Verdict::Healthy)
        .count();
    assert!(healthy >= 3, "most paths have had 73 loops back: {healthy}");
    let clients = net.clients.iter().map(|client| client.loop_stats());
    assert!(clients.into_iter().all(|stats| stats.due > 4 && stats.lost == 0));
}

#[test]
fn a_gateway_that_gets_nothing_shows_as_zero_and_as_an_alarm_and_the_other_does_not() {
    let mut net = Net::new(setup());
    net.cut(|_, to| to == Place::Node(1));
    net.run_for(Duration::from_secs(4));
    for node in NODES {
        let loops = net.nodes[node].relay().loops();
        for half in HALVES {
            let lost = loops.stats(half, 1);
            assert_eq!(lost.delivery_ratio(), Some(0.0), "node {node}, {half:?}: {lost:?}");
            assert_eq!(loops.verdict(half, 1), Verdict::Alarm);
            let well = loops.stats(half, 0);
            assert!(well.delivery_ratio().unwrap() > 0.95, "node {node}, {half:?}: {well:?}");
            assert_ne!(loops.verdict(half, 0), Verdict::Alarm);
        }
    }
}

#[test]
fn a_network_in_which_nothing_arrives_has_ratio_zero() {
    let mut net = Net::new(setup());
    net.cut(|_, _| true);
    net.run_for(Duration::from_secs(3));
    for node in NODES {
        for half in HALVES {
            assert_eq!(net.nodes[node].relay().delivery_ratio(half), Some(0.0), "node {node}, {half:?}");
        }
    }
    assert!(net.clients.iter().all(|client| client.loop_stats().delivery_ratio() == Some(0.0)));
}

/// Everything on the links but what concerns gateway 1 and those behind it.
fn elsewhere(net: &Net) -> Vec<&Sighting> {
    let touched = |place| place == Place::Node(1);
    net.seen.iter().filter(|seen| !touched(seen.from) && !touched(seen.to)).collect()
}

#[test]
fn an_alarm_is_no_lever_every_other_link_carries_the_same_frames_at_the_same_instants() {
    let observe = |cut: bool| {
        let mut net = Net::new(setup());
        net.watch();
        net.send_message(0, 0, b"a word to myself");
        if cut {
            // What the gateway would have got from layer 3, not what its clients send.
            net.cut(|from, to| matches!(from, Place::Node(_)) && to == Place::Node(1));
        }
        net.run_until(Time::ZERO + Duration::from_secs(3));
        net
    };
    let (well, cut) = (observe(false), observe(true));
    let alarms = |net: &Net| {
        NODES.map(|node| net.nodes[node].relay().loops().verdict(Half::Outbound, 1) == Verdict::Alarm)
    };
    assert_eq!((alarms(&well), alarms(&cut)), ([false; 3], [true; 3]));
    assert!(elsewhere(&well).len() > 2000);
    assert!(elsewhere(&well) == elsewhere(&cut));
    for node in 2..well.nodes.len() {
        assert_eq!(well.nodes[node].forwarded(), cut.nodes[node].forwarded());
    }
}

#[test]
fn a_link_that_dies_later_is_noticed_too_and_forgiven_when_it_works_again() {
    let mut setup = setup();
    // Only outbound loops are looked at here, and one layer is enough.
    setup.parameters.main_interval = Duration::from_secs(1);
    setup.parameters.layers = 1;
    let mut net = Net::new(setup);
    let verdict = |net: &Net| net.nodes[2].relay().loops().verdict(Half::Outbound, 1);
    net.run_for(Duration::from_secs(5));
    assert_ne!(verdict(&net), Verdict::Alarm);
    net.cut(|_, to| to == Place::Node(1));
    net.run_for(Duration::from_secs(3));
    assert_eq!(verdict(&net), Verdict::Alarm);
    net.cut(|_, _| false);
    net.run_for(Duration::from_secs(20));
    assert_eq!(verdict(&net), Verdict::Healthy);
}

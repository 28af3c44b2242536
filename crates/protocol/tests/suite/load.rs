//! Mixing under the load of a whole network: delays are memoryless when a packet enters a mix node and when it leaves,
//! and pools hold what queueing theory says.

use core::time::Duration;
use std::collections::BTreeMap;

use tombola_mixing::Time;
use tombola_protocol::opener::Order;

use crate::common::{Net, P_MIN, Place, Setup, World, is_exponential};

const CLIENTS: usize = 6;
const START: Time = Time::from_nanos(1_500_000_000);
const END: Time = Time::from_nanos(4_500_000_000);

/// Six clients at some 100 packets per second each: 300 per second and mix node.
fn busy() -> Setup {
    let mut setup = Setup::new(20);
    setup.clients = CLIENTS;
    setup.parameters.main_interval = Duration::from_millis(10);
    setup.parameters.downlink_interval = Duration::from_millis(5);
    setup
}

/// Packets per second through each mix node.
fn rate(world: &World) -> f64 {
    let parameters = &world.setup.parameters;
    let streams = [parameters.main_interval, parameters.loop_interval, parameters.drop_interval];
    let per_client: f64 = streams.iter().map(|interval| 1.0 / interval.as_secs_f64()).sum();
    per_client * CLIENTS as f64 / f64::from(crate::common::NODES_PER_LAYER)
}

#[test]
fn delays_are_exponential_at_entry_and_exit_of_a_mix_node_and_pools_have_their_size() {
    let mut net = Net::new(busy());
    net.watch();
    let file = vec![1; 400_000];
    for from in 0..CLIENTS {
        net.send_message(from, (from + 3) % CLIENTS, &file);
    }
    let mixes = 2..net.nodes.len();
    let mut pools = vec![0; net.nodes.len()];
    let mut looks = 0;
    net.run_until(START);
    while net.now < END {
        net.run_for(Duration::from_millis(10));
        looks += 1;
        mixes.clone().for_each(|node| pools[node] += net.nodes[node].relay().counts().pool);
    }
    let mean = net.world.setup.parameters.mean_delay.as_secs_f64();
    let rate = rate(&net.world);
    // When nobody emits any more the pools run empty, so that no long delay is missing from the sample.
    net.silence();
    for node in mixes.clone() {
        assert_eq!(net.nodes[node].relay().counts().pool, 0);
        assert_eq!(net.nodes[node].occupancy.taken(), 0);
        // Poisson with mean lambda / mu; what is seen within a mean delay is one observation, not many.
        let size = pools[node] as f64 / f64::from(looks);
        let observations = (END - START).as_secs_f64() / (2.0 * mean);
        let error = (rate * mean / observations).sqrt();
        println!("node {node}: pool {size:.1}, expected {:.1} +- {error:.1}", rate * mean);
        assert!((size - rate * mean).abs() < 4.0 * error, "pool of {size}, not {}", rate * mean);
    }

    // A packet for the next hop has one alpha: the node knows when its predecessor came, the link when it left.
    let left: BTreeMap<_, _> = net.seen.iter().map(|seen| ((seen.from, seen.alpha()), seen.sent)).collect();
    let (mut asked, mut stayed) = (vec![], vec![]);
    for passage in &net.passages {
        let Order::Forward { delay_ns, .. } = passage.order else { continue };
        let exit = left[&(Place::Node(passage.node), passage.alpha_out)];
        asked.push(Duration::from_nanos(delay_ns).as_secs_f64());
        stayed.push((exit - passage.arrived).as_secs_f64());
    }
    let (entry, exit) = (is_exponential(&asked, mean), is_exponential(&stayed, mean));
    println!("{} delays: KS at entry p = {entry:.3}, at exit p = {exit:.3}", asked.len());
    assert!(asked.len() > 7000);
    assert!(entry > P_MIN && exit > P_MIN);

    // What leaves a mix node is Poisson again.
    for node in mixes {
        let exits: Vec<_> = net
            .seen
            .iter()
            .filter(|seen| seen.from == Place::Node(node as u32) && (START..END).contains(&seen.sent))
            .map(|seen| seen.sent)
            .collect();
        let gaps: Vec<_> = exits.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let p = is_exponential(&gaps, gaps.iter().sum::<f64>() / gaps.len() as f64);
        println!("node {node}: {} gaps between exits, KS p = {p:.3}", gaps.len());
        assert!(gaps.len() > 700 && p > P_MIN);
    }
}

//! A mix node that is full sheds load before it looks at a packet, whoever sent it.

use core::time::Duration;

use tombola_mixing::{PoissonClock, Rng, Time};
use tombola_protocol::drops::DropReason;
use tombola_protocol::frame::Frame;

use crate::common::{ByHand, Net, Setup, at_layer_3, dropped};

const FROM: u32 = 4;
const NODE: u32 = 6;

fn node_with(capacity: usize) -> (Net, ByHand) {
    let mut setup = Setup::new(80);
    setup.clients = 0;
    setup.capacity = capacity;
    let net = Net::offline(setup);
    let by_hand = ByHand::new(&net.world.view, 80);
    (net, by_hand)
}

fn packets(net: &Net, by_hand: &mut ByHand, count: usize, delay: Duration) -> Vec<Frame> {
    let delay_ns = u64::try_from(delay.as_nanos()).unwrap();
    (0..count).map(|_| at_layer_3(by_hand, &net.world.view, NODE, 0, delay_ns)).collect()
}

#[test]
fn what_is_shed_was_not_looked_at_and_passes_when_there_is_room() {
    let (mut net, mut by_hand) = node_with(8);
    let inside = packets(&net, &mut by_hand, 8, Duration::from_secs(2));
    let shed = packets(&net, &mut by_hand, 20, Duration::from_secs(2));
    net.inject(FROM, NODE, inside.clone());
    let node = NODE as usize;
    assert_eq!((net.nodes[node].occupancy.taken(), net.nodes[node].relay().counts().opened), (8, 8));
    // Neither fresh packets nor replays nor noise are told apart by a full node: it looks at none of them.
    let mut noise = shed[0].clone();
    noise.packet_mut().fill(0xaa);
    net.inject(FROM, NODE, shed.clone());
    net.inject(FROM, NODE, inside.clone());
    net.inject(FROM, NODE, vec![noise]);
    assert_eq!(dropped(&net.nodes[node].drops), [(DropReason::Overload, 20 + 8 + 1)]);
    assert_eq!((net.nodes[node].occupancy.taken(), net.nodes[node].relay().counts().opened), (8, 8));

    // Two seconds later it is empty. What it shed was not seen, hence is no replay; what it took is one.
    net.run_for(Duration::from_secs(2));
    assert_eq!((net.nodes[node].occupancy.taken(), net.nodes[node].forwarded()), (0, 8));
    net.inject(FROM, NODE, shed[..8].to_vec());
    assert_eq!(net.nodes[node].relay().counts().pool, 8);
    assert_eq!(net.nodes[node].drops.get(DropReason::Overload), 29, "nothing more is shed");
    net.run_for(Duration::from_secs(2));
    net.inject(FROM, NODE, inside);
    assert_eq!(net.nodes[node].drops.get(DropReason::Replay), 8);
    assert_eq!(net.nodes[node].occupancy.taken(), 0);
}

#[test]
fn a_batch_that_is_too_large_for_what_is_left_is_taken_as_far_as_there_is_room() {
    let (mut net, mut by_hand) = node_with(50);
    let batch = packets(&net, &mut by_hand, 120, Duration::from_secs(1));
    net.inject(FROM, NODE, batch);
    let node = &net.nodes[NODE as usize];
    assert_eq!((node.occupancy.taken(), node.relay().counts().pool), (50, 50));
    assert_eq!(dropped(&node.drops), [(DropReason::Overload, 70)]);
}

#[test]
fn noise_does_not_keep_places() {
    let (mut net, mut by_hand) = node_with(4);
    for round in 0..20 {
        let mut batch = packets(&net, &mut by_hand, 4, Duration::ZERO);
        for (at, frame) in batch.iter_mut().enumerate() {
            frame.packet_mut()[40 + at] ^= 1;
        }
        net.inject(FROM, NODE, batch);
        assert_eq!(dropped(&net.nodes[NODE as usize].drops), [(DropReason::BadMac, 4 * (round + 1))]);
        assert_eq!(net.nodes[NODE as usize].occupancy.taken(), 0);
    }
}

#[test]
fn who_squats_with_maximal_delays_loses_the_same_share_as_everybody() {
    // Honest: 100 packets per second for a quarter of a second each, 25 places. Squatter: 40 per second for ten seconds
    // each, which would take 400. There are 200.
    let (mut net, mut by_hand) = node_with(200);
    let mut rng = Rng::from_seed([81; 32]);
    let mut clock =
        |rate: u64| PoissonClock::new(Time::ZERO, Duration::from_nanos(1_000_000_000 / rate), rng.fork());
    let (mut honest, mut squatter) = (clock(100), clock(40));
    let mean = net.world.setup.parameters.mean_delay;
    let (mut offered, mut lost) = ([0u32; 2], [0u32; 2]);
    let node = NODE as usize;
    loop {
        let (who, at) = if honest.poll_timeout() < squatter.poll_timeout() {
            (0, honest.poll_timeout())
        } else {
            (1, squatter.poll_timeout())
        };
        if at > Time::ZERO + Duration::from_secs(30) {
            break;
        }
        net.run_until(at);
        let delay = if who == 0 {
            assert!(honest.poll(at).is_some());
            by_hand.rng.exponential(mean)
        } else {
            assert!(squatter.poll(at).is_some());
            Duration::MAX.min(Duration::from_nanos(u64::MAX))
        };
        let before = net.nodes[node].drops.get(DropReason::Overload);
        let packet = packets(&net, &mut by_hand, 1, delay);
        net.inject(FROM, NODE, packet);
        // Ten seconds to fill up.
        if at > Time::ZERO + Duration::from_secs(10) {
            offered[who] += 1;
            lost[who] += u32::from(net.nodes[node].drops.get(DropReason::Overload) > before);
        }
    }
    let share = |who: usize| f64::from(lost[who]) / f64::from(offered[who]);
    println!("lost: honest {:.3} of {}, squatter {:.3} of {}", share(0), offered[0], share(1), offered[1]);
    assert!(share(0) > 0.3, "it was full");
    // Losses come in stretches: the standard error is some four times the binomial one of 0.02.
    assert!((share(0) - share(1)).abs() < 0.1);
    assert!(net.nodes[node].relay().counts().pool <= 200);
}

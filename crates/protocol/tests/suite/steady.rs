//! What a packet costs a mix node besides computation.

use core::time::Duration;
use std::sync::Arc;

use allocation_counter::measure;
use tombola_mixing::Time;
use tombola_protocol::frame::Frame;
use tombola_protocol::opener::{Inbound, Occupancy};
use tombola_protocol::relay::{RelayInput, RelayOutput};

use crate::common::{ByHand, Setup, at_layer_3};

const BATCH: usize = 32;
const BATCHES: usize = 8;
const DELAY: Duration = Duration::from_millis(1);

#[test]
fn a_packet_passes_a_mix_node_without_an_allocation() {
    let mut world = Setup::new(150).world();
    let (occupancy, drops) = (Occupancy::new(1000), Arc::default());
    let opener = world.opener(6, &occupancy, &drops);
    let (_, mut relay) = world.relay(6, &occupancy, &drops);
    let from = world.identity(4);
    let mut by_hand = ByHand::new(&world.view, 150);
    let delay = u64::try_from(DELAY.as_nanos()).unwrap();
    let mut packet = || at_layer_3(&mut by_hand, &world.view, 6, 0, delay);
    let mut packets: Vec<Frame> = (0..2 * BATCHES * BATCH).map(|_| packet()).collect();

    let mut now = Time::ZERO + Duration::from_secs(1);
    let mut batch = Vec::with_capacity(BATCH);
    let (mut opened, mut spare) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let mut left = Vec::with_capacity(packets.len());
    let mut pass = || {
        for _ in 0..BATCHES {
            let frames = packets.drain(..BATCH);
            batch.extend(frames.map(|frame| Inbound { arrived: now, from, frame }));
            opener.open_batch(&mut batch, &mut opened, &mut spare);
            opened.drain(..).for_each(|opened| relay.handle(now, RelayInput::Opened(opened)));
            now += 2 * DELAY;
            while let Some(output) = relay.poll_output(now) {
                let RelayOutput::Forward { frame, .. } = output else { panic!("it was to be passed on") };
                left.push(frame);
            }
        }
    };
    // Everything grows to its size.
    pass();
    let allocations = measure(&mut pass);
    assert_eq!(allocations.count_total, 0);
    assert_eq!(left.len(), 2 * BATCHES * BATCH);
}

//! Workers share one opener.

use std::sync::{Arc, Barrier};

use tombola_mixing::Time;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::frame::Frame;
use tombola_protocol::opener::{Inbound, Occupancy, Opened, Opener};
use tombola_topology::IdentityKey;

use crate::common::{ByHand, Setup, at_layer_3, dropped};

const THREADS: usize = 64;

struct Shared {
    opener: Opener,
    from: IdentityKey,
    occupancy: Occupancy,
    drops: Arc<DropCounters>,
    packets: Vec<Frame>,
}

fn shared(capacity: usize, packets: usize) -> Shared {
    let world = Setup::new(130).world();
    let (occupancy, drops) = (Occupancy::new(capacity), Arc::default());
    let opener = world.opener(6, &occupancy, &drops);
    let mut by_hand = ByHand::new(&world.view, 130);
    let packets = (0..packets).map(|_| at_layer_3(&mut by_hand, &world.view, 6, 0, 1)).collect();
    Shared { opener, from: world.identity(4), occupancy, drops, packets }
}

fn open(shared: &Shared, frames: &[Frame]) -> Vec<Opened> {
    let inbound = |frame: &Frame| Inbound { arrived: Time::ZERO, from: shared.from, frame: frame.clone() };
    let mut batch = frames.iter().map(inbound).collect();
    let (mut opened, mut spare) = (vec![], vec![]);
    shared.opener.open_batch(&mut batch, &mut opened, &mut spare);
    opened
}

/// What all threads together opened, each given what `share` says.
fn in_threads<'a>(shared: &'a Shared, share: impl Fn(usize) -> &'a [Frame]) -> usize {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let start = &start;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let frames = share(thread);
                scope.spawn(move || {
                    start.wait();
                    open(shared, frames).len()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn of_one_packet_in_64_threads_exactly_one_passes() {
    let shared = shared(1000, 8);
    for round in 0..8 {
        assert_eq!(in_threads(&shared, |_| &shared.packets[round..=round]), 1);
        assert_eq!(shared.occupancy.taken(), round + 1, "only what passed keeps its place");
        let replays = 63 * (round as u64 + 1);
        assert_eq!(dropped(&shared.drops), [(DropReason::Replay, replays)]);
    }
}

#[test]
fn of_one_packet_in_one_batch_exactly_one_passes() {
    let shared = shared(1000, 2);
    let batch: Vec<_> = shared.packets.iter().cycle().take(100).cloned().collect();
    assert_eq!(open(&shared, &batch).len(), 2);
    assert_eq!(dropped(&shared.drops), [(DropReason::Replay, 98)]);
}

#[test]
fn threads_never_take_more_places_than_there_are() {
    let shared = shared(50, 3 * THREADS);
    let opened = in_threads(&shared, |thread| &shared.packets[3 * thread..3 * thread + 3]);
    assert_eq!((opened, shared.occupancy.taken()), (50, 50));
    assert_eq!(dropped(&shared.drops), [(DropReason::Overload, 3 * THREADS as u64 - 50)]);
}

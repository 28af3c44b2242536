//! Whatever frames arrive from whatever neighbour, each is opened or counted under one reason, a place in the node is
//! held for exactly those that were opened, and a packet passes once.

#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, identity, sphinx_key, view};
use tombola_mixing::{Rng, Time};
use tombola_protocol::drops::DropCounters;
use tombola_protocol::frame::{FRAME_LEN, Frame};
use tombola_protocol::opener::{Inbound, NodeKey, Occupancy, Opener};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder};
use tombola_protocol::payload::payload_type;
use tombola_protocol::replay::TagFilter;
use tombola_protocol::view::{EpochView, Seat};
use tombola_topology::NodeIndex;

#[derive(Arbitrary, Debug)]
struct Arrival {
    from: u8,
    /// A valid packet of this seed, or nothing but the bytes below.
    packet: Option<u8>,
    /// Laid over the beginning of the frame.
    head: Vec<u8>,
}

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);

fuzz_target!(|arrivals: Vec<Arrival>| {
    const PLACES: usize = 16;
    let arrivals = &arrivals[..arrivals.len().min(64)];
    let occupancy = Occupancy::new(PLACES);
    let drops = Arc::new(DropCounters::default());
    let seen = TagFilter::new(1 << 10, 1);
    let opener = Opener::new(VIEW.parameters(), occupancy.clone(), Arc::clone(&drops));
    let seat = Seat::new(Arc::clone(&VIEW), MIX).expect("node 0 is in the list");
    opener.open(seat, Arc::new(NodeKey::new(sphinx_key(MIX), seen, None)));

    let mut batch: Vec<Inbound> = arrivals.iter().map(inbound).collect();
    let (mut opened, mut spare) = (Vec::new(), Vec::new());
    opener.open_batch(&mut batch, &mut opened, &mut spare);

    assert!(batch.is_empty());
    assert_eq!(opened.len() + spare.len(), arrivals.len(), "no frame disappears");
    let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
    assert_eq!(dropped, spare.len() as u64, "every drop has a reason");
    assert_eq!(occupancy.taken(), opened.len());
    assert!(opened.len() <= PLACES);
    let valid: std::collections::BTreeSet<_> = arrivals.iter().filter_map(|arrival| arrival.packet).collect();
    assert!(opened.len() <= valid.len(), "a packet passed twice, or one out of nothing");
});

fn inbound(arrival: &Arrival) -> Inbound {
    let mut frame = match arrival.packet {
        Some(seed) => {
            let mut builder = PacketBuilder::new(Rng::from_seed([seed; 32]));
            let filler = builder.filler(payload_type::COVER);
            let end = End::Node(GATEWAY);
            builder.build(&VIEW, FirstLink::FromNode, &[MIX], &end, [1; 16], &filler).frame
        }
        None => Frame::zeroed(),
    };
    let len = arrival.head.len().min(FRAME_LEN);
    frame.as_bytes_mut()[..len].copy_from_slice(&arrival.head[..len]);
    Inbound { arrived: Time::ZERO, from: identity(NodeIndex(u32::from(arrival.from))), frame }
}

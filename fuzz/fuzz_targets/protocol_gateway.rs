//! Whatever clients do and whatever mail comes, at whatever times: a gateway stays within the bounds of its mailboxes,
//! forwards only to layer 1, and hands frames only to clients that are connected, none of them faster than the pace.

#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, identity, view};
use tombola_mixing::Time;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{FRAME_LEN, Frame, FrameKind};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_protocol::view::{EpochView, Seat};
use tombola_topology::{IdentityKey, MailboxId};

#[derive(Arbitrary, Debug)]
enum Event {
    Pass { milliseconds: u8 },
    Connect { client: u8 },
    Disconnect { client: u8 },
    Frame { client: u8, head: Vec<u8> },
    Collect { client: u8, wanted: bool },
    Mail { client: u8 },
    Poll,
    Undelivered { client: u8 },
    Expire,
}

const PLACES: usize = 8;
const MEMORY_PACKETS: usize = 16;

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);
static CLIENTS: LazyLock<Vec<IdentityKey>> =
    LazyLock::new(|| (100..108).map(|seed| IdentityKey::of_seed(&[seed; 32])).collect());

fuzz_target!(|events: Vec<Event>| {
    let drops = Arc::default();
    let occupancy = Occupancy::new(PLACES);
    let seat = Seat::new(Arc::clone(&VIEW), GATEWAY).expect("node 1 is in the list");
    let (parameters, places) = (VIEW.parameters(), occupancy.clone());
    let mut gateway = Gateway::new(parameters, seat.into(), MEMORY_PACKETS, places, drops, [1; 32]);
    let client = |number: u8| CLIENTS[usize::from(number) % CLIENTS.len()];
    let mut now = Time::from_nanos(1 << 40);
    let mut connected = BTreeSet::new();
    let mut delivered = Vec::new();
    let mut returned = 0;
    for event in events {
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Connect { client: number } => {
                connected.insert(client(number));
                gateway.handle(now, GatewayInput::ClientConnected(client(number)));
            }
            Event::Disconnect { client: number } => {
                connected.remove(&client(number));
                gateway.handle(now, GatewayInput::ClientDisconnected(client(number)));
            }
            Event::Frame { client: number, head } => {
                let mut frame = Frame::zeroed();
                let len = head.len().min(FRAME_LEN);
                frame.as_bytes_mut()[..len].copy_from_slice(&head[..len]);
                gateway.handle(now, GatewayInput::ClientFrame(client(number), frame));
            }
            Event::Collect { client: number, wanted } => {
                gateway.handle(now, GatewayInput::ClientFrame(client(number), Frame::collect(wanted, 0)));
            }
            Event::Mail { client: number } => {
                if occupancy.take() {
                    let order = Order::Store(MailboxId::of(&client(number)));
                    let (frame, tag) = (Frame::zeroed(), TagPlace::default());
                    let opened = Opened { arrived: now, frame, order, tag };
                    gateway.handle(now, GatewayInput::Opened(opened));
                }
            }
            Event::Poll => match gateway.poll_output(now) {
                Some(GatewayOutput::Forward { to, .. }) => assert_eq!(to, identity(MIX)),
                Some(GatewayOutput::Deliver { to, frame }) => {
                    assert!(connected.contains(&to), "a frame for a client that is not there");
                    delivered.push((to, frame));
                }
                None => assert!(gateway.poll_timeout().is_none_or(|due| due > now), "something was due"),
            },
            Event::Undelivered { client: number } => {
                if let Some(at) = delivered.iter().position(|(to, _)| *to == client(number)) {
                    let (to, frame) = delivered.swap_remove(at);
                    returned += usize::from(frame.kind() == Ok(FrameKind::Mail));
                    gateway.handle(now, GatewayInput::Undelivered(to, frame));
                }
            }
            Event::Expire => gateway.expire(now),
        }
        let counts = gateway.counts();
        assert!(counts.mailboxes <= VIEW.parameters().clients_per_gateway as usize);
        // Mail that a link gives back is taken again, whatever has come meanwhile.
        assert!(counts.mail <= MEMORY_PACKETS + returned, "{} packets in mailboxes", counts.mail);
        assert_eq!(counts.clients, connected.len());
        assert_eq!(occupancy.taken(), 0, "a place was not given back");
    }
});

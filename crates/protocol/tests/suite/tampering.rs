//! One bit of a frame is flipped on one of its links. In the header the next hop notices, in the payload the recipient
//! does and nobody before, and beside the packet it changes nothing that any later hop sees.

use core::time::Duration;
use std::sync::Arc;

use tombola_mixing::{Rng, Time};
use tombola_protocol::client::Client;
use tombola_protocol::drops::{DropCounters, DropReason};
use tombola_protocol::fragment::MessageId;
use tombola_protocol::frame::{BODY_OFFSET, FRAME_LEN, Frame};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_protocol::opener::{Inbound, Occupancy, Opener};
use tombola_protocol::payload::{Blocks, Flags, Plaintext};
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_sphinx::HEADER_LEN;
use tombola_topology::{IdentityKey, MailboxId};

use crate::common::{ByHand, Disk, Hop, Setup, World, dropped};

/// The nodes of the route: one of each layer, and the recipient's gateway.
const ROUTE: [u32; 4] = [2, 4, 6, 0];
/// The node before each.
const BEFORE: [u32; 4] = [1, 2, 4, 6];
const PAYLOAD_OFFSET: usize = BODY_OFFSET + HEADER_LEN;

enum Machine {
    Mix(Box<Relay>),
    Gateway(Box<Gateway>, Disk),
}

/// A hop on its own: a frame goes in and the next link's comes out, or the reason why not.
struct Station {
    from: IdentityKey,
    next: Option<IdentityKey>,
    opener: Opener,
    machine: Machine,
    drops: Arc<DropCounters>,
    now: Time,
}

impl Station {
    fn new(world: &mut World, at: usize, recipient: IdentityKey) -> Self {
        let (occupancy, drops) = (Occupancy::new(64), Arc::default());
        let opener = world.opener(ROUTE[at], &occupancy, &drops);
        let machine = if at < 3 {
            Machine::Mix(Box::new(world.relay(ROUTE[at], &occupancy, &drops).1))
        } else {
            let mut gateway = world.gateway(ROUTE[at], &occupancy, &drops);
            gateway.handle(Time::ZERO, GatewayInput::ClientConnected(recipient));
            gateway.handle(Time::ZERO, GatewayInput::ClientFrame(recipient, Frame::collect(true, 0)));
            let mut disk = Disk::default();
            disk.serve(Time::ZERO, &mut gateway);
            Machine::Gateway(Box::new(gateway), disk)
        };
        let next = ROUTE.get(at + 1).map(|node| world.identity(*node));
        Self { from: world.identity(BEFORE[at]), next, opener, machine, drops, now: Time::ZERO }
    }

    fn pass(&mut self, frame: Frame) -> Result<Frame, DropReason> {
        let before = dropped(&self.drops);
        let (mut opened, mut spare) = (vec![], vec![]);
        let inbound = Inbound { arrived: self.now, from: self.from, frame };
        self.opener.open_batch(&mut vec![inbound], &mut opened, &mut spare);
        let Some(opened) = opened.pop() else {
            let after = dropped(&self.drops);
            let reason = after.into_iter().find(|counted| !before.contains(counted));
            return Err(reason.expect("a drop is counted").0);
        };
        let arrived = self.now;
        // A slot of the gateway later.
        self.now += Duration::from_millis(20);
        match &mut self.machine {
            Machine::Mix(relay) => {
                relay.handle(arrived, RelayInput::Opened(opened));
                let Some(RelayOutput::Forward { to, frame }) = relay.poll_output(self.now) else {
                    panic!("its delay is over")
                };
                assert_eq!(Some(to), self.next);
                Ok(frame)
            }
            Machine::Gateway(gateway, disk) => {
                gateway.handle(arrived, GatewayInput::Opened(opened));
                disk.serve(arrived, gateway);
                let Some(GatewayOutput::Deliver { frame, .. }) = gateway.poll_output(self.now) else {
                    panic!("its slot has come")
                };
                Ok(frame)
            }
        }
    }
}

/// A route of its own for every packet, since each station takes it once.
struct Journey {
    world: World,
    identity: IdentityKey,
    client: Client,
    by_hand: ByHand,
    rng: Rng,
}

impl Journey {
    fn new(seed: u8) -> Self {
        let mut world = Setup::new(60).world();
        let (identity, client) = world.client(0);
        let by_hand = ByHand::new(&world.view, seed);
        Self { world, identity, client, by_hand, rng: Rng::from_seed([seed; 32]) }
    }

    fn station(&mut self, at: usize) -> Station {
        Station::new(&mut self.world, at, self.identity)
    }

    /// A message as the first mix node gets it; every packet is new, the text is the same.
    fn message(&mut self, text: &[u8]) -> Frame {
        let view = Arc::clone(&self.world.view);
        let plaintext = Plaintext::short(MessageId([9; 16]), Flags::default(), Blocks::new(0, &[]), text);
        let mut hops: Vec<_> = (0..3).map(|at| Hop::forward(&view, ROUTE[at], ROUTE[at + 1], 1000)).collect();
        hops.push(Hop::store(&view, ROUTE[3], MailboxId::of(&self.identity)));
        hops.push(Hop::last(self.client.public_key()));
        self.by_hand.packet(&hops, plaintext.as_bytes())
    }

    /// A random bit of byte `at`.
    fn flip(&mut self, frame: &mut Frame, at: usize) {
        frame.as_bytes_mut()[at] ^= 1 << self.rng.below(8);
    }
}

#[test]
fn in_the_header_the_next_hop_notices() {
    let mut journey = Journey::new(61);
    let mut frame = journey.message(b"text");
    for at in 0..=ROUTE.len() {
        let mut station = (at < ROUTE.len()).then(|| journey.station(at));
        for byte in BODY_OFFSET..PAYLOAD_OFFSET {
            let mut changed = frame.clone();
            journey.flip(&mut changed, byte);
            let refused = match &mut station {
                Some(station) => station.pass(changed).err(),
                None => {
                    let before = dropped(journey.client.drops());
                    journey.client.handle_frame(Time::ZERO, changed);
                    let after = dropped(journey.client.drops());
                    after.into_iter().find(|counted| !before.contains(counted)).map(|(reason, _)| reason)
                }
            };
            assert!(
                matches!(refused, Some(DropReason::BadMac | DropReason::BadPoint)),
                "hop {at}, byte {byte}: {refused:?}"
            );
        }
        // All that noise has not spent the packet's one passage.
        match station {
            Some(mut station) => frame = station.pass(frame).unwrap(),
            None => journey.client.handle_frame(Time::ZERO, frame.clone()),
        }
    }
    while journey.client.poll_store().is_some() {}
    journey.client.handle_durable(u64::MAX);
    assert!(journey.client.poll_event().is_some(), "the message arrived");
}

#[test]
fn in_the_payload_the_recipient_notices_and_nobody_before() {
    let mut journey = Journey::new(62);
    let mut stations: Vec<_> = (0..ROUTE.len()).map(|at| journey.station(at)).collect();
    let mut tampered = 0;
    for flipped_before in 0..=ROUTE.len() {
        for _ in 0..16 {
            let mut frame = journey.message(&[5; 1000]);
            let byte = PAYLOAD_OFFSET + journey.rng.below((FRAME_LEN - PAYLOAD_OFFSET) as u64) as usize;
            for (at, station) in stations.iter_mut().enumerate() {
                if at == flipped_before {
                    journey.flip(&mut frame, byte);
                }
                frame = station.pass(frame).expect("no node can tell");
            }
            if flipped_before == ROUTE.len() {
                journey.flip(&mut frame, byte);
            }
            journey.client.handle_frame(Time::ZERO, frame);
            tampered += 1;
            assert_eq!(dropped(journey.client.drops()), [(DropReason::BadPayload, tampered)]);
            assert!(journey.client.poll_event().is_none());
        }
    }
}

#[test]
fn beside_the_packet_nothing_gets_past_the_next_hop() {
    let mut journey = Journey::new(63);
    let mut frame = journey.message(b"text");
    for at in 0..ROUTE.len() {
        let untouched = journey.station(at).pass(frame.clone()).unwrap();
        let mut same = journey.station(at);
        for byte in 0..BODY_OFFSET {
            let mut changed = frame.clone();
            journey.flip(&mut changed, byte);
            match byte {
                0..4 => {
                    let reason = same.pass(changed).unwrap_err();
                    use DropReason::{BadFrame, NoKey, WrongDirection};
                    assert!(matches!(reason, BadFrame | WrongDirection | NoKey), "byte {byte}: {reason:?}");
                }
                // The challenge, and in layer 1 the ack check, are bound to the packet.
                4..24 => assert_eq!(journey.station(at).pass(changed).unwrap_err(), DropReason::BadTicket),
                24..32 if at == 0 => {
                    assert_eq!(journey.station(at).pass(changed).unwrap_err(), DropReason::BadTicket);
                }
                // The gateway's slots have another phase each time, hence mail another time held.
                _ if at == 3 => {
                    let mail = journey.station(at).pass(changed).unwrap();
                    assert_eq!(mail.packet(), untouched.packet());
                    assert_eq!(mail.as_bytes()[..4], untouched.as_bytes()[..4]);
                    assert_eq!(mail.as_bytes()[12..20], 1u64.to_be_bytes(), "the first mail of all");
                    assert_eq!(mail.as_bytes()[20..BODY_OFFSET], [0; 32]);
                }
                _ => assert!(journey.station(at).pass(changed).unwrap() == untouched, "byte {byte}"),
            }
        }
        frame = same.pass(frame).expect("its one passage is still unspent");
    }
}

#[test]
fn on_the_first_link_a_client_can_only_choose_its_first_hop() {
    let mut journey = Journey::new(64);
    let packet = journey.message(b"text");
    let frame = journey.by_hand.for_gateway(packet.clone(), ROUTE[0]);
    let sender = IdentityKey::of_seed(&[1; 32]);
    let untouched = journey.station(0).pass(packet).unwrap();
    for byte in 0..BODY_OFFSET {
        let drops = Arc::default();
        let mut gateway = journey.world.gateway(1, &Occupancy::new(1), &drops);
        gateway.handle(Time::ZERO, GatewayInput::ClientConnected(sender));
        let mut changed = frame.clone();
        journey.flip(&mut changed, byte);
        gateway.handle(Time::ZERO, GatewayInput::ClientFrame(sender, changed));
        match gateway.poll_output(Time::ZERO) {
            Some(GatewayOutput::Forward { to, frame }) if to == journey.world.identity(ROUTE[0]) => {
                // The gateway has no epoch of another parity; ack check and challenge are bound to the packet; the rest is
                // not seen behind layer 1.
                let passed = journey.station(0).pass(frame);
                if (8..36).contains(&byte) {
                    assert!(passed.is_err(), "byte {byte}");
                } else {
                    assert!(byte != 1 && passed == Ok(untouched.clone()), "byte {byte}");
                }
            }
            Some(GatewayOutput::Forward { to, .. }) => {
                assert!((4..8).contains(&byte) && to == journey.world.identity(3), "byte {byte}");
            }
            Some(_) => panic!("nothing comes back"),
            None => {
                let counted: u64 = dropped(&drops).iter().map(|(_, count)| count).sum();
                // A flipped kind may have made a `Collect` or `Hold` of it, which are no packets.
                assert!(byte < 8 && (counted == 1 || byte == 0), "byte {byte}: {counted} drops");
            }
        }
    }
}

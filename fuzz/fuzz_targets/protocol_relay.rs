//! Whatever a mix node's workers opened, and whatever the gateways hand to its accounts, at whatever times: a packet
//! leaves when its delay, cut to the network's bound, is over, neither before nor after, and each holds one place.

#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, any_ticket, identity, view};
use tombola_mixing::Time;
use tombola_protocol::client::{Client, ClientKeys};
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{FRAME_LEN, Frame};
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_protocol::relay::{Relay, RelayInput, RelayOutput};
use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_topology::{IdentityKey, NodeIndex};

#[derive(Arbitrary, Debug)]
enum Event {
    Pass { milliseconds: u8 },
    Forward { next: u32, delay_ns: u64, age_ms: u8, challenge: [u8; 20] },
    End { identifier: [u8; 16] },
    Link { account: u8, connected: bool },
    Frame { account: u8, head: Vec<u8> },
    Work,
}

const PLACES: usize = 8;
const ACCOUNTS: u8 = 2;
/// In front of a number, marks the packets of this program among the node's own.
const MARK: [u8; 8] = *b"opened\0\0";

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);

fuzz_target!(|events: Vec<Event>| {
    let mut now = Time::from_nanos(1 << 40);
    let accounts = (0..ACCOUNTS).map(|account| {
        let keys = ClientKeys {
            sphinx: SecretKey::from_bytes([80 + account; 32]),
            identity: IdentityKey::of_seed(&[90 + account; 32]),
            gateway: identity(GATEWAY),
        };
        Client::account(now, Arc::clone(&VIEW), keys, [account; 32]).expect("the gateway exists")
    });
    let (occupancy, drops) = (Occupancy::new(PLACES), Arc::default());
    let (me, view) = (identity(MIX), Arc::clone(&VIEW));
    let mut relay = Relay::new(now, view, me, accounts.collect(), occupancy.clone(), drops, [1; 32]);
    let mut waiting = BTreeMap::new();
    for (number, event) in (0u64..).zip(events.into_iter().take(64)) {
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Forward { next, delay_ns, age_ms, challenge } => {
                if occupancy.take() {
                    let mut frame = Frame::zeroed();
                    frame.packet_mut()[..8].copy_from_slice(&MARK);
                    frame.packet_mut()[8..16].copy_from_slice(&number.to_be_bytes());
                    let arrived = now - Duration::from_millis(age_ms.into());
                    let delay = Duration::from_nanos(delay_ns).min(VIEW.parameters().max_delay);
                    let next = identity(NodeIndex(next));
                    waiting.insert(number, (arrived + delay, next, challenge));
                    let order = Order::Forward { next, delay_ns, challenge };
                    let tag = TagPlace::default();
                    let (from, ticket) = (identity(GATEWAY), any_ticket());
                    let opened = Opened { arrived, from, frame, order, tag, ticket };
                    relay.handle(now, RelayInput::Opened(opened));
                }
            }
            Event::End { identifier } => {
                if occupancy.take() {
                    let (frame, order) = (Frame::zeroed(), Order::End { identifier });
                    let tag = TagPlace::default();
                    let (from, ticket) = (identity(GATEWAY), any_ticket());
                    let opened = Opened { arrived: now, from, frame, order, tag, ticket };
                    relay.handle(now, RelayInput::Opened(opened));
                }
            }
            Event::Link { account, connected } => {
                relay.handle(now, RelayInput::AccountLink { account: account.into(), connected });
            }
            Event::Frame { account, head } => {
                let mut frame = Frame::zeroed();
                let len = head.len().min(FRAME_LEN);
                frame.as_bytes_mut()[..len].copy_from_slice(&head[..len]);
                relay.handle(now, RelayInput::AccountFrame { account: account.into(), frame });
            }
            Event::Work => {
                relay.work(now);
            }
        }
        while let Some(output) = relay.poll_output(now) {
            match output {
                RelayOutput::Forward { to, frame } if frame.packet()[..8] == MARK => {
                    let number = frame.packet()[8..16].try_into().map(u64::from_be_bytes).expect("8 bytes");
                    let (due, next, challenge) = waiting.remove(&number).expect("it leaves once");
                    assert!(due <= now, "it left too early");
                    assert!(to == next && frame.link_meta().challenge == challenge);
                }
                RelayOutput::Forward { to, .. } => {
                    assert_eq!(to, identity(GATEWAY), "a loop begins at a successor");
                }
                RelayOutput::Account { account, .. } => assert!(account < ACCOUNTS.into()),
                RelayOutput::Claim(_)
                | RelayOutput::Watch { .. }
                | RelayOutput::Forget { .. }
                | RelayOutput::Settled(_) => {
                    panic!("nobody pays")
                }
            }
        }
        assert!(waiting.values().all(|(due, ..)| *due > now), "it should have left");
        assert_eq!(occupancy.taken(), waiting.len(), "each packet holds one place");
        assert!(relay.poll_timeout().is_some_and(|due| due > now), "everything that was due was done");
    }
});

//! Whatever a gateway and whatever correspondents send, a client does not panic, and hands over only messages that
//! arrived whole. Correspondents know its key: their packets are sound, and anything may be in them.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, identity, view};
use tombola_mixing::Time;
use tombola_protocol::client::{Client, ClientEvent, ClientKeys, Received};
use tombola_protocol::fragment::{FRAGMENT_DATA, FRAGMENT_HEADER, count_for, payload_type};
use tombola_protocol::frame::{FRAME_LEN, Frame};
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Destination, HopField, PLAINTEXT_MAX, RouteSecrets, SecretKey, build};
use tombola_topology::IdentityKey;

#[derive(Arbitrary, Debug)]
enum Event {
    Pass { milliseconds: u16 },
    Link { connected: bool },
    Collect { wanted: bool },
    Frame { head: Vec<u8> },
    Mail { seed: u8, identifier: [u8; 16], content: Content, held: u64, ends_here: bool },
    Work,
    Transmit,
}

/// What is in a packet.
#[derive(Arbitrary, Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// Laid out as a fragment, of a message that may or may not exist, in its usual length or another.
    Fragment {
        message: u8,
        index: u8,
        count: u8,
        len: Option<u16>,
    },
}

impl Content {
    fn plaintext(self) -> Vec<u8> {
        let mut plaintext = match self {
            Self::Bytes(bytes) => bytes,
            Self::Fragment { message, index, count, len } => {
                // Small numbers: messages of one fragment and of two, and places that do not exist.
                let (index, count) = (u32::from(index % 3), u32::from(count % 3));
                let last = index + 1 == count;
                let len = len.map_or(if last { 9 } else { FRAGMENT_DATA }, usize::from);
                let mut fragment = vec![payload_type::FRAGMENT];
                fragment.extend([message; 16]);
                fragment.extend(index.to_be_bytes());
                fragment.extend(count.to_be_bytes());
                fragment.resize(FRAGMENT_HEADER + len, message);
                fragment
            }
        };
        plaintext.truncate(PLAINTEXT_MAX);
        plaintext
    }
}

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);

fn secret() -> SecretKey {
    SecretKey::from_bytes([77; 32])
}

fuzz_target!(|events: Vec<Event>| {
    let keys = ClientKeys {
        sphinx: secret(),
        identity: IdentityKey::of_seed(&[78; 32]),
        gateway: identity(GATEWAY),
    };
    let mut now = Time::from_nanos(1 << 40);
    let mut client = Client::new(now, Arc::clone(&VIEW), keys, [1; 32]).expect("the gateway exists");
    for event in events.into_iter().take(24) {
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Link { connected } => client.handle_link(connected),
            Event::Collect { wanted } => client.handle_collect(wanted),
            Event::Frame { head } => {
                let mut frame = Frame::zeroed();
                let len = head.len().min(FRAME_LEN);
                frame.as_bytes_mut()[..len].copy_from_slice(&head[..len]);
                client.handle_frame(now, frame);
            }
            Event::Mail { seed, identifier, content, held, ends_here } => {
                client.handle_frame(now, mail(seed, identifier, &content.plaintext(), held, ends_here));
            }
            Event::Work => {
                client.work(now);
            }
            Event::Transmit => {
                client.poll_transmit(now);
            }
        }
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Progress { have, count, .. } => {
                    assert!(have < count, "a message whose fragments are all here is no longer in progress");
                }
                ClientEvent::Received(Received { fragments, body, .. }) => {
                    assert_eq!(fragments, count_for(body.len()), "a message with a part missing or added");
                }
                _ => {}
            }
        }
    }
});

/// A sound packet whose last hop, or last but one, is the client.
fn mail(seed: u8, identifier: [u8; 16], plaintext: &[u8], held: u64, ends_here: bool) -> Frame {
    let key = secret().public_key();
    let keys = if ends_here { vec![key] } else { vec![key, key] };
    let fields = vec![HopField { next: [seed; 32], delay_ns: held }; keys.len() - 1];
    let secrets = RouteSecrets::derive([seed; 32], &keys).expect("one or two hops");
    let destination = Destination { address: [seed; 32], identifier };
    let mut frame = Frame::zeroed();
    build(&secrets, &fields, &destination, [seed; 32], plaintext, frame.packet_mut()).expect("it fits");
    frame.set_mail(VIEW.parity(), Duration::from_nanos(held), 1);
    frame
}

//! Whatever a gateway and whatever correspondents send, a client does not panic, hands over only messages that arrived whole,
//! and hands over and acknowledges nothing before it is durable. Correspondents know its key: their packets are sound, and
//! anything may be in them.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{ClientDisk, GATEWAY, NOW, identity, view};
use tombola_mixing::Time;
use tombola_protocol::client::{Client, ClientEvent, ClientKeys};
use tombola_protocol::fragment::{MessageId, Place, Shape};
use tombola_protocol::frame::{FRAME_LEN, Frame, FrameKind};
use tombola_protocol::payload::{Blocks, Flags, Plaintext, Positions, Report};
use tombola_protocol::records::{Restore, tables};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Destination, HopField, PLAINTEXT_MAX, RouteSecrets, SURB_LEN, SecretKey, build};
use tombola_topology::IdentityKey;

#[derive(Arbitrary, Debug)]
enum Event {
    Pass {
        milliseconds: u16,
    },
    Link {
        connected: bool,
    },
    Collect {
        wanted: bool,
    },
    Frame {
        head: Vec<u8>,
    },
    Mail {
        seed: u8,
        identifier: [u8; 16],
        content: Content,
        held: u64,
        number: u8,
        gap: bool,
        ends_here: bool,
    },
    Commit,
    Views,
    Work,
    Transmit,
}

/// What is in a packet. Ids are of few messages, so that packets find each other.
#[derive(Arbitrary, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Fragment { message: u8, length: u16, segment: u8, position: u8 },
    Short { message: u8, flags: u8, blocks: u8, body: Vec<u8> },
    Blocks { message: u8, flags: u8, blocks: u8, epoch: u8 },
    Report { message: u8, segments: Vec<(u16, u8)>, more: bool, whole: bool },
    Request { message: u8, count: u16 },
}

impl Content {
    fn plaintext(self) -> Vec<u8> {
        let id = |message: u8| MessageId([message % 4; 16]);
        let flags = |bits: u8| {
            let all = [Flags::REPLIES, Flags::ASKS, Flags::PING];
            let chosen = all.into_iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
            chosen.fold(Flags::default(), |flags, (_, flag)| flags.with(flag))
        };
        let blocks = [[0; SURB_LEN]; 6];
        let text = match self {
            Self::Bytes(mut bytes) => {
                bytes.truncate(PLAINTEXT_MAX);
                return bytes;
            }
            Self::Fragment { message, length, segment, position } => {
                let shape = Shape::of(length.into()).expect("short enough");
                let place = Place { segment: u16::from(segment % 2), position };
                Plaintext::fragment(id(message), shape, place, &[message; 2006])
            }
            Self::Short { message, flags: bits, blocks: count, mut body } => {
                body.truncate(20);
                let blocks = Blocks::new(2, &blocks[..usize::from(count % 6)]);
                Plaintext::short(id(message), flags(bits), blocks, &body)
            }
            Self::Blocks { message, flags: bits, blocks: count, epoch } => {
                let shape = Shape::of(1).expect("short enough");
                let blocks = Blocks::new(u64::from(epoch % 4), &blocks[..usize::from(count % 6)]);
                Plaintext::blocks(id(message), shape, flags(bits), blocks)
            }
            Self::Report { message, mut segments, more, whole } => {
                segments.truncate(70);
                let report = if segments.is_empty() {
                    if whole { Report::Whole } else { Report::Nothing }
                } else {
                    let open = segments.into_iter().map(|(segment, position)| {
                        let mut positions = Positions::default();
                        positions.insert(position);
                        (segment, positions)
                    });
                    Report::Partial { open: open.collect(), more }
                };
                Plaintext::report(id(message), &report)
            }
            Self::Request { message, count } => Plaintext::request(id(message), count),
        };
        text.as_bytes().to_vec()
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
    let wall = WallClock::new(now, UnixNanos(NOW.0 * 1_000_000_000));
    let mut client = Client::new(now, wall, Arc::clone(&VIEW), keys, Restore::default(), [1; 32])
        .expect("the gateway exists, and nothing is stored");
    let mut disk = ClientDisk::default();
    // Numbers of mails, and the group in which what they brought is durable.
    let mut mails: Vec<(u64, u64)> = Vec::new();
    for event in events.into_iter().take(32) {
        let mut number_of_mail = None;
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Link { connected } => client.handle_link(now, connected),
            Event::Collect { wanted } => client.handle_collect(wanted),
            Event::Frame { head } => {
                let mut frame = Frame::zeroed();
                let len = head.len().min(FRAME_LEN);
                frame.as_bytes_mut()[..len].copy_from_slice(&head[..len]);
                // Numbers that only a gateway that fails would give are not what this is about.
                if frame.kind() != Ok(FrameKind::Mail) {
                    client.handle_frame(now, frame);
                }
            }
            Event::Mail { seed, identifier, content, held, number, gap, ends_here } => {
                let plaintext = content.plaintext();
                let mut frame = mail(seed, identifier, &plaintext, held, ends_here);
                let last = mails.last().map_or(0, |(number, _)| *number);
                let number = last + 1 + u64::from(number);
                frame.set_mail(VIEW.parity(), Duration::from_nanos(held), number);
                frame.set_mail_previous(last + u64::from(gap && number > last + 1));
                number_of_mail = Some(number);
                client.handle_frame(now, frame);
            }
            Event::Commit => client.handle_durable(disk.commit(usize::MAX)),
            Event::Views => assert!(client.handle_views(now, Arc::clone(&VIEW))),
            Event::Work => {
                client.work(now);
            }
            Event::Transmit => {
                while let Some(frame) = client.poll_transmit(now) {
                    let acknowledged = match frame.kind().expect("a frame of a kind") {
                        FrameKind::Collect | FrameKind::Hold => frame.collect_acknowledged(),
                        // Few enough for the low bits.
                        _ => frame.acknowledged().into(),
                    };
                    for (number, group) in &mails {
                        assert!(*number > acknowledged || disk.has(*group), "acknowledged and not durable");
                    }
                }
            }
        }
        let group = disk.submit(core::iter::from_fn(|| client.poll_store()));
        mails.extend(number_of_mail.map(|number| (number, group)));
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Progress { have, count, .. } => assert!(have <= count),
                ClientEvent::Received(received) => {
                    let id = received.message;
                    assert!(disk.contains(tables::INBOX, &id.0), "shown before it is durable");
                    assert!(!received.again);
                    let fragments = Shape::of(received.body.len()).expect("a message").fragments();
                    assert_eq!(received.packets, fragments, "a message with a part missing or added");
                }
                ClientEvent::Queued(_)
                | ClientEvent::Sent(_)
                | ClientEvent::Ended(..)
                | ClientEvent::Emitted(_) => {
                    panic!("it sends no messages")
                }
                ClientEvent::Pong { .. } | ClientEvent::Backpressure(_) => panic!("it asked for none"),
                ClientEvent::Displaced | ClientEvent::Probe(_) => {}
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
    frame
}

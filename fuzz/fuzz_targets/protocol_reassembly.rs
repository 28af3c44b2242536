//! Whatever fragments arrive in whatever order and at whatever times, the reassembler stays within its bounds, hands a
//! message over only with the length that it announced, and mixes no two up; what it says is there is there.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_mixing::Time;
use tombola_protocol::erasure::{Parity, data_fragment};
use tombola_protocol::fragment::{FRAGMENT_DATA, MESSAGE_MAX, MessageId, Place, Shape};
use tombola_protocol::payload::{REPORTED_MAX, Report};
use tombola_protocol::reassembly::{Added, Reassembler, ReassemblyLimits};

#[derive(Arbitrary, Debug)]
enum Event {
    /// A fragment as the parser lets through, of a message of so many fragments and bytes beyond.
    Fragment {
        message: u8,
        fragments: u8,
        beyond: u16,
        segment: u8,
        position: u8,
    },
    /// One of a message that says that it is huge.
    Huge {
        message: u8,
        length: u32,
        segment: u16,
        position: u8,
    },
    Segment {
        message: u8,
        fragments: u8,
        segment: u8,
        right: bool,
    },
    Pass {
        nanos: u16,
    },
}

const LIMITS: ReassemblyLimits =
    ReassemblyLimits { messages: 4, bytes: 6 * FRAGMENT_DATA, patience: Duration::from_nanos(100) };

fuzz_target!(|events: Vec<Event>| {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut now = Time::ZERO;
    for event in events {
        match event {
            Event::Pass { nanos } => now += Duration::from_nanos(nanos.into()),
            Event::Fragment { message, fragments, beyond, segment, position } => {
                let length = usize::from(fragments) * FRAGMENT_DATA + usize::from(beyond) % FRAGMENT_DATA;
                let shape = Shape::of(length).expect("short enough");
                let segment = u16::from(segment) % shape.segments();
                let all = shape.data_in(segment) + shape.parity_in(segment);
                let position = position % u8::try_from(all).expect("at most 192");
                let place = Place { segment, position };
                let body = vec![message; length];
                let data = match usize::from(position).checked_sub(shape.data_in(segment)) {
                    None => data_fragment(shape, place, &body).to_vec(),
                    Some(number) => {
                        Parity::of(shape, segment, &body).get(number).expect("it is there").to_vec()
                    }
                };
                check(reassembler.add(now, MessageId([message; 16]), shape, place, &data), shape, message);
            }
            Event::Huge { message, length, segment, position } => {
                let Some(shape) = Shape::of(length as usize % (MESSAGE_MAX + 1)) else { continue };
                let place = Place { segment, position };
                if shape.contains(place) {
                    let added = reassembler.add(
                        now,
                        MessageId([message; 16]),
                        shape,
                        place,
                        &[message; FRAGMENT_DATA],
                    );
                    assert!(!matches!(added, Added::Complete(ref body) if body.len() != shape.length()));
                }
            }
            Event::Segment { message, fragments, segment, right } => {
                let shape = Shape::of(usize::from(fragments) * FRAGMENT_DATA).expect("short enough");
                let length = shape.bytes_of(segment.into()).len() + usize::from(!right);
                let bytes = vec![message; length];
                let id = MessageId([message; 16]);
                // A message that is whole is restored as such, and not here.
                if shape.segments() > 1 {
                    let taken = reassembler.restore_segment(now, id, shape, segment.into(), bytes);
                    assert!(right || !taken, "a segment of another length");
                }
            }
        }
        while reassembler.evict(now).is_some() {}
        assert!(reassembler.pending() <= LIMITS.messages);
        for message in 0..=u8::MAX {
            let id = MessageId([message; 16]);
            match reassembler.report(&id) {
                Report::Whole => panic!("a message that is whole is no longer here"),
                Report::Nothing => {}
                Report::Partial { open, more } => {
                    assert!(reassembler.knows(&id) && open.len() <= REPORTED_MAX);
                    assert!(!more || open.len() == REPORTED_MAX);
                    for (segment, _) in open {
                        assert_eq!(reassembler.segment(&id, segment), None, "listed, and whole");
                    }
                }
            }
        }
    }
});

fn check(added: Added, shape: Shape, message: u8) {
    match added {
        Added::Complete(body) => {
            assert_eq!(body.len(), shape.length());
            // Another event may have sent other bytes under the same id and length, in the huge ones only.
            assert!(body.iter().all(|byte| *byte == message), "messages were mixed up");
        }
        Added::Partial { have, .. } => assert!(have > 0),
        Added::Duplicate | Added::Contradiction => {}
    }
}

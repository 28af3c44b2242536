//! A plaintext is refused or understood in one way: what parses can be written again, and is the same byte for byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_protocol::fragment::{FRAGMENT_DATA, MESSAGE_MAX};
use tombola_protocol::payload::{BLOCKS_MAX, Payload, Plaintext, REPORTED_MAX, Report, parse, short_max};
use tombola_sphinx::{PLAINTEXT_MAX, SURB_LEN};

fuzz_target!(|input: &[u8]| {
    let input = &input[..input.len().min(PLAINTEXT_MAX)];
    there_and_back(input);
    // Lengths that a fuzzer would take long to find: a fragment's, and those of packets with blocks.
    let lengths = (0..=BLOCKS_MAX).map(|blocks| 31 + blocks * SURB_LEN);
    for len in lengths.chain([PLAINTEXT_MAX]) {
        let mut padded = input.to_vec();
        padded.resize(len, 0);
        there_and_back(&padded);
    }
});

fn there_and_back(bytes: &[u8]) {
    let Ok(payload) = parse(bytes) else { return };
    let again = match payload {
        // Anything may follow the type.
        Payload::Cover | Payload::Probe => return,
        Payload::Fragment { message, shape, place, data } => {
            assert!(shape.contains(place) && shape.length() <= MESSAGE_MAX && data.len() == FRAGMENT_DATA);
            Plaintext::fragment(message, shape, place, data)
        }
        Payload::Short { message, flags, blocks, body } => {
            assert!(blocks.len() <= BLOCKS_MAX && body.len() <= short_max(blocks.len()));
            Plaintext::short(message, flags, blocks, body)
        }
        Payload::Blocks { message, shape, flags, blocks } => {
            assert!(blocks.len() <= BLOCKS_MAX && blocks.iter().count() == blocks.len());
            Plaintext::blocks(message, shape, flags, blocks)
        }
        Payload::Report { message, report } => {
            if let Report::Partial { open, .. } = &report {
                assert!((1..=REPORTED_MAX).contains(&open.len()));
                for (_, positions) in open {
                    let there = (0..=u8::MAX).filter(|position| positions.contains(*position));
                    assert_eq!(there.count(), positions.len());
                }
            }
            Plaintext::report(message, &report)
        }
        Payload::Request { message, count } => Plaintext::request(message, count),
    };
    assert!(again.as_bytes() == bytes, "another form of the same");
}

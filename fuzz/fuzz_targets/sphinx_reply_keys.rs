//! Stored reply keys are refused or written back byte for byte, and no payload that they are used on makes them panic
//! or pass for an answer.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_sphinx::{IDENTIFIER_LEN, PAYLOAD_LEN, ReplyKeys, SEED_LEN};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Makes the length that of the keys of so many hops.
    hops: Option<u8>,
    keys: Vec<u8>,
    payload: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let mut stored = input.keys;
    if let Some(hops) = input.hops {
        stored.resize(IDENTIFIER_LEN + SEED_LEN * usize::from(hops % 7), 0x42);
    }
    let Ok(keys) = ReplyKeys::from_bytes(&stored) else { return };
    assert_eq!(keys.to_bytes()[..], stored[..]);
    let mut payload = [0; PAYLOAD_LEN];
    let len = input.payload.len().min(PAYLOAD_LEN);
    payload[..len].copy_from_slice(&input.payload[..len]);
    assert!(keys.open(&mut payload).is_err(), "bytes out of nothing passed for an answer");
});

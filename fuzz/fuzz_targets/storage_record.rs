//! A record of a store is read only where and as it was written.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_protocol::store::Table;
use tombola_storage::record::{decode, encode};

#[derive(Arbitrary, Debug)]
struct Input {
    table: u8,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Bits to flip, wherever.
    flips: Vec<(u16, u8)>,
}

fuzz_target!(|input: Input| {
    let table = Table(input.table);
    // Not written by anybody: it is refused, or it happens to be what would be written.
    if let Some(value) = decode(table, &input.key, &input.value) {
        assert_eq!(encode(table, &input.key, value), input.value);
    }

    let stored = encode(table, &input.key, &input.value);
    assert_eq!(decode(table, &input.key, &stored), Some(&input.value[..]));
    let mut damaged = stored.clone();
    for (at, bits) in input.flips.iter().take(1) {
        let at = usize::from(*at) % damaged.len();
        damaged[at] ^= bits;
    }
    // Up to 32 bits next to each other are always found.
    if damaged != stored {
        assert_eq!(decode(table, &input.key, &damaged), None);
    }
});

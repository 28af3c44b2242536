//! Records with a checksum of their own.
//!
//! redb checks its pages when a store is opened, not when it reads one later. So each value is stored with four more bytes at
//! its end: CRC-32 (IEEE, little-endian) over
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the table |
//! | 4 | length of the key, little-endian |
//! | n | the key |
//! | m | the value |
//!
//! A record that turns up in another table or under another key is damage too. CRC-32 finds every error of up to 32 adjacent
//! bits and misses one in 2^32 of the others; it needs no secret, as whoever can write to the file owns the store anyway.

use tombola_protocol::store::Table;

/// Bytes that are added to a value.
pub const CHECKSUM_LEN: usize = 4;

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table.0]);
    // A longer key than this cannot be stored.
    hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// What is stored for `value`.
#[must_use]
pub fn encode(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + CHECKSUM_LEN);
    stored.extend_from_slice(value);
    stored.extend_from_slice(&checksum(table, key, value));
    stored
}

/// The value, if it is what was stored under this key of this table.
#[must_use]
pub fn decode<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = stored.split_last_chunk()?;
    (*sum == checksum(table, key, value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_is_specified() {
        // CRC-32 of 07 02 00 00 00 6b 65 76, by Python's zlib.crc32.
        assert_eq!(encode(Table(7), b"ke", b"v"), [b'v', 0x73, 0xa8, 0x16, 0x1d]);
    }

    #[test]
    fn too_short_is_no_record() {
        for len in 0..CHECKSUM_LEN {
            assert_eq!(decode(Table(0), b"", &vec![0; len]), None);
        }
    }

    proptest! {
        #[test]
        fn what_was_stored_is_read(table: u8, key: Vec<u8>, value: Vec<u8>) {
            let stored = encode(Table(table), &key, &value);
            prop_assert_eq!(decode(Table(table), &key, &stored), Some(&value[..]));
        }

        #[test]
        fn damage_is_found(table: u8, key: Vec<u8>, value: Vec<u8>, at: prop::sample::Index, bits in 1_u8..) {
            let mut stored = encode(Table(table), &key, &value);
            let at = at.index(stored.len());
            stored[at] ^= bits;
            prop_assert_eq!(decode(Table(table), &key, &stored), None);
        }

        #[test]
        fn a_record_belongs_to_its_place(
            table: u8, other in 1_u8.., key: Vec<u8>, value: Vec<u8>, moved in 1_usize..8,
        ) {
            let stored = encode(Table(table), &key, &value);
            prop_assert_eq!(decode(Table(table ^ other), &key, &stored), None);
            // The end of the key does not pass for the beginning of the value.
            let moved = moved.min(key.len());
            if moved > 0 {
                let (rest, tail) = key.split_at(key.len() - moved);
                let stored = [tail, &stored].concat();
                prop_assert_eq!(decode(Table(table), rest, &stored), None);
            }
        }
    }
}

//! A reply block from a stranger is refused or usable: an accepted one is written back byte for byte, names its first
//! hop, and makes a packet of every plaintext that fits, none of any that does not.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_sphinx::{HEADER_LEN, NEXT_HOP_LEN, PACKET_LEN, PLAINTEXT_MAX, SURB_LEN, Surb};

#[derive(Arbitrary, Debug)]
struct Input {
    header: Vec<u8>,
    plaintext_len: u16,
    whole: bool,
}

fuzz_target!(|input: Input| {
    let mut bytes = input.header;
    if input.whole {
        bytes.resize(SURB_LEN, 0x42);
    }
    let Ok(surb) = Surb::from_bytes(&bytes) else { return };
    assert_eq!(bytes.len(), SURB_LEN);
    assert_eq!(surb.to_bytes()[..], bytes[..]);

    let plaintext = vec![1; usize::from(input.plaintext_len)];
    let mut packet = [0; PACKET_LEN];
    match surb.reply(&plaintext, &mut packet) {
        Ok(first_hop) => {
            assert!(plaintext.len() <= PLAINTEXT_MAX);
            assert_eq!(first_hop[..], bytes[HEADER_LEN..HEADER_LEN + NEXT_HOP_LEN]);
            assert_eq!(packet[..HEADER_LEN], bytes[..HEADER_LEN]);
        }
        Err(_) => assert!(plaintext.len() > PLAINTEXT_MAX),
    }
});

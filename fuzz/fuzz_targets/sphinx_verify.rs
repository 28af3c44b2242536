//! No packet makes a hop panic, and no packet that was not built for its key is accepted: without the key, bytes with a
//! valid MAC cannot be found, not even by changing accepted ones.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_sphinx::{PACKET_LEN, SecretKey, verify};

fuzz_target!(|input: &[u8]| {
    let mut packet = [0; PACKET_LEN];
    let len = input.len().min(PACKET_LEN);
    packet[..len].copy_from_slice(&input[..len]);
    let before = packet;
    let refused = verify(&SecretKey::from_bytes([9; 32]), &mut packet).is_err();
    assert!(refused, "a packet out of nothing was accepted");
    assert!(packet == before, "a refused packet was changed");
});

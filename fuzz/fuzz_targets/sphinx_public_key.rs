//! An accepted public key has one encoding, and can be used: a route over it is built. No bytes make the check panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_sphinx::{PublicKey, RouteSecrets};

fuzz_target!(|bytes: [u8; 32]| {
    let Ok(key) = PublicKey::from_bytes(&bytes) else { return };
    assert_eq!(key.to_bytes(), bytes);
    assert!(bytes[31] < 0x80, "the top bit is no part of a canonical encoding");
    assert!(RouteSecrets::derive([3; 32], &[key]).is_ok());
});

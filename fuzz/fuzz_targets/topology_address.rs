//! An accepted address has one spelling (up to upper case), and no text makes the reader panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_topology::ClientAddress;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<ClientAddress>() {
        assert_eq!(address.to_string(), text.to_lowercase());
        assert_eq!(text.len(), ClientAddress::TEXT_LEN);
    }
});

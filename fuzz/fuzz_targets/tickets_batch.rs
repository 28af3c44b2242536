//! A signed batch from a neighbour is refused or written back byte for byte, and whoever seems to have signed it can be
//! computed without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_tickets::{Address, Domain, SignedBatch};

fuzz_target!(|bytes: &[u8]| {
    let Ok(batch) = SignedBatch::from_bytes(bytes) else { return };
    assert_eq!(batch.to_bytes()[..], *bytes);
    let domain = Domain::new(31337, Address::repeat_byte(0xe5));
    assert_eq!(batch.recover(&domain), batch.signature.recover(&batch.header.digest(&domain)));
});

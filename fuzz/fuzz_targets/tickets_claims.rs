//! Claims are refused or written back byte for byte; and whoever has not signed anything has nothing to pay, however the
//! claims look.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_tickets::{
    Address, ClassNumber, Domain, EscrowView, PriceClass, UnixSeconds, WinProbability, WindowNumber, decode,
    encode, encoded_len, verify,
};

/// Every class exists, nothing was claimed; the one issuer has never signed.
struct Escrow;

impl EscrowView for Escrow {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        Some(PriceClass {
            face_value: u128::MAX,
            win_probability: WinProbability::MAX,
            valid_from: UnixSeconds(0),
            expiry: UnixSeconds(u32::MAX),
            epoch: number.0,
        })
    }

    fn is_signer(&self, _: Address, signer: Address, _: &PriceClass) -> bool {
        signer == Address::repeat_byte(1)
    }

    fn is_claimed(&self, _: Address, _: Address, _: WindowNumber) -> bool {
        false
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(windows) = decode(bytes) else { return };
    assert_eq!(encoded_len(&windows), bytes.len());
    assert_eq!(encode(&windows).expect("it was read"), bytes);
    let domain = Domain::new(31337, Address::repeat_byte(0xe5));
    let paid = verify(&domain, Address::ZERO, &windows, UnixSeconds(1), &Escrow);
    assert!(paid.is_err());
});

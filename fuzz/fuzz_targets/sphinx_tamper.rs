//! A packet of any valid route, fields and plaintext arrives as it was sent. With one bit flipped on the way before any
//! hop, it does not: in the header the next hop refuses it, in the payload the end does.

#![no_main]

use std::convert::Infallible;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_sphinx::{
    Admission, Destination, HEADER_LEN, HopField, MAX_HOPS, PACKET_LEN, PLAINTEXT_MAX, RelaySecrets,
    ReplayFilter, ReplayTag, RouteSecrets, Routing, SecretKey, build, payload_of, plaintext, verify,
};

#[derive(Arbitrary, Debug)]
struct Input {
    secret: [u8; 32],
    fields: Vec<([u8; 32], u64)>,
    address: [u8; 32],
    identifier: [u8; 16],
    padding_seed: [u8; 32],
    plaintext: Vec<u8>,
    flip: Option<(u8, u16)>,
}

struct Open;

impl ReplayFilter for Open {
    type Rejected = Infallible;
    fn check_and_insert(&self, _: &ReplayTag) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Admission for Open {
    type Refused = Infallible;
    fn admit(&self, _: &RelaySecrets, _: &Routing) -> Result<(), Infallible> {
        Ok(())
    }
}

fuzz_target!(|input: Input| {
    let fields: Vec<HopField> =
        input.fields.iter().take(MAX_HOPS - 1).map(|&(next, delay_ns)| HopField { next, delay_ns }).collect();
    let hops = fields.len() + 1;
    let keys: Vec<SecretKey> = (1..).take(hops).map(|seed| SecretKey::from_bytes([seed; 32])).collect();
    let public: Vec<_> = keys.iter().map(SecretKey::public_key).collect();
    let message = &input.plaintext[..input.plaintext.len().min(PLAINTEXT_MAX)];
    let destination = Destination { address: input.address, identifier: input.identifier };

    let secrets = RouteSecrets::derive(input.secret, &public).expect("one to five hops");
    let mut packet = [0; PACKET_LEN];
    build(&secrets, &fields, &destination, input.padding_seed, message, &mut packet)
        .expect("everything fits");

    let flip = input.flip.map(|(hop, bit)| (usize::from(hop) % hops, usize::from(bit) % (8 * PACKET_LEN)));
    for (hop, key) in keys.iter().enumerate() {
        if let Some((at, bit)) = flip
            && at == hop
        {
            packet[bit / 8] ^= 1 << (bit % 8);
            if bit / 8 < HEADER_LEN {
                assert!(
                    verify(key, &mut packet).is_err(),
                    "hop {hop} accepted a header with bit {bit} flipped"
                );
                return;
            }
        }
        let Ok(verified) = verify(key, &mut packet) else { panic!("hop {hop} refused a sound header") };
        let Ok(fresh) = verified.check_fresh(&Open);
        let Ok(admitted) = fresh.admit(&Open);
        match (admitted.unwrap().routing, fields.get(hop)) {
            (Routing::Forward { next, delay_ns }, Some(field)) => {
                assert_eq!((next, delay_ns), (field.next, field.delay_ns));
            }
            (Routing::Final(reached), None) => assert_eq!(reached, destination),
            (routing, _) => panic!("hop {hop} of {hops} read {routing:?}"),
        }
    }
    match plaintext(payload_of(&packet)) {
        Ok(arrived) => {
            assert!(flip.is_none(), "a changed payload was accepted");
            assert_eq!(arrived, message);
        }
        Err(error) => assert!(flip.is_some(), "an unchanged payload was refused: {error}"),
    }
});

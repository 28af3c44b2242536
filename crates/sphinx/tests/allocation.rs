//! A node that unwraps packets allocates nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

mod common;

use allocation_counter::measure;
use common::{Free, Packet, Sample, rng};
use tombola_sphinx::{
    Admitted, ReplayFilter, ReplayTag, Routing, payload_of, unwrap_batch, verify, verify_batch,
};

struct Anything;

impl ReplayFilter for Anything {
    type Rejected = ();
    fn check_and_insert(&self, _: &ReplayTag) -> Result<(), ()> {
        Ok(())
    }
}

#[test]
fn the_counter_counts() {
    let allocations = measure(|| {
        std::hint::black_box(vec![0_u8; 100]);
    });
    assert_eq!(allocations.count_total, 1);
}

#[test]
fn nothing_is_allocated_for_a_batch_whatever_is_in_it() {
    const PACKETS: usize = 27;
    let samples: Vec<_> = (0..PACKETS).map(|at| Sample::new(&mut rng(40), 1 + at % 5)).collect();
    let mut packets: Vec<Packet> = samples.iter().map(Sample::build).collect();
    packets[3][0] ^= 1;
    packets[4][31] |= 0x80;
    packets[5][..32].fill(0);
    let admission = Free::default();
    let mut refused = 0;
    let mut ended = 0;
    let allocations = measure(|| {
        let mut admitted: [Option<Admitted<'_>>; PACKETS] = [const { None }; PACKETS];
        verify_batch(
            &mut packets,
            |at| &samples[at].keys[0],
            |at, verified| match verified {
                Ok(verified) => {
                    admitted[at] = verified.check_fresh(&Anything).unwrap().admit(&admission).ok();
                }
                Err(_) => refused += 1,
            },
        );
        unwrap_batch(admitted.into_iter().flatten(), |_, unwrapped| {
            ended += usize::from(matches!(unwrapped.routing, Routing::Final(_)));
        });
    });
    assert_eq!(allocations.count_total, 0);
    assert_eq!((refused, ended), (3, 5));

    // And the batch left in each buffer what a single packet leaves there.
    for (at, (sample, packet)) in samples.iter().zip(&packets).enumerate() {
        if (3..6).contains(&at) {
            continue;
        }
        let mut alone = sample.build();
        let allocations = measure(|| {
            let fresh = verify(&sample.keys[0], &mut alone).unwrap().check_fresh(&Anything).unwrap();
            let _unwrapped = fresh.admit(&admission).unwrap().unwrap();
            let _ = tombola_sphinx::plaintext(payload_of(&alone));
        });
        assert_eq!(allocations.count_total, 0);
        assert!(alone == *packet, "packet {at}");
    }
}

#[test]
fn nothing_is_allocated_to_build() {
    let sample = Sample::new(&mut rng(41), 5);
    let keys: Vec<_> = sample.keys.iter().map(tombola_sphinx::SecretKey::public_key).collect();
    let mut packet = Box::new([0; tombola_sphinx::PACKET_LEN]);
    let allocations = measure(|| {
        let secrets = tombola_sphinx::RouteSecrets::derive(sample.secret, &keys).unwrap();
        tombola_sphinx::build(&secrets, &sample.fields, &sample.destination, [0; 32], b"hello", &mut packet)
            .unwrap();
    });
    assert_eq!(allocations.count_total, 0);
}

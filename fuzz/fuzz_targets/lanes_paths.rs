//! Whatever the points, scalars and keys: every path gives the bytes that the portable one gives, and the table gives those
//! of the ladder. For any number of points up to a batch, so that each lane is once the last.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_lanes::sha256::Expansion;
use tombola_lanes::{
    BATCH, Kept, Multiples, Path, Single, blake2b, chacha20, keccak, sha256, x25519, x25519_base,
};

#[derive(Arbitrary, Debug)]
struct Input {
    lanes: Vec<Lane>,
    /// The label of an expansion, and what is hashed and encrypted.
    data: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Lane {
    point: Point,
    scalars: [[u8; 32]; 2],
}

#[derive(Arbitrary, Debug)]
enum Point {
    /// Of a secret key: on the curve.
    Public([u8; 32]),
    /// Any bytes: on the curve or its twist, in odd encodings.
    Any([u8; 32]),
    /// Near 0, p and 2^255.
    Near { low: u8, high: bool, top: bool },
}

impl Point {
    fn bytes(&self) -> [u8; 32] {
        match self {
            Self::Public(secret) => {
                let mut public = [[0; 32]];
                x25519_base(Path::PORTABLE, &[secret], &mut public);
                public[0]
            }
            Self::Any(bytes) => *bytes,
            Self::Near { low, high, top } => {
                let mut bytes = [if *high { 0xff } else { 0 }; 32];
                bytes[0] = *low;
                bytes[31] = (bytes[31] & 0x7f) | (u8::from(*top) << 7);
                bytes
            }
        }
    }
}

fuzz_target!(|input: Input| {
    let lanes = &input.lanes[..input.lanes.len().min(BATCH)];
    let points: Vec<_> = lanes.iter().map(|lane| lane.point.bytes()).collect();
    let points: Vec<_> = points.iter().collect();
    let scalars: [Vec<_>; 2] = [0, 1].map(|which| lanes.iter().map(|lane| &lane.scalars[which]).collect());
    // Below 2^252, and thus below l, and not zero.
    let reduced: Vec<[u8; 32]> = lanes
        .iter()
        .map(|lane| {
            let mut scalar = lane.scalars[0];
            scalar[0] |= 1;
            scalar[31] &= 0x0f;
            scalar
        })
        .collect();
    let keys: Vec<[u8; 32]> = lanes.iter().map(|lane| lane.scalars[0]).collect();
    let hash_keys: Vec<[u8; 64]> =
        lanes.iter().map(|lane| std::array::from_fn(|at| lane.scalars[at / 32][at % 32])).collect();
    let data = &input.data[..input.data.len().min(1024)];

    let kept: Option<Vec<_>> = points.iter().map(|point| Kept::new(point)).collect();

    let mut expected = None;
    for path in [Path::PORTABLE].into_iter().chain(Path::all()) {
        let mut products = Vec::new();
        let mut multiples = Multiples::new(path);
        multiples.set(&points);
        for scalars in &scalars {
            let mut climbed = vec![[0; 32]; lanes.len()];
            x25519(path, &points, scalars, &mut climbed);
            let mut looked_up = vec![[0; 32]; lanes.len()];
            multiples.multiply(scalars, &mut looked_up);
            assert_eq!(climbed, looked_up, "{}", path.name());
            let mut public = vec![[0; 32]; lanes.len()];
            x25519_base(path, scalars, &mut public);
            products.push((climbed, public));
        }
        if let Some(kept) = &kept {
            multiples.set_kept(&kept.iter().collect::<Vec<_>>());
            for (scalars, (climbed, _)) in scalars.iter().zip(&products) {
                let mut looked_up = vec![[0; 32]; lanes.len()];
                multiples.multiply(scalars, &mut looked_up);
                assert_eq!(climbed, &looked_up, "{}", path.name());
            }
            let mut eighths = vec![[0; 32]; lanes.len()];
            multiples.multiply_eighths(&reduced.iter().collect::<Vec<_>>(), &mut eighths);
            products.push((eighths, Vec::new()));
        }
        let mut expanded = vec![[0; 64]; lanes.len()];
        sha256::hkdf(path, b"", &keys, &[Expansion { info: data, range: 0..64 }], &mut expanded);
        let mut hashes = vec![[0; 32]; lanes.len()];
        let messages = vec![data; lanes.len()];
        blake2b::keyed_256(path, &hash_keys.iter().collect::<Vec<_>>(), &messages, &mut hashes);
        let mut digests = vec![[0; 32]; lanes.len()];
        keccak::keccak_256(path, &keys, &mut digests);
        let mut stream = data.to_vec();
        keys.iter().for_each(|key| chacha20::apply(path, key, &mut stream));
        let all = (products, expanded, hashes, digests, stream);
        match &expected {
            None => expected = Some(all),
            Some(expected) => assert_eq!(expected, &all, "{}", path.name()),
        }
    }
    for (lane, point) in lanes.iter().zip(&points) {
        let mut climbed = [[0; 32]];
        x25519(Path::PORTABLE, &[point], &[&lane.scalars[0]], &mut climbed);
        assert_eq!(Single::new(point).multiply(&lane.scalars[0]), climbed[0]);
    }
});

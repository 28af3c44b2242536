//! Hashes and the stream, on every path, against the crates that others keep.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::Hmac;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::Sha256;
use sha3::{Digest as _, Keccak256};
use tombola_lanes::sha256::Expansion;
use tombola_lanes::{Path, blake2b, chacha20 as stream, keccak, sha256};

fn bytes<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn data(rng: &mut ChaCha20Rng, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    rng.fill_bytes(&mut data);
    data
}

/// Every number of inputs up to two full vectors and one, so that each lane is once the last.
#[test]
fn hkdf_is_that_of_the_crate() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    for path in Path::all() {
        for count in 0..=33 {
            let salt = data(&mut rng, count);
            let labels = [data(&mut rng, 97), data(&mut rng, count % 7), data(&mut rng, 54 + count)];
            let ranges = [0..288, 288..304, 304..337];
            let expansions: Vec<_> =
                labels.iter().zip(ranges).map(|(info, range)| Expansion { info, range }).collect();
            let keys: Vec<[u8; 32]> = (0..count).map(|_| bytes(&mut rng)).collect();
            let mut out = vec![[0; 337]; count];
            sha256::hkdf(path, &salt, &keys, &expansions, &mut out);
            for (key, out) in keys.iter().zip(&out) {
                let hkdf = Hkdf::<Sha256>::new(Some(&salt), key);
                for Expansion { info, range } in &expansions {
                    let mut expected = vec![0; range.len()];
                    hkdf.expand(info, &mut expected).unwrap();
                    assert_eq!(out[range.clone()], expected, "{} of {count}", path.name());
                }
            }
            let short: Vec<[u8; 16]> = (0..count).map(|_| bytes(&mut rng)).collect();
            let mut out = vec![[0; 192]; count];
            sha256::hkdf(path, &salt, &short, &[Expansion { info: &labels[0], range: 0..192 }], &mut out);
            for (key, out) in short.iter().zip(&out) {
                let mut expected = [0; 192];
                Hkdf::<Sha256>::new(Some(&salt), key).expand(&labels[0], &mut expected).unwrap();
                assert_eq!(*out, expected, "{} of {count}", path.name());
            }
        }
    }
}

#[test]
fn the_longest_expansion_is_that_of_the_crate() {
    for path in Path::all() {
        let keys = [[7; 32]; 16];
        let mut found = vec![[0; 8160]; keys.len()];
        sha256::hkdf(path, b"salt", &keys, &[Expansion { info: b"all", range: 0..8160 }], &mut found);
        let mut expected = [0; 8160];
        Hkdf::<Sha256>::new(Some(b"salt"), &keys[0]).expand(b"all", &mut expected).unwrap();
        assert!(found.iter().all(|found| *found == expected), "{}", path.name());
    }
}

#[test]
#[should_panic(expected = "an expansion has at most 8160 bytes")]
fn no_expansion_repeats_itself() {
    let mut out = [[0; 8161]];
    sha256::hkdf(Path::PORTABLE, b"", &[[7; 32]], &[Expansion { info: b"", range: 0..8161 }], &mut out);
}

fn hmac_of<const M: usize>(path: Path, rng: &mut ChaCha20Rng, count: usize) {
    let keys: Vec<[u8; 16]> = (0..count).map(|_| bytes(rng)).collect();
    let messages: Vec<[u8; M]> = (0..count).map(|_| bytes(rng)).collect();
    let messages: Vec<_> = messages.iter().collect();
    let mut out = vec![[0; 16]; count];
    sha256::hmac(path, &keys, &messages, &mut out);
    for ((key, message), out) in keys.iter().zip(messages).zip(out) {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
        mac.update(message);
        assert_eq!(out, mac.finalize().into_bytes()[..16], "{} of {count}, {M} bytes", path.name());
    }
}

#[test]
fn hmac_is_that_of_the_crate() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    for path in Path::all() {
        for count in 0..=33 {
            // A whole routing part, and every way in which the padding can fall.
            hmac_of::<300>(path, &mut rng, count);
            hmac_of::<0>(path, &mut rng, count);
            hmac_of::<52>(path, &mut rng, count);
            hmac_of::<56>(path, &mut rng, count);
            hmac_of::<60>(path, &mut rng, count);
            hmac_of::<64>(path, &mut rng, count);
        }
    }
}

#[test]
fn keyed_blake2b_is_that_of_the_crate() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    for path in Path::all() {
        for len in [0, 1, 127, 128, 129, 256, 2016] {
            for count in 0..=17 {
                let keys: Vec<[u8; 64]> = (0..count).map(|_| bytes(&mut rng)).collect();
                let messages: Vec<_> = (0..count).map(|_| data(&mut rng, len)).collect();
                let mut out = vec![[0; 32]; count];
                let messages: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
                blake2b::keyed_256(path, &keys.iter().collect::<Vec<_>>(), &messages, &mut out);
                for ((key, message), out) in keys.iter().zip(messages).zip(out) {
                    let mut mac = Blake2bMac::<U32>::new(key.into());
                    mac.update(message);
                    assert_eq!(out, *mac.finalize().into_bytes(), "{} of {count}, {len} bytes", path.name());
                }
            }
        }
    }
}

fn keccak_of<const N: usize>(path: Path, rng: &mut ChaCha20Rng, count: usize) {
    let messages: Vec<[u8; N]> = (0..count).map(|_| bytes(rng)).collect();
    let mut out = vec![[0; 32]; count];
    keccak::keccak_256(path, &messages, &mut out);
    for (message, out) in messages.iter().zip(out) {
        assert_eq!(out, *Keccak256::digest(message), "{} of {count}, {N} bytes", path.name());
    }
}

#[test]
fn keccak_is_that_of_the_crate() {
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    for path in Path::all() {
        for count in 0..=17 {
            keccak_of::<0>(path, &mut rng, count);
            keccak_of::<1>(path, &mut rng, count);
            keccak_of::<16>(path, &mut rng, count);
            keccak_of::<40>(path, &mut rng, count);
            keccak_of::<65>(path, &mut rng, count);
            keccak_of::<126>(path, &mut rng, count);
            keccak_of::<127>(path, &mut rng, count);
        }
    }
    // With the padding of Keccak, not that of SHA-3.
    let mut empty = [[0; 32]; 2];
    keccak::keccak_256(Path::best(), &[[]; 2], &mut empty);
    assert_eq!(empty[0][..4], [0xc5, 0xd2, 0x46, 0x01]);
}

#[test]
fn the_stream_is_that_of_the_crate() {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    for path in Path::all() {
        for len in (0..300).chain([1023, 1024, 1025, 2016, 2048, 4000]) {
            let key = bytes(&mut rng);
            let mut ours = data(&mut rng, len);
            let mut theirs = ours.clone();
            stream::apply(path, &key, &mut ours);
            ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(&mut theirs);
            assert_eq!(ours, theirs, "{}, {len} bytes", path.name());
        }
    }
}

//! LIONESS, the wide-block cipher of the payload (Anderson and Biham, "Two practical and provably secure block
//! ciphers: BEAR and LION", section 6), with ChaCha20 as stream and keyed BLAKE2b-256 as hash.
//!
//! Left is the first 32 bytes, right the rest. Key: k1 32 | k2 64 | k3 32 | k4 64.
//!
//! ```text
//! right ^= ChaCha20(key = left ^ k1)      nonce zero: no key is ever used twice
//! left  ^= BLAKE2b(k2, right)
//! right ^= ChaCha20(key = left ^ k3)
//! left  ^= BLAKE2b(k4, right)
//! ```
//!
//! Every bit of the output depends on every bit of the input in both directions, so a changed bit at any hop makes
//! noise of the whole payload at every later one.

use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::layout::{PAYLOAD_INFO, PAYLOAD_KEY_LEN, PAYLOAD_LEN, PAYLOAD_SALT, SEED_LEN, xor};

const LEFT_LEN: usize = 32;
const HASH_KEY_LEN: usize = 64;
/// What ChaCha20 computes at once in vector registers: four blocks.
const GROUP_LEN: usize = 4 * 64;
const _: () = assert!(2 * (LEFT_LEN + HASH_KEY_LEN) == PAYLOAD_KEY_LEN);

/// A payload cipher with its key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Lioness {
    streams: [[u8; LEFT_LEN]; 2],
    hashes: [[u8; HASH_KEY_LEN]; 2],
}

impl Lioness {
    /// Derives the key from the seed that a hop's secret, or a reply block, holds.
    pub(crate) fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let mut key = Zeroizing::new([0; PAYLOAD_KEY_LEN]);
        Hkdf::<Sha256>::new(Some(PAYLOAD_SALT), seed)
            .expand(PAYLOAD_INFO, &mut *key)
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        let mut cipher = Self { streams: [[0; LEFT_LEN]; 2], hashes: [[0; HASH_KEY_LEN]; 2] };
        let rounds = cipher.streams.iter_mut().zip(&mut cipher.hashes);
        for ((stream, hash), half) in rounds.zip(key.chunks_exact(LEFT_LEN + HASH_KEY_LEN)) {
            stream.copy_from_slice(&half[..LEFT_LEN]);
            hash.copy_from_slice(&half[LEFT_LEN..]);
        }
        cipher
    }

    /// Adds a layer.
    pub(crate) fn encrypt(&self, payload: &mut [u8; PAYLOAD_LEN]) {
        let (left, right) = halves(payload);
        stream(&self.streams[0], left, right);
        hash(&self.hashes[0], left, right);
        stream(&self.streams[1], left, right);
        hash(&self.hashes[1], left, right);
    }

    /// Removes a layer.
    pub(crate) fn decrypt(&self, payload: &mut [u8; PAYLOAD_LEN]) {
        let (left, right) = halves(payload);
        hash(&self.hashes[1], left, right);
        stream(&self.streams[1], left, right);
        hash(&self.hashes[0], left, right);
        stream(&self.streams[0], left, right);
    }
}

fn halves(payload: &mut [u8; PAYLOAD_LEN]) -> (&mut [u8; LEFT_LEN], &mut [u8]) {
    payload.split_first_chunk_mut().expect("a payload is longer than its left part")
}

fn stream(key: &[u8; LEFT_LEN], left: &[u8; LEFT_LEN], right: &mut [u8]) {
    let mut key = Zeroizing::new(*key);
    xor(key.as_mut_slice(), left);
    let mut cipher = ChaCha20::new((&*key).into(), &[0; 12].into());
    // The blocks behind the last whole group are computed one by one, at a third of the speed: so make a group of
    // them.
    let (whole, rest) = right.split_at_mut(right.len() / GROUP_LEN * GROUP_LEN);
    cipher.apply_keystream(whole);
    let mut group = [0; GROUP_LEN];
    group[..rest.len()].copy_from_slice(rest);
    cipher.apply_keystream(&mut group);
    rest.copy_from_slice(&group[..rest.len()]);
}

fn hash(key: &[u8; HASH_KEY_LEN], left: &mut [u8; LEFT_LEN], right: &[u8]) {
    let mut mac = Blake2bMac::<U32>::new(key.into());
    mac.update(right);
    xor(left, &mac.finalize().into_bytes());
}

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
//!
//! Payloads of several packets are treated together, each under its own key: so their hashes share vector registers.

use tombola_lanes::sha256::{Expansion, hkdf};
use tombola_lanes::{BATCH, Erasing, Path, blake2b, chacha20};

use crate::layout::{PAYLOAD_INFO, PAYLOAD_KEY_LEN, PAYLOAD_LEN, PAYLOAD_SALT, SEED_LEN, xor};

const LEFT_LEN: usize = 32;
/// Where the parts of a key begin.
const K1: usize = 0;
const K2: usize = K1 + LEFT_LEN;
const K3: usize = K2 + blake2b::KEY_LEN;
const K4: usize = K3 + LEFT_LEN;
const _: () = assert!(K4 + blake2b::KEY_LEN == PAYLOAD_KEY_LEN);
const _: () = assert!(LEFT_LEN == chacha20::KEY_LEN && LEFT_LEN == blake2b::HASH_LEN);

/// Adds a layer to each payload, under the key that is derived from its seed. At most [`BATCH`] payloads.
pub(crate) fn encrypt(path: Path, seeds: &[[u8; SEED_LEN]], payloads: Payloads<'_, '_>) {
    let keys = derive(path, seeds);
    let keys = &keys[..seeds.len()];
    stream::<K1>(path, keys, payloads);
    hash::<K2>(path, keys, payloads);
    stream::<K3>(path, keys, payloads);
    hash::<K4>(path, keys, payloads);
}

/// Removes a layer from each payload. At most [`BATCH`] payloads.
pub(crate) fn decrypt(path: Path, seeds: &[[u8; SEED_LEN]], payloads: Payloads<'_, '_>) {
    let keys = derive(path, seeds);
    let keys = &keys[..seeds.len()];
    hash::<K4>(path, keys, payloads);
    stream::<K3>(path, keys, payloads);
    hash::<K2>(path, keys, payloads);
    stream::<K1>(path, keys, payloads);
}

/// Payloads to be treated together; a slot without one is passed over, and so are those behind the last seed. None before
/// another one may be empty.
type Payloads<'a, 'p> = &'a mut [Option<&'p mut [u8; PAYLOAD_LEN]>];

type Keys = [[u8; PAYLOAD_KEY_LEN]; BATCH];

fn derive(path: Path, seeds: &[[u8; SEED_LEN]]) -> Erasing<Keys> {
    let mut keys = Erasing::new([[0; PAYLOAD_KEY_LEN]; BATCH]);
    let whole = Expansion { info: PAYLOAD_INFO, range: 0..PAYLOAD_KEY_LEN };
    hkdf(path, PAYLOAD_SALT, seeds, &[whole], &mut keys[..seeds.len()]);
    keys
}

fn stream<const AT: usize>(path: Path, keys: &[[u8; PAYLOAD_KEY_LEN]], payloads: Payloads<'_, '_>) {
    for (key, payload) in keys.iter().zip(payloads.iter_mut().flatten()) {
        let (left, right) = payload.split_first_chunk_mut::<LEFT_LEN>().expect(LONGER);
        let mut key = Erasing::new(part(key, AT));
        xor(key.as_mut_slice(), left);
        chacha20::apply(path, &key, right);
    }
}

fn hash<const AT: usize>(path: Path, keys: &[[u8; PAYLOAD_KEY_LEN]], payloads: Payloads<'_, '_>) {
    let mut hash_keys = [&[0; blake2b::KEY_LEN]; BATCH];
    let mut messages = [&[][..]; BATCH];
    for ((slot, message), (key, payload)) in
        hash_keys.iter_mut().zip(&mut messages).zip(keys.iter().zip(payloads.iter().flatten()))
    {
        *slot = key[AT..].first_chunk().expect("the parts lie within the key");
        *message = &payload[LEFT_LEN..];
    }
    let mut hashes = Erasing::new([[0; LEFT_LEN]; BATCH]);
    let count = keys.len();
    blake2b::keyed_256(path, &hash_keys[..count], &messages[..count], &mut hashes[..count]);
    for (payload, hash) in payloads.iter_mut().flatten().zip(hashes.iter()) {
        xor(&mut payload[..LEFT_LEN], hash);
    }
}

const LONGER: &str = "a payload is longer than its left part";

fn part(key: &[u8; PAYLOAD_KEY_LEN], at: usize) -> [u8; LEFT_LEN] {
    *key[at..].first_chunk().expect("the parts lie within the key")
}

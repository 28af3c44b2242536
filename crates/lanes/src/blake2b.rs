//! Keyed BLAKE2b-256 (RFC 7693) of several messages of the same length at a time.

use crate::erase::{Leavings, erase};
use crate::path::{Isa, Lanes, Path, Work};
#[cfg(target_arch = "x86_64")]
use crate::vector::{
    with_avx2, with_avx512,
    words::{EightWords, FourWords},
};
use blake2::Blake2bMac;
use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};

/// Words of 64 bits in lanes, as BLAKE2b computes with them.
pub(crate) trait Word64: Lanes {
    /// The same word in all lanes.
    fn splat(proof: Self::Proof, word: u64) -> Self;
    /// The sixteen little-endian words of a block for each lane.
    fn load_block(proof: Self::Proof, lanes: &[&[u8; BLOCK_LEN]]) -> [Self; 16];
    /// Writes the word of each lane.
    fn store(self, lanes: &mut [u64]);
    /// Adds modulo 2^64.
    fn add(self, other: Self) -> Self;
    /// Adds bit by bit.
    fn xor(self, other: Self) -> Self;
    /// Rotates to the right, by 32, 24, 16 or 63 bits.
    fn rotate<const BITS: i32>(self) -> Self;
}

/// Length of a key in bytes: the longest that BLAKE2b takes.
pub const KEY_LEN: usize = 64;
/// Length of a hash in bytes.
pub const HASH_LEN: usize = 32;
/// Length of a block in bytes.
pub(crate) const BLOCK_LEN: usize = 128;
/// Lanes, at most.
pub(crate) const LANES_MAX: usize = 8;

/// The first state (RFC 7693, section 2.6).
const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
/// Digest length, key length, fan-out and depth (section 2.5), added to the first word.
const PARAMETERS: u64 = HASH_LEN as u64 | (KEY_LEN as u64) << 8 | 1 << 16 | 1 << 24;

/// Which word of the message goes where in a round (section 2.7).
const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

/// Keyed BLAKE2b-256 of each message under its key.
///
/// Takes time that depends on the length only.
///
/// # Panics
///
/// If there are not as many messages and outputs as keys, or the messages differ in length.
pub fn keyed_256(path: Path, keys: &[&[u8; KEY_LEN]], messages: &[&[u8]], out: &mut [[u8; HASH_LEN]]) {
    assert!(keys.len() == messages.len() && keys.len() == out.len(), "one message and output per key");
    assert!(messages.windows(2).all(|two| two[0].len() == two[1].len()), "messages of one length");
    let lanes = path.words();
    for ((keys, messages), out) in keys.chunks(lanes).zip(messages.chunks(lanes)).zip(out.chunks_mut(lanes)) {
        match path.0 {
            // A few are faster one after the other.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) | Isa::Few(proof) if keys.len() > 1 => {
                with_avx512::<EightWords>(proof, Keyed { keys, messages, out });
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) if keys.len() > 1 => {
                with_avx2::<FourWords>(proof, Keyed { keys, messages, out });
            }
            _ => {
                for ((key, message), out) in keys.iter().zip(messages).zip(out) {
                    let mut mac = Blake2bMac::<U32>::new((*key).into());
                    mac.update(message);
                    out.copy_from_slice(&mac.finalize().into_bytes());
                }
            }
        }
    }
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
struct Keyed<'a> {
    keys: &'a [&'a [u8; KEY_LEN]],
    messages: &'a [&'a [u8]],
    out: &'a mut [[u8; HASH_LEN]],
}

impl<W: Word64> Work<W> for Keyed<'_> {
    const LEAVES: Leavings = Leavings::Small;

    #[inline(always)]
    fn run(self, proof: W::Proof) {
        let mut state = [W::splat(proof, 0); 8];
        let mut at = 0;
        while at < 8 {
            state[at] = W::splat(proof, START[at]);
            at += 1;
        }
        state[0] = state[0].xor(W::splat(proof, PARAMETERS));
        // The key is the first block, filled up with zeros; lanes without a message hash something else.
        let message_len = self.messages[0].len();
        let mut padded = [[0; BLOCK_LEN]; LANES_MAX];
        for (padded, key) in padded.iter_mut().zip(self.keys) {
            padded[..KEY_LEN].copy_from_slice(*key);
        }
        let mut hashed: usize = 0;
        loop {
            let mut blocks = padded.each_ref();
            // Behind the key block, whole blocks are read where they are; the last one was copied, and filled up.
            let from = hashed.saturating_sub(BLOCK_LEN);
            let is_whole = hashed >= BLOCK_LEN && message_len - from > BLOCK_LEN;
            if is_whole {
                for (block, message) in blocks.iter_mut().zip(self.messages) {
                    *block = message[from..].first_chunk().expect("a whole block");
                }
            }
            let is_last = message_len == 0 || hashed >= BLOCK_LEN && !is_whole;
            hashed = if is_last && message_len > 0 { BLOCK_LEN + message_len } else { hashed + BLOCK_LEN };
            compress(proof, &mut state, &blocks, hashed, is_last);
            if is_last {
                break;
            }
            let rest = BLOCK_LEN + message_len - hashed;
            if rest <= BLOCK_LEN {
                for (padded, message) in padded.iter_mut().zip(self.messages) {
                    padded.fill(0);
                    padded[..rest].copy_from_slice(&message[message_len - rest..]);
                }
            }
        }
        erase(&mut padded);
        write_hashes(&state, self.out);
    }
}

/// Writes the first words of a state as the hash of each lane.
#[inline(always)]
pub(crate) fn write_hashes<W: Word64>(state: &[W], out: &mut [[u8; HASH_LEN]]) {
    let mut words = [[0; LANES_MAX]; HASH_LEN / 8];
    let mut at = 0;
    while at < words.len() {
        state[at].store(&mut words[at][..W::LANES]);
        at += 1;
    }
    for (lane, out) in out.iter_mut().enumerate() {
        for (bytes, word) in out.as_chunks_mut().0.iter_mut().zip(&words) {
            *bytes = word[lane].to_le_bytes();
        }
    }
    erase(&mut words);
}

/// Hashes a block in each lane, behind `hashed` bytes in all (RFC 7693, section 3.2).
#[inline(always)]
fn compress<W: Word64>(
    proof: W::Proof,
    state: &mut [W; 8],
    blocks: &[&[u8; BLOCK_LEN]; LANES_MAX],
    hashed: usize,
    last: bool,
) {
    let m = W::load_block(proof, &blocks[..W::LANES]);
    let mut v = [state[0]; 16];
    let mut at = 0;
    while at < 8 {
        v[at] = state[at];
        v[at + 8] = W::splat(proof, START[at]);
        at += 1;
    }
    v[12] = v[12].xor(W::splat(proof, hashed as u64));
    v[14] = v[14].xor(W::splat(proof, if last { u64::MAX } else { 0 }));
    let mut round = 0;
    while round < 12 {
        let s = &SIGMA[round % 10];
        mix(&mut v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(&mut v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(&mut v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(&mut v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(&mut v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(&mut v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(&mut v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(&mut v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
        round += 1;
    }
    let mut at = 0;
    while at < 8 {
        state[at] = state[at].xor(v[at]).xor(v[at + 8]);
        at += 1;
    }
}

/// G (section 3.1).
#[inline(always)]
fn mix<W: Word64>(v: &mut [W; 16], a: usize, b: usize, c: usize, d: usize, x: W, y: W) {
    v[a] = v[a].add(v[b]).add(x);
    v[d] = v[d].xor(v[a]).rotate::<32>();
    v[c] = v[c].add(v[d]);
    v[b] = v[b].xor(v[c]).rotate::<24>();
    v[a] = v[a].add(v[b]).add(y);
    v[d] = v[d].xor(v[a]).rotate::<16>();
    v[c] = v[c].add(v[d]);
    v[b] = v[b].xor(v[c]).rotate::<63>();
}

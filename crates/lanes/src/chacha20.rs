//! The ChaCha20 stream (RFC 8439, section 2.4) from block 0 with nonce zero: for keys that are used once.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use crate::erase::{Leavings, erase};
use crate::path::{Isa, Lanes, Path, Work};
#[cfg(target_arch = "x86_64")]
use crate::vector::{with_avx512, words::Sixteen};

/// Words of 32 bits in lanes, as ChaCha20 computes with them: one block in each lane.
pub(crate) trait Word32: Lanes {
    /// The same word in all lanes.
    fn splat32(proof: Self::Proof, word: u32) -> Self;
    /// The numbers of the lanes.
    fn numbers(proof: Self::Proof) -> Self;
    /// Adds modulo 2^32.
    fn add32(self, other: Self) -> Self;
    /// Adds bit by bit.
    fn xor32(self, other: Self) -> Self;
    /// Rotates to the left, by 16, 12, 8 or 7 bits.
    fn rotate32<const BITS: i32>(self) -> Self;
    /// Writes a block of sixteen little-endian words for each lane, lane after lane.
    fn store_blocks(words: [Self; 16], out: &mut [[u8; BLOCK_LEN]; LANES]);
}

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
pub(crate) const BLOCK_LEN: usize = 64;
/// Blocks side by side.
pub(crate) const LANES: usize = 16;
/// What the crate `chacha20` computes at once in vector registers: four blocks.
const GROUP_LEN: usize = 4 * BLOCK_LEN;

/// Adds the key stream to the data.
///
/// Takes time that depends on the length only.
///
/// # Panics
///
/// If there are 2^32 blocks or more, at which the stream ends.
pub fn apply(path: Path, key: &[u8; KEY_LEN], data: &mut [u8]) {
    match path.0 {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) | Isa::Few(proof) => {
            assert!(u32::try_from(data.len().div_ceil(BLOCK_LEN)).is_ok(), "the stream has 2^32 blocks");
            with_avx512::<Sixteen>(proof, Apply { key, data });
        }
        _ => {
            let mut cipher = ChaCha20::new(key.into(), &[0; 12].into());
            // The blocks behind the last whole group are computed one by one, at a third of the speed: so make a group
            // of them.
            let (whole, rest) = data.split_at_mut(data.len() / GROUP_LEN * GROUP_LEN);
            cipher.apply_keystream(whole);
            let mut group = [0_u8; GROUP_LEN];
            group[..rest.len()].copy_from_slice(rest);
            cipher.apply_keystream(&mut group);
            rest.copy_from_slice(&group[..rest.len()]);
            erase(&mut group);
        }
    }
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
struct Apply<'a> {
    key: &'a [u8; KEY_LEN],
    data: &'a mut [u8],
}

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

impl<W: Word32> Work<W> for Apply<'_> {
    const LEAVES: Leavings = Leavings::Small;

    #[inline(always)]
    fn run(self, proof: W::Proof) {
        let mut start = [W::splat32(proof, 0); 16];
        let mut at = 0;
        while at < 4 {
            start[at] = W::splat32(proof, CONSTANTS[at]);
            at += 1;
        }
        for (word, bytes) in start[4..12].iter_mut().zip(self.key.as_chunks().0) {
            *word = W::splat32(proof, u32::from_le_bytes(*bytes));
        }
        start[12] = W::numbers(proof);
        for data in self.data.chunks_mut(LANES * BLOCK_LEN) {
            let mut v = start;
            let mut round = 0;
            while round < 10 {
                quarter(&mut v, 0, 4, 8, 12);
                quarter(&mut v, 1, 5, 9, 13);
                quarter(&mut v, 2, 6, 10, 14);
                quarter(&mut v, 3, 7, 11, 15);
                quarter(&mut v, 0, 5, 10, 15);
                quarter(&mut v, 1, 6, 11, 12);
                quarter(&mut v, 2, 7, 8, 13);
                quarter(&mut v, 3, 4, 9, 14);
                round += 1;
            }
            let mut at = 0;
            while at < 16 {
                v[at] = v[at].add32(start[at]);
                at += 1;
            }
            let mut stream = [[0; BLOCK_LEN]; LANES];
            W::store_blocks(v, &mut stream);
            for (byte, stream) in data.iter_mut().zip(stream.as_flattened()) {
                *byte ^= stream;
            }
            start[12] = start[12].add32(W::splat32(proof, LANES as u32));
        }
    }
}

#[inline(always)]
fn quarter<W: Word32>(v: &mut [W; 16], a: usize, b: usize, c: usize, d: usize) {
    v[a] = v[a].add32(v[b]);
    v[d] = v[d].xor32(v[a]).rotate32::<16>();
    v[c] = v[c].add32(v[d]);
    v[b] = v[b].xor32(v[c]).rotate32::<12>();
    v[a] = v[a].add32(v[b]);
    v[d] = v[d].xor32(v[a]).rotate32::<8>();
    v[c] = v[c].add32(v[d]);
    v[b] = v[b].xor32(v[c]).rotate32::<7>();
}

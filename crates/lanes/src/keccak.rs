//! Keccak-256, as Ethereum has it, of several short messages at a time.

use crate::blake2b::{LANES_MAX, Word64, write_hashes};
use crate::erase::{Leavings, SMALL, erase, erase_stack};
use crate::path::{Isa, Path, Work};
#[cfg(target_arch = "x86_64")]
use crate::vector::{
    with_avx2, with_avx512,
    words::{EightWords, FourWords},
};
use sha3::{Digest, Keccak256};

/// What Keccak needs of words in lanes, besides.
pub(crate) trait KeccakWord: Word64 {
    /// Rotates to the left, by 1 to 63 bits.
    fn rotate_left<const BITS: i32>(self) -> Self;
    /// Exclusive or of three.
    fn xor3(self, b: Self, c: Self) -> Self;
    /// `self ^ (!b & c)`.
    fn chi(self, b: Self, c: Self) -> Self;
}

/// Length of a hash in bytes.
pub const HASH_LEN: usize = 32;
/// Length of a message in bytes, at most: with its padding it is one block.
pub const MESSAGE_MAX: usize = BLOCK_LEN - 1;
/// Of the 136 bytes of a block those before the last word.
const BLOCK_LEN: usize = 128;
/// What is added to the first word in each round (FIPS 202, section 3.2.5).
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Keccak-256 of each message, with the padding from before SHA-3. In constant time.
///
/// # Panics
///
/// If there are not as many outputs as messages. Longer messages than [`MESSAGE_MAX`] do not compile.
pub fn keccak_256<const N: usize>(path: Path, messages: &[[u8; N]], out: &mut [[u8; HASH_LEN]]) {
    const { assert!(N <= MESSAGE_MAX) };
    assert_eq!(messages.len(), out.len(), "one output per message");
    let lanes = path.words();
    for (messages, out) in messages.chunks(lanes).zip(out.chunks_mut(lanes)) {
        match path.0 {
            // One is as fast by itself.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) | Isa::Few(proof) if messages.len() > 1 => {
                with_avx512::<EightWords>(proof, Hash { messages, out });
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) if messages.len() > 1 => {
                with_avx2::<FourWords>(proof, Hash { messages, out });
            }
            _ => {
                one_by_one(messages, out);
                erase_stack::<SMALL>();
            }
        }
    }
}

/// Not inlined, so that what the crate leaves on the stack, which erases nothing, lies below its caller's frame.
#[inline(never)]
fn one_by_one<const N: usize>(messages: &[[u8; N]], out: &mut [[u8; HASH_LEN]]) {
    for (message, out) in messages.iter().zip(out) {
        *out = Keccak256::digest(message).into();
    }
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
struct Hash<'a, const N: usize> {
    messages: &'a [[u8; N]],
    out: &'a mut [[u8; HASH_LEN]],
}

impl<W: KeccakWord, const N: usize> Work<W> for Hash<'_, N> {
    const LEAVES: Leavings = Leavings::Small;

    #[inline(always)]
    fn run(self, proof: W::Proof) {
        // Lanes without a message hash something else.
        let mut blocks = [[0; BLOCK_LEN]; LANES_MAX];
        for (block, message) in blocks.iter_mut().zip(self.messages) {
            block[..N].copy_from_slice(message);
            block[N] = 1;
        }
        let words = W::load_block(proof, &blocks.each_ref()[..W::LANES]);
        erase(&mut blocks);
        let mut state = [W::splat(proof, 0); 25];
        let mut at = 0;
        while at < words.len() {
            state[at] = words[at];
            at += 1;
        }
        // The last bit of the padding.
        state[16] = W::splat(proof, 1 << 63);
        let mut round = 0;
        while round < ROUNDS.len() {
            permute_once(&mut state, W::splat(proof, ROUNDS[round]));
            round += 1;
        }
        write_hashes(&state, self.out);
    }
}

/// Words that are turned and go elsewhere.
macro_rules! turn {
    ($from:ident, $first:expr, $($at:literal, $bits:literal;)*) => {
        [$first, $($from[$at].rotate_left::<$bits>()),*]
    };
}

/// One round; the word of column x and row y is that at x + 5 y (FIPS 202, sections 3.2 and 3.1.2).
#[inline(always)]
fn permute_once<W: KeccakWord>(a: &mut [W; 25], constant: W) {
    let mut parity = [a[0]; 5];
    let mut x = 0;
    while x < 5 {
        parity[x] = a[x].xor3(a[x + 5], a[x + 10]).xor3(a[x + 15], a[x + 20]);
        x += 1;
    }
    // Theta.
    let mut x = 0;
    while x < 5 {
        let (left, right) = (parity[(x + 4) % 5], parity[(x + 1) % 5].rotate_left::<1>());
        let mut y = 0;
        while y < 25 {
            a[x + y] = a[x + y].xor3(left, right);
            y += 5;
        }
        x += 1;
    }
    // Rho and pi.
    let b = turn! {
        a, a[0],
        6, 44;
        12, 43;
        18, 21;
        24, 14;
        3, 28;
        9, 20;
        10, 3;
        16, 45;
        22, 61;
        1, 1;
        7, 6;
        13, 25;
        19, 8;
        20, 18;
        4, 27;
        5, 36;
        11, 10;
        17, 15;
        23, 56;
        2, 62;
        8, 55;
        14, 39;
        15, 41;
        21, 2;
    };
    // Chi and iota.
    let mut y = 0;
    while y < 25 {
        let mut x = 0;
        while x < 5 {
            a[x + y] = b[x + y].chi(b[(x + 1) % 5 + y], b[(x + 2) % 5 + y]);
            x += 1;
        }
        y += 5;
    }
    a[0] = a[0].xor(constant);
}

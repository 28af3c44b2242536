//! HKDF and HMAC with SHA-256 (RFC 5869, RFC 2104), of several keys at a time with the same salt and labels.
//!
//! What a hop derives from one shared secret takes 64 compressions, each of which waits for the one before. In lanes they
//! go side by side. Everything up to the outputs stays in the form of lanes: what one compression gives is the beginning
//! of the next one's message, and the rest of that is the same in all lanes.

use std::ops::Range;

use crate::erase::{Leavings, erase};
use crate::path::{Isa, Lanes, Path, Work, in_one_lane};
#[cfg(target_arch = "x86_64")]
use crate::vector::{with_avx512, words::Sixteen};
use sha2::block_api::compress256;

/// SHA-256 in lanes, a state or block word in each.
pub(crate) trait Sha256: Lanes {
    /// The same word in all lanes.
    fn splat(proof: Self::Proof, word: u32) -> Self;
    /// Reads as many words of byte strings of the same length, lane by lane: no more than a block has.
    fn read<B: AsRef<[u8]>>(proof: Self::Proof, lanes: &[B], from: usize, words: &mut [Self]);
    /// Writes the first bytes of a hash into the output of each lane.
    fn write<const O: usize>(hash: &[Self; 8], out: &mut [[u8; O]], from: usize, len: usize);
    /// Adds bit by bit.
    fn xor(self, other: Self) -> Self;
    /// The compression function (FIPS 180-4, section 6.2.2).
    fn compress(proof: Self::Proof, state: &mut [Self; 8], block: &[Self; 16]);
}

/// Lanes of hashes, at most.
pub(crate) const LANES_MAX: usize = 16;
/// The first state (FIPS 180-4, section 5.3.3).
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const HASH_LEN: usize = 32;
const BLOCK_LEN: usize = 64;
/// What HKDF gives at most: its counter has eight bits.
const EXPANSION_MAX: usize = u8::MAX as usize * HASH_LEN;
/// What HMAC adds to its key for the inner and the outer hash, as words.
const INNER: u32 = 0x3636_3636;
const OUTER: u32 = 0x5c5c_5c5c;

/// One output of HKDF: its label, and where it goes.
#[derive(Clone, Debug)]
pub struct Expansion<'a> {
    /// `info` of RFC 5869, section 2.3.
    pub info: &'a [u8],
    /// Where in the output; at most 255 times 32 bytes.
    pub range: Range<usize>,
}

/// HKDF-SHA256 of each key: one extraction with `salt` (none is as good as an empty one), then each expansion.
///
/// Takes time that depends on lengths only.
///
/// # Panics
///
/// If there is not one output per key, the salt is longer than 64 bytes, an expansion lies outside of the output or is longer
/// than 8160 bytes, or a label is longer than 1024. Keys that do not fit do not compile: they have whole words, 52 bytes at
/// most.
pub fn hkdf<const K: usize, const O: usize>(
    path: Path,
    salt: &[u8],
    keys: &[[u8; K]],
    expansions: &[Expansion<'_>],
    out: &mut [[u8; O]],
) {
    const { assert!(K.is_multiple_of(4) && K < BLOCK_LEN - 8, "a key of whole words that fits one block") }
    assert!(keys.len() == out.len(), "one output per key");
    assert!(
        expansions.iter().all(|expansion| expansion.range.len() <= EXPANSION_MAX),
        "an expansion has at most {EXPANSION_MAX} bytes"
    );
    let pads = HmacPads::of_constant(salt);
    each_lane(path, keys, out, |keys, out| Derive { pads, keys, expansions, out });
}

/// HMAC-SHA256 of each message with its key, cut to `O` bytes.
///
/// Takes time that depends on lengths only.
///
/// # Panics
///
/// If there are not as many messages and outputs as keys.
pub fn hmac<const K: usize, const M: usize, const O: usize>(
    path: Path,
    keys: &[[u8; K]],
    messages: &[&[u8; M]],
    out: &mut [[u8; O]],
) {
    const { assert!(K.is_multiple_of(4) && K <= BLOCK_LEN && M.is_multiple_of(4) && O <= HASH_LEN, "whole words") }
    assert!(keys.len() == messages.len() && keys.len() == out.len(), "one message and output per key");
    let mut rest = messages;
    each_lane(path, keys, out, |keys, out| {
        let (messages, behind) = rest.split_at(keys.len());
        rest = behind;
        Authenticate { keys, messages, out }
    });
}

/// Work for every implementation of [`Sha256`].
#[cfg(target_arch = "x86_64")]
trait Hashing: Work<u32> + Work<Sixteen> {}
#[cfg(target_arch = "x86_64")]
impl<W: Work<u32> + Work<Sixteen>> Hashing for W {}
/// Work for every implementation of [`Sha256`].
#[cfg(not(target_arch = "x86_64"))]
trait Hashing: Work<u32> {}
#[cfg(not(target_arch = "x86_64"))]
impl<W: Work<u32>> Hashing for W {}

/// Chops keys and outputs into as many as there are lanes, and has the work done.
fn each_lane<'a, K, O, W: Hashing>(
    path: Path,
    keys: &'a [K],
    out: &'a mut [O],
    mut work: impl FnMut(&'a [K], &'a mut [O]) -> W,
) {
    match path.0 {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) | Isa::Few(proof) => {
            for (keys, out) in keys.chunks(Sixteen::LANES).zip(out.chunks_mut(Sixteen::LANES)) {
                // Few hashes are faster one after the other, with the instructions for them.
                if keys.len() * 4 < Sixteen::LANES {
                    for (keys, out) in keys.chunks(1).zip(out.chunks_mut(1)) {
                        in_one_lane::<u32>(work(keys, out));
                    }
                } else {
                    with_avx512::<Sixteen>(proof, work(keys, out));
                }
            }
        }
        _ => {
            for (keys, out) in keys.chunks(1).zip(out.chunks_mut(1)) {
                in_one_lane::<u32>(work(keys, out));
            }
        }
    }
}

/// The states of HMAC behind its padded key.
#[derive(Clone, Copy)]
struct HmacPads<W> {
    inner: [W; 8],
    outer: [W; 8],
}

impl HmacPads<u32> {
    /// Of a key that is known: the salt.
    fn of_constant(key: &[u8]) -> Self {
        assert!(key.len() <= BLOCK_LEN, "the salt fits one block");
        let mut block = [0; BLOCK_LEN];
        block[..key.len()].copy_from_slice(key);
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        Self::of(&words, ())
    }

    #[inline(always)]
    fn splat<W: Sha256>(&self, proof: W::Proof) -> HmacPads<W> {
        let zero = W::splat(proof, 0);
        let mut pads = HmacPads { inner: [zero; 8], outer: [zero; 8] };
        let mut at = 0;
        while at < 8 {
            pads.inner[at] = W::splat(proof, self.inner[at]);
            pads.outer[at] = W::splat(proof, self.outer[at]);
            at += 1;
        }
        pads
    }
}

impl<W: Sha256> HmacPads<W> {
    /// Of a key that was filled up with zeros.
    #[inline(always)]
    fn of(key: &[W; 16], proof: W::Proof) -> Self {
        let start = start(proof);
        let mut pads = Self { inner: start, outer: start };
        let mut block = *key;
        xor_all(proof, &mut block, INNER);
        W::compress(proof, &mut pads.inner, &block);
        xor_all(proof, &mut block, INNER ^ OUTER);
        W::compress(proof, &mut pads.outer, &block);
        pads
    }

    /// The outer hash, of what the inner one gave.
    #[inline(always)]
    fn finish(&self, proof: W::Proof, inner: &[W; 8]) -> [W; 8] {
        let mut block = [W::splat(proof, 0); 16];
        block[..8].copy_from_slice(inner);
        block[8] = W::splat(proof, 1 << 31);
        block[15] = W::splat(proof, bits(BLOCK_LEN + HASH_LEN));
        let mut state = self.outer;
        W::compress(proof, &mut state, &block);
        state
    }
}

#[inline(always)]
fn xor_all<W: Sha256>(proof: W::Proof, block: &mut [W; 16], pad: u32) {
    let pad = W::splat(proof, pad);
    let mut at = 0;
    while at < 16 {
        block[at] = block[at].xor(pad);
        at += 1;
    }
}

#[inline(always)]
fn start<W: Sha256>(proof: W::Proof) -> [W; 8] {
    let mut state = [W::splat(proof, 0); 8];
    let mut at = 0;
    while at < 8 {
        state[at] = W::splat(proof, START[at]);
        at += 1;
    }
    state
}

/// The length that ends a message.
const fn bits(bytes: usize) -> u32 {
    (8 * bytes) as u32
}

/// Words of several byte strings, word by word and for each lane. Not inlined, as little as [`bytes_of_each`]: in a function
/// with vector instructions, the compiler would make gathers and scatters of it.
#[inline(never)]
pub(crate) fn words_of_each<B: AsRef<[u8]>>(lanes: &[B], from: usize, block: &mut [[u32; LANES_MAX]]) {
    for (lane, message) in lanes.iter().enumerate() {
        let (bytes, _) = message.as_ref()[from..].as_chunks();
        for (words, bytes) in block.iter_mut().zip(bytes) {
            words[lane] = u32::from_be_bytes(*bytes);
        }
    }
}

/// The first bytes of the hash of each lane.
#[inline(never)]
pub(crate) fn bytes_of_each<const O: usize>(
    words: &[[u32; LANES_MAX]; 8],
    out: &mut [[u8; O]],
    from: usize,
    len: usize,
) {
    for (lane, out) in out.iter_mut().enumerate() {
        for (bytes, word) in out[from..from + len].chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word[lane].to_be_bytes()[..bytes.len()]);
        }
    }
}

/// The end of a message, the same in all lanes: a label, a counter, and the padding of SHA-256.
struct Tail {
    words: [u32; TAIL_MAX / 4],
    len: usize,
    /// Where the counter stands, in bytes.
    counter: usize,
}

const LABEL_MAX: usize = 1024;
const TAIL_MAX: usize = LABEL_MAX + 2 * BLOCK_LEN;

impl Tail {
    /// Of a message that begins with `before` bytes, of which a block went into the pads of HMAC.
    fn new(before: usize, label: &[u8]) -> Self {
        assert!(label.len() <= LABEL_MAX, "a label has at most {LABEL_MAX} bytes");
        let mut bytes = [0; TAIL_MAX];
        bytes[..label.len()].copy_from_slice(label);
        bytes[label.len() + 1] = 0x80;
        let message = before + label.len() + 1;
        let len = (message + 1 + 8).next_multiple_of(BLOCK_LEN) - before;
        bytes[len - 4..len].copy_from_slice(&bits(message).to_be_bytes());
        let mut words = [0; TAIL_MAX / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        Self { words, len: len / 4, counter: label.len() }
    }

    fn set_counter(&mut self, counter: u8) {
        let shift = 24 - 8 * (self.counter % 4);
        let word = &mut self.words[self.counter / 4];
        *word = *word & !(0xff << shift) | u32::from(counter) << shift;
    }
}

/// Hashes a block's first half that differs between lanes, if there is one, and what comes behind it.
#[inline(always)]
fn absorb<W: Sha256>(proof: W::Proof, state: &mut [W; 8], lead: Option<&[W; 8]>, tail: &Tail) {
    let mut block = [W::splat(proof, 0); 16];
    let mut rest = &tail.words[..tail.len];
    if let Some(lead) = lead {
        block[..8].copy_from_slice(lead);
        let (half, behind) =
            rest.split_first_chunk::<8>().expect("with its padding a message has whole blocks");
        let mut at = 0;
        while at < 8 {
            block[8 + at] = W::splat(proof, half[at]);
            at += 1;
        }
        W::compress(proof, state, &block);
        rest = behind;
    }
    while let Some((words, behind)) = rest.split_first_chunk::<16>() {
        let mut at = 0;
        while at < 16 {
            block[at] = W::splat(proof, words[at]);
            at += 1;
        }
        W::compress(proof, state, &block);
        rest = behind;
    }
    debug_assert!(rest.is_empty(), "with its padding a message has whole blocks");
}

struct Derive<'a, const K: usize, const O: usize> {
    pads: HmacPads<u32>,
    keys: &'a [[u8; K]],
    expansions: &'a [Expansion<'a>],
    out: &'a mut [[u8; O]],
}

impl<W: Sha256, const K: usize, const O: usize> Work<W> for Derive<'_, K, O> {
    const LEAVES: Leavings = Leavings::Large;

    #[inline(always)]
    fn run(self, proof: W::Proof) {
        // The extraction: HMAC under the salt.
        let salt = self.pads.splat::<W>(proof);
        let mut block = [W::splat(proof, 0); 16];
        W::read(proof, self.keys, 0, &mut block[..K / 4]);
        block[K / 4] = W::splat(proof, 1 << 31);
        block[15] = W::splat(proof, bits(BLOCK_LEN + K));
        let mut inner = salt.inner;
        W::compress(proof, &mut inner, &block);
        let mut key = [W::splat(proof, 0); 16];
        key[..8].copy_from_slice(&salt.finish(proof, &inner));
        let pads = HmacPads::of(&key, proof);
        // The expansions: each block is HMAC of the one before, the label and a counter.
        for expansion in self.expansions {
            let mut tail = Tail::new(BLOCK_LEN, expansion.info);
            let mut last = None;
            let Range { start, end } = expansion.range;
            let mut counter = 1;
            let mut from = start;
            while from < end {
                tail.set_counter(counter);
                let mut inner = pads.inner;
                absorb(proof, &mut inner, last.as_ref(), &tail);
                let output = pads.finish(proof, &inner);
                W::write(&output, self.out, from, (end - from).min(HASH_LEN));
                if last.is_none() {
                    tail = Tail::new(BLOCK_LEN + HASH_LEN, expansion.info);
                }
                last = Some(output);
                from += HASH_LEN;
                // Behind the longest expansion it is not used any more.
                counter = u8::wrapping_add(counter, 1);
            }
        }
    }
}

struct Authenticate<'a, const K: usize, const M: usize, const O: usize> {
    keys: &'a [[u8; K]],
    messages: &'a [&'a [u8; M]],
    out: &'a mut [[u8; O]],
}

impl<W: Sha256, const K: usize, const M: usize, const O: usize> Work<W> for Authenticate<'_, K, M, O> {
    const LEAVES: Leavings = Leavings::Large;

    #[inline(always)]
    fn run(self, proof: W::Proof) {
        let zero = W::splat(proof, 0);
        let mut key = [zero; 16];
        W::read(proof, self.keys, 0, &mut key[..K / 4]);
        let pads = HmacPads::of(&key, proof);
        let mut state = pads.inner;
        let mut block = [zero; 16];
        for from in (0..M / BLOCK_LEN).map(|block| BLOCK_LEN * block) {
            W::read(proof, self.messages, from, &mut block);
            W::compress(proof, &mut state, &block);
        }
        let rest = M % BLOCK_LEN / 4;
        block = [zero; 16];
        W::read(proof, self.messages, M - 4 * rest, &mut block[..rest]);
        block[rest] = W::splat(proof, 1 << 31);
        if rest >= 14 {
            W::compress(proof, &mut state, &block);
            block = [zero; 16];
        }
        block[15] = W::splat(proof, bits(BLOCK_LEN + M));
        W::compress(proof, &mut state, &block);
        W::write(&pads.finish(proof, &state), self.out, 0, O);
    }
}

impl Lanes for u32 {
    type Proof = ();
    const LANES: usize = 1;
}

/// One hash at a time, with the instructions for SHA where there are some.
impl Sha256 for u32 {
    #[inline(always)]
    fn splat((): (), word: u32) -> Self {
        word
    }

    #[inline(always)]
    fn read<B: AsRef<[u8]>>((): (), lanes: &[B], from: usize, words: &mut [u32]) {
        for (word, bytes) in words.iter_mut().zip(lanes[0].as_ref()[from..].as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
    }

    #[inline(always)]
    fn write<const O: usize>(hash: &[u32; 8], out: &mut [[u8; O]], from: usize, len: usize) {
        for (bytes, word) in out[0][from..from + len].chunks_mut(4).zip(hash) {
            bytes.copy_from_slice(&word.to_be_bytes()[..bytes.len()]);
        }
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    fn compress((): (), state: &mut [u32; 8], block: &[u32; 16]) {
        let mut bytes = [0; BLOCK_LEN];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
            *bytes = word.to_be_bytes();
        }
        compress256(state, &[bytes]);
        erase(&mut bytes);
    }
}

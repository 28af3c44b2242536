//! Erases secrets that are not needed any more.
//!
//! The crate `zeroize` writes arrays element by element: of bytes, that takes longer than to derive them. Here the whole is
//! overwritten with stores as wide as the processor has them, and its barrier sees to it that the compiler does not think
//! them useless.

use std::ops::{Deref, DerefMut};

use zeroize::optimization_barrier;

/// Plain numbers, and arrays of them.
pub trait Plain: Copy {
    /// Zeros.
    const ZERO: Self;
}

impl Plain for u8 {
    const ZERO: Self = 0;
}

impl Plain for u32 {
    const ZERO: Self = 0;
}

impl Plain for u64 {
    const ZERO: Self = 0;
}

impl<T: Plain, const N: usize> Plain for [T; N] {
    const ZERO: Self = [T::ZERO; N];
}

/// Overwrites a secret with zeros.
#[inline(always)]
pub fn erase<T: Plain>(secret: &mut T) {
    *secret = T::ZERO;
    optimization_barrier(secret);
}

/// What work in lanes leaves on the stack: variables, and registers for which there was no room. No variable can be told to erase
/// the latter, so the stack is overwritten as a whole, as far down as the work may have come.
#[derive(Clone, Copy)]
pub(crate) enum Leavings {
    /// No secrets.
    Public,
    /// Frames of up to [`SMALL`] bytes.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
    Small,
    /// Frames of up to [`LARGE`] bytes.
    Large,
}

/// Four blocks of ChaCha20 or BLAKE2b in lanes take two thirds of it, Keccak in lanes half, and anything in one lane less.
pub(crate) const SMALL: usize = 4 << 10;
/// Products by tables in four lanes take three quarters of it, a few points at a time and HKDF in sixteen lanes less.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
const LARGE: usize = 16 << 10;

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing has lanes here"))]
impl Leavings {
    /// Erases them; see [`erase_stack`].
    #[inline(always)]
    pub(crate) fn erase(self) {
        match self {
            Self::Public => {}
            Self::Small => erase_stack::<SMALL>(),
            Self::Large => erase_stack::<LARGE>(),
        }
    }
}

/// Overwrites what a function left on the stack that was called from the same place before, and not inlined.
#[inline(never)]
pub(crate) fn erase_stack<const N: usize>() {
    let mut stack = [0_u8; N];
    erase(&mut stack);
}

/// A secret that is erased when it is dropped.
#[derive(Clone)]
pub struct Erasing<T: Plain>(T);

impl<T: Plain> Erasing<T> {
    /// Keeps a secret, which the caller may have copies of.
    #[inline(always)]
    pub const fn new(secret: T) -> Self {
        Self(secret)
    }
}

impl<T: Plain> Deref for Erasing<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Plain> DerefMut for Erasing<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Plain> Drop for Erasing<T> {
    #[inline(always)]
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left() {
        let mut secret = [[0xa5_u8; 7]; 3];
        erase(&mut secret);
        assert_eq!(secret, [[0; 7]; 3]);
        let mut kept = Erasing::new([1_u64, 2]);
        kept[1] = 3;
        assert_eq!(*kept, [1, 3]);
    }

    /// Reads its own memory: what somebody finds who can, from a core dump or a page that was swapped out.
    #[cfg(target_os = "linux")]
    mod stack {
        use std::fs::File;
        use std::os::unix::fs::FileExt;

        use hkdf::Hkdf;
        use sha2::Sha256;

        use crate::sha256::{Expansion, hkdf, hmac};
        use crate::{Multiples, Path, blake2b, chacha20, keccak, x25519, x25519_base};

        const DEPTH: usize = 64 << 10;
        const KEY: [u8; 64] = *b"What is to be found in no frame once the work that used it ended";

        /// What lies below the frame of the caller.
        #[inline(never)]
        fn dead(memory: &File) -> Vec<u8> {
            let here = 0_u8;
            let mut bytes = vec![0; DEPTH];
            let from = std::ptr::from_ref(&here).addr() - DEPTH;
            memory.read_exact_at(&mut bytes, from as u64).unwrap();
            bytes
        }

        /// Whether two words of a secret are there, or one in two lanes: in either order of bytes.
        fn is_found(secret: &[u8], stack: &[u8]) -> bool {
            let words: Vec<[u8; 4]> = secret.as_chunks().0.to_vec();
            let turned = |word: [u8; 4]| {
                let [a, b, c, d] = word;
                [d, c, b, a]
            };
            let mut patterns = Vec::new();
            for two in words.windows(2) {
                for [a, b] in [[two[0], two[1]], [turned(two[0]), turned(two[1])]] {
                    patterns.extend([[a, b].concat(), [a, a].concat()]);
                }
            }
            stack
                .as_chunks::<4>()
                .0
                .windows(2)
                .any(|two| patterns.iter().any(|pattern| two.concat() == *pattern))
        }

        /// In a thread of its own, on whose stack nobody else had secrets.
        fn check(name: &str, path: Path, secrets: &[Vec<u8>], work: fn(Path)) {
            let stack = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let memory = File::open("/proc/self/mem").unwrap();
                    work(path);
                    dead(&memory)
                });
                thread.join().unwrap()
            });
            for (at, secret) in secrets.iter().enumerate() {
                assert!(!is_found(secret, &stack), "secret {at} of {name} is left by {}", path.name());
            }
        }

        /// In a vector of its own, not on the stack.
        fn keys<const K: usize>() -> Vec<[u8; K]> {
            let mut keys = vec![[0; K]; 16];
            for key in &mut keys {
                key.copy_from_slice(&KEY[..K]);
            }
            keys
        }

        fn derive(path: Path) {
            let mut out = vec![[0; 100]; 16];
            hkdf(path, b"salt", &keys::<32>(), &[Expansion { info: b"label", range: 0..100 }], &mut out);
        }

        fn authenticate(path: Path) {
            hmac(path, &keys::<32>(), &[&[1; 300]; 16], &mut vec![[0; 16]; 16]);
        }

        fn hash(path: Path) {
            let keys = keys::<64>();
            let keys: Vec<_> = keys.iter().collect();
            blake2b::keyed_256(path, &keys, &[&[1; 300][..]; 16], &mut vec![[0; 32]; 16]);
        }

        fn hash_for_tickets(path: Path) {
            keccak::keccak_256(path, &keys::<64>(), &mut vec![[0; 32]; 16]);
        }

        fn encrypt(path: Path) {
            chacha20::apply(path, &keys()[0], &mut vec![0; 2000]);
        }

        fn climb(path: Path) {
            let scalars = keys();
            let scalars: Vec<_> = scalars.iter().collect();
            x25519(path, &[&[9; 32]; 16], &scalars, &mut vec![[0; 32]; 16]);
        }

        fn multiply(path: Path) {
            let scalars = keys();
            let scalars: Vec<_> = scalars.iter().collect();
            let mut multiples = Box::new(Multiples::new(path));
            multiples.set(&[&[9; 32]; 16]);
            multiples.multiply(&scalars, &mut vec![[0; 32]; 16]);
            x25519_base(path, &scalars, &mut vec![[0; 32]; 16]);
        }

        #[test]
        fn no_frame_keeps_a_secret() {
            let key = KEY[..32].to_vec();
            let (extracted, hkdf) = Hkdf::<Sha256>::extract(Some(b"salt"), &key);
            let mut expanded = vec![0; 100];
            hkdf.expand(b"label", &mut expanded).unwrap();
            let mut stream = vec![0; 2000];
            chacha20::apply(Path::PORTABLE, &keys()[0], &mut stream);
            let clamped = crate::scalar::clamped(&keys()[0]);
            let eighth = crate::scalar::eighth(&clamped);
            let comb = crate::scalar::comb_words(&eighth);
            let bytes = |words: [u64; 4]| words.map(u64::to_le_bytes).concat();
            let scalars = [bytes(clamped), bytes(eighth), bytes(comb)];
            let pads = [0x36, 0x5c].map(|pad| key.iter().map(|byte| byte ^ pad).collect());
            for path in Path::all() {
                check("HKDF", path, &[key.clone(), extracted.to_vec(), expanded.clone()], derive);
                check("HMAC", path, &[std::slice::from_ref(&key), &pads].concat(), authenticate);
                check("BLAKE2b", path, &[KEY.to_vec()], hash);
                check("Keccak", path, &[KEY.to_vec()], hash_for_tickets);
                check("ChaCha20", path, &[key.clone(), stream.clone()], encrypt);
                check("a ladder", path, &scalars, climb);
                check("a table", path, &scalars, multiply);
            }
        }
    }
}

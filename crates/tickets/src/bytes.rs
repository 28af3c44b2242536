//! Byte strings of fixed length, each its own type, and the hash over them.

use alloy_primitives::keccak256;
use tombola_lanes::Path;
use tombola_lanes::keccak::keccak_256;
use zeroize::Zeroizing;

/// Hashes that are computed at a time: as many as there are lanes, at most.
pub(crate) const TOGETHER: usize = 8;

/// The first `N` bytes of the Keccak-256 hash of `input`; `N` is at most 32.
pub(crate) fn keccak<const N: usize>(input: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    *keccak256(input).0.first_chunk().expect("N is at most 32")
}

/// As [`keccak`] of each, several at a time.
pub(crate) fn keccak_each<const N: usize, const M: usize>(
    inputs: &[[u8; N]],
    mut take: impl FnMut(usize, [u8; M]),
) {
    const { assert!(M <= 32) };
    let path = Path::best();
    for (chunk, inputs) in inputs.chunks(TOGETHER).enumerate() {
        let mut hashes = [[0; 32]; TOGETHER];
        let hashes = &mut hashes[..inputs.len()];
        // Assembly for one at a time is as fast as two lanes.
        if path.lanes() > 1 && inputs.len() > 2 {
            keccak_256(path, inputs, hashes);
        } else {
            hashes.iter_mut().zip(inputs).for_each(|(hash, input)| *hash = *keccak256(input));
        }
        for (at, hash) in hashes.iter().enumerate() {
            take(chunk * TOGETHER + at, *hash.first_chunk().expect("M is at most 32"));
        }
    }
}

/// The parts, one after the other; together they have exactly `N` bytes. On the stack, and erased on drop, for a part
/// may be secret.
///
/// # Panics
///
/// The lengths do not add up: a mistake in this crate, since all parts have fixed lengths.
pub(crate) fn concat<const N: usize>(parts: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, N, "the parts of a hash input have fixed lengths");
    bytes
}

/// Common methods of all of them.
macro_rules! methods {
    ($name:ident, $len:literal) => {
        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
    };
}

/// `Debug` that shows nothing: of a secret, or because the value in a log would link the log to a packet.
macro_rules! redacted {
    ($name:ident) => {
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

/// Equality in constant time.
macro_rules! constant_time_eq {
    ($name:ident) => {
        impl subtle::ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> subtle::Choice {
                self.0[..].ct_eq(&other.0[..])
            }
        }

        /// In constant time.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                subtle::ConstantTimeEq::ct_eq(self, other).into()
            }
        }

        impl Eq for $name {}
    };
}

/// A secret: erased on drop, not shown, compared in constant time.
macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
        pub struct $name([u8; $len]);
        $crate::bytes::methods!($name, $len);
        $crate::bytes::redacted!($name);
        $crate::bytes::constant_time_eq!($name);
    };
}

/// What two neighbours see, and no log should: not shown, compared in constant time with what comes of a secret.
macro_rules! tag_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name([u8; $len]);
        $crate::bytes::methods!($name, $len);
        $crate::bytes::redacted!($name);
        $crate::bytes::constant_time_eq!($name);
    };
}

/// What the chain may see; shown in hexadecimal.
macro_rules! public_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);
        $crate::bytes::methods!($name, $len);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

pub(crate) use {constant_time_eq, methods, public_bytes, redacted, secret_bytes, tag_bytes};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hashes_are_those_of_each() {
        for count in 0..20_u8 {
            let inputs: Vec<[u8; 40]> = (0..count).map(|at| [at; 40]).collect();
            let mut found = Vec::new();
            keccak_each::<40, 20>(&inputs, |at, hash| found.push((at, hash)));
            let expected = inputs.iter().map(|input| keccak::<20>(input)).enumerate();
            assert!(found.into_iter().eq(expected), "{count}");
        }
    }

    #[test]
    fn the_hash_is_keccak_and_not_sha3() {
        // The empty string; the first bytes of SHA3-256 would be a7ffc6f8.
        assert_eq!(keccak::<4>(b""), [0xc5, 0xd2, 0x46, 0x01]);
    }

    #[test]
    #[should_panic(expected = "fixed lengths")]
    fn parts_that_do_not_fill_the_input_are_a_mistake() {
        concat::<5>(&[&[1, 2], &[3, 4]]);
    }
}

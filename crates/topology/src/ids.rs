//! The names of things: keys, indices, numbers and times, each its own type.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest, Sha256};

/// Why a hexadecimal text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// The text has another length than the bytes that it should spell.
    #[error("expected {expected} hexadecimal characters, found {found}")]
    Length {
        /// Two characters per byte.
        expected: usize,
        /// Characters found (not bytes).
        found: usize,
    },
    /// A character is not one of `0-9 a-f A-F`.
    #[error("expected hexadecimal characters, found {character:?} at position {position}")]
    Character {
        /// The first that is wrong.
        character: char,
        /// Its position, in characters from 0.
        position: usize,
    },
}

/// Reads exactly `N` bytes, two characters each, in either case.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    if let Some((position, character)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        return Err(HexError::Character { character, position });
    }
    let mut bytes = [0; N];
    // Only hexadecimal digits are left, so that the length is all that can be wrong.
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| HexError::Length { expected: 2 * N, found: text.len() })?;
    Ok(bytes)
}

/// A newtype over `$len` bytes whose text form is lower-case hexadecimal.
macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

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

            /// The bytes, copied.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $len] {
                self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

bytes_newtype! {
    /// A node's long-term ed25519 public key: who it is on a link, whatever epoch it is.
    ///
    /// Any 32 bytes can be held; a network document is refused unless each of its identities is the canonical
    /// encoding of a point that is not of small order (see [`Self::is_valid`]).
    IdentityKey, 32
}

bytes_newtype! {
    /// A Sphinx public key (an X25519 point), of a node in one epoch or of a client.
    ///
    /// Opaque here: the packet layer knows which encodings it accepts.
    SphinxKey, 32
}

bytes_newtype! {
    /// Names a client's mailbox at its gateway: 28 bytes, what fits into a hop field behind a 4-byte marker.
    MailboxId, 28
}

/// An account or a contract on an EVM chain. Its text form is `0x` and 40 hexadecimal characters, whose case says nothing; a text
/// without `0x` counts as too short.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainAddress(pub [u8; 20]);

impl fmt::Display for ChainAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainAddress({self})")
    }
}

impl FromStr for ChainAddress {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let digits = text.strip_prefix("0x");
        let digits = digits.ok_or(HexError::Length { expected: 42, found: text.chars().count() })?;
        parse_hex(digits).map(Self)
    }
}

impl IdentityKey {
    /// The public key of an ed25519 seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes())
    }

    /// Whether the bytes are the one canonical encoding of a usable point.
    ///
    /// Small-order points are refused because signatures under them prove nothing; second encodings of a
    /// point because one node could then be listed twice.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        ed25519_point(&self.0).is_some()
    }
}

/// Decodes an ed25519 public key strictly: canonical, not of small order.
pub(crate) fn ed25519_point(bytes: &[u8; 32]) -> Option<ed25519_dalek::VerifyingKey> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).ok()?;
    let canonical = key.to_edwards().compress().to_bytes() == *bytes;
    (canonical && !key.is_weak()).then_some(key)
}

impl MailboxId {
    /// The mailbox of the client that authenticates itself to its gateway with `link_key`: the first 28 bytes
    /// of SHA-256 over `"tombola/mailbox/1"` and the key.
    #[must_use]
    pub fn of(link_key: &IdentityKey) -> Self {
        let digest = Sha256::new().chain_update(b"tombola/mailbox/1").chain_update(link_key.0).finalize();
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&digest[..Self::LEN]);
        Self(id)
    }
}

/// A node's position in the node list of one epoch. It means nothing without that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    /// As an index into [`Epoch::nodes`](crate::Epoch::nodes).
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an epoch. Successive epochs have successive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochNumber(pub u64);

impl EpochNumber {
    /// 0 or 1: what a frame carries to say which of two overlapping epochs its packet's key belongs to.
    #[must_use]
    pub const fn parity(self) -> u8 {
        (self.0 & 1) as u8
    }
}

impl fmt::Display for EpochNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The last second that a network document can name: 2^53 - 1, the greatest integer of its canonical
    /// form.
    pub const MAX: Self = Self(crate::json::MAX_INTEGER);
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

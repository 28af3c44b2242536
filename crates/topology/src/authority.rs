//! The key that vouches for a network.

use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::ids::{HexError, ed25519_point, parse_hex};

/// Why a text or bytes are not an authority's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityKeyError {
    /// Not 64 hexadecimal characters.
    #[error(transparent)]
    Hex(#[from] HexError),
    /// 32 bytes, but not the canonical encoding of a point of large order: a mistyped key, or no key at all.
    #[error("not an ed25519 public key: check that it was copied whole and unchanged")]
    Point,
}

/// The public key of a network's authority. Whoever runs a node or a client states which one it trusts.
///
/// Its text form is 64 hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityKey(
    /// Encodes a point that [`ed25519_point`] accepts. Kept encoded: the point takes six times the space.
    [u8; 32],
);

impl AuthorityKey {
    /// Reads a key strictly: canonical encodings only, no point of small order.
    ///
    /// # Errors
    /// [`AuthorityKeyError::Point`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, AuthorityKeyError> {
        ed25519_point(bytes).map(|_| Self(*bytes)).ok_or(AuthorityKeyError::Point)
    }

    /// The encoded point.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether `signature` is this authority's over `message`. Strict (no small-order parts, no second
    /// encodings), so that every implementation agrees on which documents are valid.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .is_ok()
    }
}

impl fmt::Display for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey({self})")
    }
}

impl FromStr for AuthorityKey {
    type Err = AuthorityKeyError;

    fn from_str(text: &str) -> Result<Self, AuthorityKeyError> {
        Self::from_bytes(&parse_hex(text)?)
    }
}

/// The secret that signs network documents. Erased when dropped; never printed.
#[derive(Clone)]
pub struct AuthoritySecret(SigningKey);

impl AuthoritySecret {
    /// From an ed25519 seed (RFC 8032, section 5.1.5): 32 uniformly random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, for a key file.
    #[must_use]
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> AuthorityKey {
        AuthorityKey(self.0.verifying_key().to_bytes())
    }

    /// An ed25519 signature.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// The signing key inside erases itself.
impl ZeroizeOnDrop for AuthoritySecret {}

impl fmt::Debug for AuthoritySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthoritySecret([redacted])")
    }
}

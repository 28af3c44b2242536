//! Keys, and which encodings of points are accepted.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use thiserror::Error;
use tombola_lanes::Kept;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Why 32 bytes are not accepted as a point.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PointError {
    /// The number is not below p = 2^255 - 19 (which includes every encoding with the top bit set). Such a point has
    /// a second encoding, so the same packet could be shown twice with two different headers.
    #[error("the encoding of the point is not canonical")]
    NonCanonical,
    /// A point whose order divides 8: every product with it is one of five public values.
    #[error("the point has small order")]
    SmallOrder,
    /// On the twist, or with a component of small order. No X25519 public key made from a secret key is such a point,
    /// since the base point has prime order.
    #[error("the point is not in the prime-order subgroup")]
    WrongGroup,
}

/// p = 2^255 - 19, the modulus of the field, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// Every u whose point has an order that divides 8, on the curve or (order 4) on its twist, in canonical encoding.
const SMALL_ORDER: [[u8; 32]; 5] = [
    // Order 2: u = 0.
    [0; 32],
    // Order 4: u = 1.
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    // Order 4, on the twist: u = p - 1.
    {
        let mut minus_one = P;
        minus_one[0] -= 1;
        minus_one
    },
    // Order 8, both.
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// What is asked of every alpha before anything is computed with it.
///
/// Canonical and not of small order: then its product with a clamped scalar n (a multiple of 8 in 2^254..2^255) is
/// never the neutral element. On the curve, whose order is 8 l, that would take a multiple of 8 l; on the twist, whose
/// order is 4 l', a multiple of 8 l' (n is a multiple of 8 and l' is odd). Both are above 2^255. So no check of the
/// product is needed, and the next alpha passes this check again.
///
/// Takes time that depends on the bytes, which are public.
pub(crate) fn check_point(bytes: &[u8; 32]) -> Result<(), PointError> {
    if bytes.iter().rev().ge(P.iter().rev()) {
        return Err(PointError::NonCanonical);
    }
    if SMALL_ORDER.contains(bytes) {
        return Err(PointError::SmallOrder);
    }
    Ok(())
}

/// The Sphinx public key of a hop: an X25519 key known to be canonical and in the prime-order subgroup.
///
/// [`RouteSecrets::derive`](crate::RouteSecrets::derive) relies on the latter when it reduces products of scalars
/// modulo the order of that subgroup.
#[derive(Clone, Copy)]
pub struct PublicKey {
    bytes: [u8; 32],
    /// One of the two points with this u, on the Edwards form of the curve, where dalek multiplies faster. Which of the
    /// two does not matter: their products have the same u again.
    point: EdwardsPoint,
}

impl PublicKey {
    /// Checks an encoded key. This costs about one multiplication on the curve: do it once per key, not per packet.
    ///
    /// # Errors
    ///
    /// [`PointError`] says which property the bytes lack.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PointError> {
        check_point(bytes)?;
        let point = MontgomeryPoint(*bytes).to_edwards(0).ok_or(PointError::WrongGroup)?;
        if !point.is_torsion_free() {
            return Err(PointError::WrongGroup);
        }
        Ok(Self { bytes: *bytes, point })
    }

    /// The key as it is published.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.bytes
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// What X25519 gives for a scalar that is congruent to this one modulo the order of the subgroup.
    pub(crate) fn multiply(&self, scalar: &Scalar) -> [u8; 32] {
        (self.point * scalar).to_montgomery().to_bytes()
    }
}

/// A public key with a table that makes its multiples cheaper, for keys that many packets are built with: those of an epoch. It
/// takes half a multiplication to make, and 2.8 kB to keep.
#[derive(Clone)]
pub struct KeptKey {
    key: PublicKey,
    table: Box<Kept>,
}

impl KeptKey {
    /// Makes the table of a key.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        let table = Kept::new(key.as_bytes()).expect("a key lies in the subgroup of prime order");
        Self { key, table: Box::new(table) }
    }

    /// The key itself.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    pub(crate) const fn table(&self) -> &Kept {
        &self.table
    }
}

impl fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

/// What routes are made of: keys, with or without their tables.
pub trait HopKey {
    /// The key itself.
    fn key(&self) -> &PublicKey;
    /// Its table, if it is kept.
    fn kept(&self) -> Option<&KeptKey>;
}

impl HopKey for PublicKey {
    fn key(&self) -> &PublicKey {
        self
    }

    fn kept(&self) -> Option<&KeptKey> {
        None
    }
}

impl HopKey for KeptKey {
    fn key(&self) -> &PublicKey {
        &self.key
    }

    fn kept(&self) -> Option<&KeptKey> {
        Some(self)
    }
}

impl<K: HopKey + ?Sized> HopKey for &K {
    fn key(&self) -> &PublicKey {
        (**self).key()
    }

    fn kept(&self) -> Option<&KeptKey> {
        (**self).kept()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The Sphinx secret key of a hop: 32 uniform bytes, clamped when they are used (RFC 7748, section 5).
///
/// Erased when dropped, and never shown by `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Any 32 bytes are a key; they must come from a good random source.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes that the key was made from, to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The key that senders need.
    ///
    /// In the prime-order subgroup by construction: a clamped scalar is not a multiple of the order of the base point.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let point = EdwardsPoint::mul_base_clamped(self.0);
        PublicKey { bytes: point.to_montgomery().to_bytes(), point }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

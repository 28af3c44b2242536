//! Variable-base multiplication on Curve25519, several at a time.
//!
//! Two of these per packet are most of what a mix node computes. Everything that unwraps packets comes through
//! [`multiply_batch`], so that a ladder which treats the lanes of a vector register at once has one place to go.

use curve25519_dalek::montgomery::MontgomeryPoint;

/// Packets that pass through one stage of processing together.
pub(crate) const LANES: usize = 8;

/// X25519 (RFC 7748, section 5): `out[i] = clamp(scalars[i]) * points[i]`, in constant time.
///
/// The three slices have the same length, at most [`LANES`].
pub(crate) fn multiply_batch(points: &[&[u8; 32]], scalars: &[&[u8; 32]], out: &mut [[u8; 32]]) {
    debug_assert!(points.len() == scalars.len() && points.len() == out.len() && out.len() <= LANES);
    for ((point, scalar), product) in points.iter().zip(scalars).zip(out) {
        *product = MontgomeryPoint(**point).mul_clamped(**scalar).to_bytes();
    }
}

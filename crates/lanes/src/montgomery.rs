//! The Montgomery ladder (RFC 7748, section 5): any point, on the curve or its twist, one scalar.

use crate::field::{Field, Limbs, invert};

/// (A - 2) / 4, of v^2 = u^3 + A u^2 + u, A = 486662.
const A24: u32 = 121_665;

/// The lanes of a vector, at most.
pub(crate) const LANES_MAX: usize = 8;

/// X25519 in each lane, up to the inversion: u-coordinates as fractions. The words of a scalar, already clamped, are
/// least first.
#[inline(always)]
pub(crate) fn ladder<F: Field>(proof: F::Proof, u: F, scalar: &[F::Word; 4]) -> (F, F) {
    let (mut x2, mut z2) = (F::splat(proof, ONE), F::splat(proof, ZERO));
    let (mut x3, mut z3) = (u, x2);
    // Bit 255 is clear, and bit 254 set.
    for at in (0..255).rev() {
        let swap = F::bit(scalar[at / 64], (at % 64) as u32);
        let (x, z) = (F::select(swap, x2, x3), F::select(swap, z2, z3));
        let (x_other, z_other) = (F::select(swap, x3, x2), F::select(swap, z3, z2));
        let (a, b) = (x.add(z), x.sub(z));
        let (aa, bb) = (a.square(), b.square());
        let e = aa.sub(bb);
        let (c, d) = (x_other.add(z_other), x_other.sub(z_other));
        let (da, cb) = (d.mul(a), c.mul(b));
        let sum = da.add(cb).square();
        let difference = u.mul(da.sub(cb).square());
        let doubled = aa.mul(bb);
        let doubled_z = e.mul(aa.add(e.small(A24)));
        // Undo the swap: one of the two was doubled, the other is the sum.
        x2 = F::select(swap, doubled, sum);
        x3 = F::select(swap, sum, doubled);
        z2 = F::select(swap, doubled_z, difference);
        z3 = F::select(swap, difference, doubled_z);
    }
    (x2, z2)
}

/// X25519 in each lane, tight.
#[inline(always)]
pub(crate) fn x25519<F: Field>(proof: F::Proof, u: F, scalar: &[F::Word; 4]) -> F {
    let (x, z) = ladder(proof, u, scalar);
    let [inverse] = invert(&[z]);
    x.mul(inverse)
}

/// 0 and 1 in the field.
pub(crate) const ZERO: Limbs = [0; 5];
/// See [`ZERO`].
pub(crate) const ONE: Limbs = [1, 0, 0, 0, 0];

//! Several multiples of one point, on the Edwards form of the curve, from one table.
//!
//! A hop multiplies alpha by two scalars, of which it knows the second only when it has the first product. What both
//! multiplications share is a table of the point: 227 doublings and 20 additions make it, and then each scalar takes 32
//! doublings and 64 additions, where a ladder takes 255 steps of about one doubling and one addition each.
//!
//! The curve -x^2 + y^2 = 1 + d x^2 y^2 is birationally equivalent to Curve25519 by y = (u - 1) / (u + 1), and its
//! addition is complete: -1 is a square and d is none (Bernstein, Birkner, Joye, Lange and Peters, "Twisted Edwards
//! Curves", 2008, section 6; formulas: Hisil, Wong, Carter and Dawson, "Twisted Edwards Curves Revisited", 2008,
//! sections 3.1 and 3.3). Points on the twist have no counterpart here; [`montgomery`](crate::montgomery) serves them.
//!
//! The table is a signed comb (Hamburg, "Fast and compact elliptic-curve cryptography", 2012, section 3.3) with four teeth,
//! 64 columns and two blocks: an odd integer m below 2^256 is the sum of s_i 2^i with signs s_i = 2 b_i - 1, where the b_i
//! are the bits of (m - 1) / 2 + 2^255. Column c gathers s_c, s_(c + 64), s_(c + 128) and s_(c + 192): up to the last
//! one's sign, one of eight multiples of the point.

use crate::field::{Field, Limbs, power_p58};
use crate::montgomery::{LANES_MAX, ONE, ZERO};

/// 2 d, where d = -121665 / 121666.
pub(crate) const D2: Limbs = [
    1_859_910_466_990_425,
    932_731_440_258_426,
    1_072_319_116_312_658,
    1_815_898_335_770_999,
    633_789_495_995_903,
];
/// A square root of -1.
const SQRT_MINUS_ONE: Limbs = [
    1_718_705_420_411_056,
    234_908_883_556_509,
    2_233_514_472_574_048,
    2_117_202_627_021_982,
    765_476_049_583_133,
];
/// A square root of -(A + 2), the scale of x in the map from the Montgomery form.
const SCALE: Limbs = [
    1_693_982_333_959_686,
    608_509_411_481_997,
    2_235_573_344_831_311,
    947_681_270_984_193,
    266_558_006_233_600,
];
/// A, of v^2 = u^3 + A u^2 + u.
const A: u32 = 486_662;

/// Entries of one block of a table.
pub(crate) const ENTRIES: usize = 8;
/// Columns of one block.
pub(crate) const COLUMNS: u32 = 32;

/// A point: x = X / Z, y = Y / Z, x y = T / Z. All tight.
#[derive(Clone, Copy)]
pub(crate) struct Point<F> {
    pub(crate) x: F,
    pub(crate) y: F,
    pub(crate) z: F,
    pub(crate) t: F,
}

/// A point that is about to be added: Y + X, Y - X, 2 Z, 2 d T. Tight or loose.
#[derive(Clone, Copy)]
struct Addend<F> {
    sum: F,
    difference: F,
    z2: F,
    t2d: F,
}

/// An addend as it lies in a table, in the order of its fields.
type Entry<F> = [<F as Field>::Packed; 4];

/// The two blocks of a comb, for one point in each lane.
#[derive(Clone, Copy)]
pub(crate) struct Table<F: Field>([[Entry<F>; ENTRIES]; 2]);

/// The entries of one point's table, tight, in a form that every implementation reads.
pub(crate) type Kept = [[[Limbs; 4]; ENTRIES]; 2];

/// A point between the two halves of a formula: x = X / Z, y = Y / T, no class above wide.
struct Completed<F> {
    x: F,
    y: F,
    z: F,
    t: F,
}

impl<F: Field> Completed<F> {
    #[inline(always)]
    fn point(self) -> Point<F> {
        Point { x: self.x.mul(self.t), y: self.y.mul(self.z), z: self.z.mul(self.t), t: self.x.mul(self.y) }
    }

    /// Without T, which a doubling does not need: what stands there instead is of no use.
    #[inline(always)]
    fn projective(self) -> Point<F> {
        let z = self.z.mul(self.t);
        Point { x: self.x.mul(self.t), y: self.y.mul(self.z), z, t: z }
    }
}

impl<F: Field> Point<F> {
    /// The point with coordinate u, tight; `root` is what [`inverse_roots`] gave for it.
    #[inline(always)]
    pub(crate) fn of(proof: F::Proof, u: F, (root, witness): (F, F)) -> Self {
        let one = F::splat(proof, ONE);
        let (above, below) = (u.add(one), u.sub(one));
        // Where the witness is -1, the root has to be multiplied by a root of -1. Both are tried on the way: x^2 of the
        // two differs in sign, so only one satisfies the curve; choosing by the witness costs a comparison of fields, so
        // it is computed: root * ((1 + w) + i (1 - w)) / 2 is root or i root; the factor 2 goes into Z.
        let i = F::splat(proof, SQRT_MINUS_ONE);
        let choose = one.add(witness).mul(one);
        let choose = choose.add(one.sub(witness).mul(i)).mul(one);
        // x = SCALE u / v, y = (u - 1) / (u + 1), over 2 (u + 1).
        let x = u.mul(root).mul(F::splat(proof, SCALE)).mul(choose);
        let two_above = above.mul(one);
        let two_above = two_above.add(two_above).mul(one);
        let two_below = below.mul(one);
        let two_below = two_below.add(two_below).mul(one);
        Self { x: x.mul(above), y: two_below, z: two_above, t: x.mul(below) }
    }

    #[inline(always)]
    fn double(&self) -> Completed<F> {
        let xx = self.x.square();
        let yy = self.y.square();
        let zz = self.z.square();
        let both = self.x.add(self.y).square();
        let y = yy.add(xx);
        let z = yy.sub(xx);
        // 2 X Y is (X + Y)^2 less the two squares; the classes allow only one difference of sums.
        Completed { x: both.sub_wide(y), y, z, t: zz.add(zz).sub_wide(z) }
    }

    /// Adds the point where the mask is clear, and subtracts it where it is set.
    #[inline(always)]
    fn add(&self, other: &Addend<F>, subtract: F::Mask) -> Completed<F> {
        let sum = F::select(subtract, other.sum, other.difference);
        let difference = F::select(subtract, other.difference, other.sum);
        let a = self.y.sub(self.x).mul(difference);
        let b = self.y.add(self.x).mul(sum);
        let c = self.t.mul(other.t2d);
        let d = self.z.mul(other.z2);
        let (more, less) = (d.add(c), d.sub(c));
        Completed {
            x: b.sub(a),
            y: b.add(a),
            z: F::select(subtract, more, less),
            t: F::select(subtract, less, more),
        }
    }

    #[inline(always)]
    fn addend(&self, d2: F) -> Addend<F> {
        Addend {
            sum: self.y.add(self.x),
            difference: self.y.sub(self.x),
            z2: self.z.add(self.z),
            t2d: self.t.mul(d2),
        }
    }
}

impl<F: Field> Addend<F> {
    #[inline(always)]
    fn entry(&self) -> Entry<F> {
        [self.sum.pack(), self.difference.pack(), self.z2.pack(), self.t2d.pack()]
    }

    #[inline(always)]
    fn of(entry: Entry<F>) -> Self {
        let [sum, difference, z2, t2d] = entry;
        Self {
            sum: F::unpack(sum),
            difference: F::unpack(difference),
            z2: F::unpack(z2),
            t2d: F::unpack(t2d),
        }
    }
}

/// For each u, 1 / v up to a root of -1, where v^2 = u^3 + A u^2 + u, and a witness: 1 or -1 in each lane whose point is
/// on the curve itself, else it is on the twist, or u is 0. The witness says which root of 1 or -1 is left to divide by.
///
/// As v^2^3 (v^2^7)^((p - 5) / 8) (Bernstein, Duif, Lange, Schwabe and Yang, "High-speed high-security signatures", 2011,
/// section 5).
#[inline(always)]
pub(crate) fn inverse_roots<F: Field, const N: usize>(proof: F::Proof, us: &[F; N]) -> [(F, F); N] {
    let (a, one) = (F::splat(proof, [A as u64, 0, 0, 0, 0]), F::splat(proof, ONE));
    let (mut squares, mut cubes, mut sevenths) = (*us, *us, *us);
    let mut at = 0;
    while at < N {
        let u = us[at];
        squares[at] = u.mul(u.mul(u.add(a)).add(one));
        cubes[at] = squares[at].square().mul(squares[at]);
        sevenths[at] = cubes[at].square().mul(squares[at]);
        at += 1;
    }
    let powers = power_p58(&sevenths);
    let mut roots = [(one, one); N];
    let mut at = 0;
    while at < N {
        let root = cubes[at].mul(powers[at]);
        roots[at] = (root, squares[at].mul(root.square()));
        at += 1;
    }
    roots
}

impl<F: Field> Table<F> {
    /// Room for a table.
    #[inline(always)]
    pub(crate) fn empty(proof: F::Proof) -> Self {
        Self([[[F::splat(proof, ZERO).pack(); 4]; ENTRIES]; 2])
    }

    /// Makes the table of 8 P, where P is the point with coordinate u, tight; `root` is what [`inverse_roots`] gave for it.
    ///
    /// Takes time that depends on nothing; the points may be public anyway.
    #[inline(always)]
    pub(crate) fn fill(&mut self, proof: F::Proof, u: F, root: (F, F)) {
        let mut point = Point::of(proof, u, root);
        // 2^(32 j) 8 P for j = 0 to 7, and twice that, which turns the sign of a tooth.
        let d2 = F::splat(proof, D2);
        for _ in 0..3 {
            point = point.double().point();
        }
        let mut teeth = [point; 8];
        let mut twice = [point.addend(d2); 8];
        for tooth in 0..8 {
            teeth[tooth] = point;
            point = point.double().point();
            twice[tooth] = point.addend(d2);
            if tooth < 7 {
                for _ in 1..COLUMNS - 1 {
                    point = point.double().projective();
                }
                point = point.double().point();
            }
        }
        // Entry j of block k: tooth 6 + k, plus or minus (by the bits of j) the teeth k, 2 + k, 4 + k.
        let nowhere = F::bit(F::words(proof, &[0; 8]), 0);
        let everywhere = F::bit(F::words(proof, &[1; 8]), 0);
        for (block, entries) in self.0.iter_mut().enumerate() {
            let mut sums = [teeth[6 + block]; ENTRIES];
            for lower in [4, 2, 0] {
                sums[0] = sums[0].add(&teeth[lower + block].addend(d2), everywhere).point();
            }
            for at in 1..ENTRIES {
                let bit = at.ilog2() as usize;
                sums[at] = sums[at - (1 << bit)].add(&twice[2 * bit + block], nowhere).point();
            }
            for (entry, sum) in entries.iter_mut().zip(&sums) {
                *entry = sum.addend(d2).entry();
            }
        }
    }

    /// The entries of the first lane.
    #[inline(always)]
    pub(crate) fn keep(&self, proof: F::Proof) -> Kept {
        let one = F::splat(proof, ONE);
        let mut kept = [[[ZERO; 4]; ENTRIES]; 2];
        for (entries, kept) in self.0.iter().zip(&mut kept) {
            for (entry, kept) in entries.iter().zip(kept) {
                for (packed, kept) in entry.iter().zip(kept) {
                    let mut lanes = [ZERO; LANES_MAX];
                    F::unpack(*packed).mul(one).store(&mut lanes[..F::LANES]);
                    *kept = lanes[0];
                }
            }
        }
        kept
    }

    /// Takes a table for each lane that was made before; lanes without one get the first.
    #[inline(always)]
    pub(crate) fn load(&mut self, proof: F::Proof, lanes: &[&Kept]) {
        for (block, entries) in self.0.iter_mut().enumerate() {
            for (at, entry) in entries.iter_mut().enumerate() {
                for (coordinate, packed) in entry.iter_mut().enumerate() {
                    let limbs = limbs_of_each(lanes, block, at, coordinate);
                    *packed = F::load(proof, &limbs[..F::LANES]).pack();
                }
            }
        }
    }

    /// m 8 P in each lane, as the u-coordinate of the Montgomery form, a fraction of two loose elements. `scalar` holds
    /// the words of [`comb_words`] of m.
    #[inline(always)]
    pub(crate) fn multiply(&self, proof: F::Proof, scalar: &[F::Word; 4]) -> (F, F) {
        let (zero, one) = (F::splat(proof, ZERO), F::splat(proof, ONE));
        let mut sum = Point { x: zero, y: one, z: one, t: zero };
        for column in (0..COLUMNS).rev() {
            sum = sum.double().point();
            let (index, negate) = F::digit(scalar, column + COLUMNS);
            sum = sum.add(&Addend::of(F::look_up(&self.0[1], index)), negate).point();
            let (index, negate) = F::digit(scalar, column);
            sum = sum.add(&Addend::of(F::look_up(&self.0[0], index)), negate).projective();
        }
        // u = (1 + y) / (1 - y).
        (sum.z.add(sum.y), sum.z.sub(sum.y))
    }
}

/// One coordinate of one entry, of each lane. Not inlined, or the compiler would make gathers of it.
#[inline(never)]
fn limbs_of_each(lanes: &[&Kept], block: usize, at: usize, coordinate: usize) -> [Limbs; LANES_MAX] {
    let mut limbs = [lanes[0][block][at][coordinate]; LANES_MAX];
    for (limbs, table) in limbs.iter_mut().zip(lanes) {
        *limbs = table[block][at][coordinate];
    }
    limbs
}

/// Whether the point of a lane was on the curve, by the witness of [`inverse_roots`]. In variable time: points are public.
pub(crate) fn is_on_curve(witness: &[u8; 32]) -> bool {
    const ONE: [u8; 32] = {
        let mut one = [0; 32];
        one[0] = 1;
        one
    };
    const MINUS_ONE: [u8; 32] = {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    };
    [ONE, MINUS_ONE].contains(witness)
}

//! Multiples of a few points, each in vector registers of its own: the four coordinates in neighbouring lanes.
//!
//! What [`edwards`](crate::edwards) does with one point in each lane takes as long for one as for eight. Here a formula takes
//! two multiplications of vectors, one after the other, instead of eight (four products at the same time: Hisil, Wong, Carter
//! and Dawson, "Twisted Edwards Curves Revisited", 2008, section 4), and the two groups of four lanes do different work: two
//! points are doubled side by side for their tables; then each group has one block of the comb of one point, so that the two
//! additions of a column are one. The table, the recoding of scalars and all results are those of `edwards`.
//!
//! In a group, a point is X, Y, T, Z, an addend Y + X, 2 d T, Y - X, 2 Z.

use std::slice;

use crate::edwards::{COLUMNS, D2, ENTRIES, Point, inverse_roots};
use crate::erase::{Leavings, erase};
use crate::field::{Field, invert};
use crate::montgomery::{LANES_MAX, ONE, ZERO};
use crate::path::{Path, Work};
use crate::vector::{
    Avx512,
    ifma::Eight,
    quads::{Sum, order},
    with_avx512,
};
use crate::x25519::{Kept, Kind, have_tables, limbs_of_each, store, words_of_each, x25519};

/// Points that are multiplied side by side: what one waits for, another uses.
const SIDE_BY_SIDE: usize = 2;
/// Points that share an inversion.
const TOGETHER: usize = 4;

/// The comb of one point: entry j of the first block in the first group, of the second in the second.
#[derive(Clone, Copy)]
struct Table([[Eight; 1]; ENTRIES]);

/// 2 d in the lanes of 2 d T and 2 in those of 2 Z.
#[inline(always)]
fn factors(proof: Avx512) -> Eight {
    let two = [2, 0, 0, 0, 0];
    Eight::load(proof, &[ONE, D2, ONE, two, ONE, D2, ONE, two])
}

/// Y + X, T, Y - X, Z.
#[inline(always)]
fn prepared(point: Eight) -> Eight {
    let y = point.permute::<{ order([1, 2, 1, 3]) }>();
    let x = point.permute_some::<0b0101, { order([0, 0, 0, 0]) }>();
    y.plus_or_minus::<0b0100>(x).carried()
}

#[inline(always)]
fn addend(point: Eight, factors: Eight) -> Eight {
    prepared(point).mul_low_latency(factors)
}

/// The second half of both formulas: e f, g h, h e, f g, from a sum of e, g, h, f.
#[inline(always)]
fn completed(sum: Sum) -> Eight {
    let sum = sum.carried();
    sum.mul_low_latency(sum.permute::<{ order([3, 2, 0, 1]) }>())
}

/// Of both groups. The formula is that of section 3.3.
#[inline(always)]
fn double(point: Eight) -> Eight {
    // X Y, Y^2, X^2, Z^2.
    let products = point
        .permute::<{ order([0, 1, 0, 3]) }>()
        .mul_low_latency(point.permute::<{ order([1, 1, 0, 3]) }>());
    // e = 2 X Y, g = Y^2 - X^2, h = Y^2 + X^2, f = 2 Z^2 - g.
    let swapped = products.permute::<{ order([0, 2, 1, 3]) }>();
    let added = products.permute_some::<0b1000, { order([2, 2, 2, 2]) }>();
    let subtracted = products.permute_some::<0b1000, { order([1, 1, 1, 1]) }>();
    completed(products.plus_or_minus::<0b0010>(swapped).plus(added).minus(subtracted))
}

/// Adds each group to each; complete (section 3.1).
#[inline(always)]
fn add(point: Eight, addend: Eight) -> Eight {
    // b, c, a, d of the formula; e = b - a, g = d + c, h = b + a, f = d - c.
    let products = prepared(point).mul_low_latency(addend);
    completed(products.plus_or_minus::<0b1001>(products.permute::<{ order([2, 3, 0, 1]) }>()))
}

/// The points of lanes, as groups: lanes 2 i and 2 i + 1 are vector i.
#[inline(always)]
fn groups(proof: Avx512, points: &Point<Eight>) -> [Eight; LANES_MAX / 2] {
    let mut coordinates = [[ZERO; LANES_MAX]; 4];
    points.x.store(&mut coordinates[0]);
    points.y.store(&mut coordinates[1]);
    points.t.store(&mut coordinates[2]);
    points.z.store(&mut coordinates[3]);
    let mut groups = [points.x; LANES_MAX / 2];
    for (at, group) in groups.iter_mut().enumerate() {
        let mut lanes = [ZERO; LANES_MAX];
        for (lane, limbs) in lanes.iter_mut().enumerate() {
            *limbs = coordinates[lane % 4][2 * at + lane / 4];
        }
        *group = Eight::load(proof, &lanes);
    }
    groups
}

/// Makes the tables of 8 P, for the two points P of each vector. There may be room for fewer.
///
/// See [`edwards::Table::fill`](crate::edwards::Table::fill).
#[inline(always)]
fn fill<const N: usize>(proof: Avx512, mut points: [Eight; N], tables: &mut [Table]) {
    let factors = factors(proof);
    for _ in 0..3 {
        double_each(&mut points);
    }
    // Teeth 2 i and 2 i + 1 of each vector, and twice that.
    let mut teeth = [[points; 2]; 4];
    let mut twice = teeth;
    for tooth in 0..8 {
        teeth[tooth / 2][tooth % 2] = points;
        double_each(&mut points);
        twice[tooth / 2][tooth % 2] = points;
        if tooth < 7 {
            for _ in 1..COLUMNS {
                double_each(&mut points);
            }
        }
    }
    for (at, tables) in tables.chunks_mut(2).enumerate() {
        for (which, table) in tables.iter_mut().enumerate() {
            // Both blocks side by side.
            let mut blocks = [[points[0]; 2]; 4];
            for (blocks, (teeth, twice)) in blocks.iter_mut().zip(teeth.iter().zip(&twice)) {
                for (block, [even, odd]) in blocks.iter_mut().zip([teeth, twice]) {
                    *block = if which == 0 {
                        even[at].groups::<false>(odd[at])
                    } else {
                        even[at].groups::<true>(odd[at])
                    };
                }
            }
            let mut sums = [blocks[3][0]; ENTRIES];
            for lower in [2, 1, 0] {
                sums[0] = add(sums[0], addend(blocks[lower][0], factors).negate_addend(Eight::ALWAYS));
            }
            let mut next = 1;
            for block in &blocks[..3] {
                let twice = addend(block[1], factors);
                for sum in 0..next {
                    sums[next + sum] = add(sums[sum], twice);
                }
                next *= 2;
            }
            for (entry, sum) in table.0.iter_mut().zip(sums) {
                *entry = [addend(sum, factors)];
            }
        }
    }
}

#[inline(always)]
fn double_each<const N: usize>(points: &mut [Eight; N]) {
    let mut at = 0;
    while at < N {
        points[at] = double(points[at]);
        at += 1;
    }
}

impl Table {
    /// Room for a table.
    #[inline(always)]
    fn empty(proof: Avx512) -> Self {
        Self([[Eight::splat(proof, ZERO)]; ENTRIES])
    }

    /// Takes a table that was made before.
    #[inline(always)]
    fn load(&mut self, proof: Avx512, kept: &crate::edwards::Kept) {
        for (at, entry) in self.0.iter_mut().enumerate() {
            let mut lanes = [ZERO; LANES_MAX];
            for (lanes, block) in lanes.chunks_mut(4).zip(kept) {
                let [sum, difference, z2, t2d] = block[at];
                lanes.copy_from_slice(&[sum, t2d, difference, z2]);
            }
            *entry = [Eight::load(proof, &lanes)];
        }
    }
}

/// m 8 P of each table, as the u-coordinate of the Montgomery form, a fraction of two tight elements, in all lanes of the
/// first group. The words are those of [`comb_words`](crate::scalar::comb_words) of m, in the first group; in the second,
/// without their lower 32 bits.
#[inline(always)]
fn multiply<const N: usize>(
    proof: Avx512,
    tables: &[&Table; N],
    scalars: &[[<Eight as Field>::Word; 4]; N],
) -> [(Eight, Eight); N] {
    let zero = Eight::splat(proof, ZERO);
    let neutral = Eight::load(proof, &[ZERO, ONE, ZERO, ONE, ZERO, ONE, ZERO, ONE]);
    let mut sums = [neutral; N];
    for column in (0..COLUMNS).rev() {
        let mut at = 0;
        while at < N {
            if column < COLUMNS - 1 {
                sums[at] = double(sums[at]);
            }
            let (index, negate) = Eight::digit_of_addend(&scalars[at], column);
            let [found] = Eight::look_up(&tables[at].0, index);
            sums[at] = add(sums[at], found.negate_addend(negate));
            at += 1;
        }
    }
    let factors = factors(proof);
    let mut fractions = [(zero, zero); N];
    let mut at = 0;
    while at < N {
        let other = sums[at].groups::<true>(sums[at]);
        let sum = add(sums[at], addend(other, factors));
        // u = (1 + y) / (1 - y).
        let z = sum.permute::<{ order([3, 3, 3, 3]) }>();
        let y = sum.permute::<{ order([1, 1, 1, 1]) }>();
        fractions[at] = (z.add(y), z.sub(y));
        sums[at].wipe();
        at += 1;
    }
    fractions
}

/// Points with their tables.
pub(crate) struct Few<const N: usize> {
    tables: [Table; N],
    points: [[u8; 32]; N],
    /// Whether a point has a table: it is on the curve, and not of small order.
    have_tables: [bool; N],
    len: usize,
}

impl<const N: usize> Few<N> {
    pub(crate) fn empty(proof: Avx512) -> Self {
        Self { tables: [Table::empty(proof); N], points: [[0; 32]; N], have_tables: [false; N], len: 0 }
    }

    pub(crate) fn set(&mut self, proof: Avx512, points: &[&[u8; 32]]) {
        with_avx512::<Eight>(proof, Fill { few: self, points });
    }

    pub(crate) fn set_kept(&mut self, proof: Avx512, points: &[&Kept]) {
        with_avx512::<Eight>(proof, Refill { few: self, points });
    }

    /// Points without a table climb the ladder, each by itself.
    pub(crate) fn multiply(&self, proof: Avx512, scalars: &[&[u8; 32]], kind: Kind, out: &mut [[u8; 32]]) {
        assert!(
            scalars.len() <= self.len && out.len() == scalars.len(),
            "a point, a scalar and a product of each"
        );
        let chunks = scalars.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER));
        for (at, (scalars, out)) in (0..).step_by(TOGETHER).zip(chunks) {
            let (tables, have_tables) = (&self.tables[at..], &self.have_tables[at..]);
            with_avx512::<Eight>(proof, Multiply { tables, have_tables, scalars, kind, out });
        }
        for (at, (scalar, out)) in scalars.iter().zip(out).enumerate() {
            if !self.have_tables[at] {
                assert!(kind.climbs(), "an eighth is for points on the curve, of large order");
                x25519(Path::PORTABLE, &[&self.points[at]], &[scalar], slice::from_mut(out));
            }
        }
    }
}

struct Fill<'a, const N: usize> {
    few: &'a mut Few<N>,
    points: &'a [&'a [u8; 32]],
}

impl<const N: usize> Work<Eight> for Fill<'_, N> {
    const LEAVES: Leavings = Leavings::Public;

    #[inline(always)]
    fn run(self, proof: Avx512) {
        let few = self.few;
        few.len = self.points.len();
        for (group, points) in self.points.chunks(LANES_MAX).enumerate() {
            let first = group * LANES_MAX;
            let limbs = limbs_of_each(points);
            let u = Eight::load(proof, &limbs);
            let [roots] = inverse_roots(proof, &[u]);
            let vectors = groups(proof, &Point::of(proof, u, roots));
            let tables = &mut few.tables[first..][..points.len()];
            for (tables, vectors) in tables.chunks_mut(2 * SIDE_BY_SIDE).zip(vectors.chunks(SIDE_BY_SIDE)) {
                if tables.len() <= 2 {
                    fill(proof, [vectors[0]], tables);
                } else {
                    fill(proof, [vectors[0], vectors[1]], tables);
                }
            }
            let (mut encoded, mut witnesses) = ([[0; 32]; LANES_MAX], [[0; 32]; LANES_MAX]);
            store(u, &mut encoded);
            store(roots.1, &mut witnesses);
            for (at, point) in points.iter().enumerate() {
                few.points[first + at] = **point;
                few.have_tables[first + at] = have_tables(&encoded[at..=at], &witnesses[at..=at]);
            }
        }
    }
}

/// Tables that were made before.
struct Refill<'a, const N: usize> {
    few: &'a mut Few<N>,
    points: &'a [&'a Kept],
}

impl<const N: usize> Work<Eight> for Refill<'_, N> {
    const LEAVES: Leavings = Leavings::Public;

    #[inline(always)]
    fn run(self, proof: Avx512) {
        self.few.len = self.points.len();
        for (at, point) in self.points.iter().enumerate() {
            self.few.tables[at].load(proof, point.table());
            self.few.have_tables[at] = true;
        }
    }
}

/// As many tables and scalars as there is room for on the part of the stack that is erased.
struct Multiply<'a> {
    tables: &'a [Table],
    have_tables: &'a [bool],
    scalars: &'a [&'a [u8; 32]],
    kind: Kind,
    out: &'a mut [[u8; 32]],
}

impl Work<Eight> for Multiply<'_> {
    const LEAVES: Leavings = Leavings::Large;

    #[inline(always)]
    fn run(self, proof: Avx512) {
        let one = Eight::splat(proof, ONE);
        // One inversion serves all, as in `x25519`.
        let mut fractions = [(one, one); TOGETHER];
        let mut products = [one; TOGETHER];
        let mut product = one;
        for (group, scalars) in self.scalars.chunks(SIDE_BY_SIDE).enumerate() {
            let first = group * SIDE_BY_SIDE;
            if let [one, other] = scalars {
                let tables = [&self.tables[first], &self.tables[first + 1]];
                let mut words = [load_scalar(proof, one, self.kind), load_scalar(proof, other, self.kind)];
                [fractions[first], fractions[first + 1]] = multiply(proof, &tables, &words);
                Eight::wipe_words(&mut words[0]);
                Eight::wipe_words(&mut words[1]);
            } else {
                let mut words = [load_scalar(proof, scalars[0], self.kind)];
                [fractions[first]] = multiply(proof, &[&self.tables[first]], &words);
                Eight::wipe_words(&mut words[0]);
            }
        }
        let count = self.scalars.len();
        for at in 0..count {
            if self.have_tables[at] {
                products[at] = product;
                product = product.mul(fractions[at].1);
            }
        }
        let [mut inverse] = invert(&[product]);
        for at in (0..count).rev() {
            if self.have_tables[at] {
                let mut result = fractions[at].0.mul(inverse.mul(products[at]));
                inverse = inverse.mul(fractions[at].1);
                store(result, slice::from_mut(&mut self.out[at]));
                result.wipe();
            }
        }
        for (numerator, denominator) in &mut fractions {
            numerator.wipe();
            denominator.wipe();
        }
        for secret in &mut products {
            secret.wipe();
        }
        product.wipe();
        inverse.wipe();
    }
}

/// Reads the scalar of one point, for both blocks of its comb.
#[inline(always)]
fn load_scalar(proof: Avx512, scalar: &[u8; 32], kind: Kind) -> [<Eight as Field>::Word; 4] {
    let mut words = words_of_each(slice::from_ref(&scalar), kind);
    for word in &mut words {
        let (first, second) = (word[0], word[0] >> COLUMNS);
        *word = [first, first, first, first, second, second, second, second];
    }
    let loaded = [
        Eight::words(proof, &words[0]),
        Eight::words(proof, &words[1]),
        Eight::words(proof, &words[2]),
        Eight::words(proof, &words[3]),
    ];
    erase(&mut words);
    loaded
}

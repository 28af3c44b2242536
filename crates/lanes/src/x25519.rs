//! Multiplication on Curve25519 (RFC 7748), several points at a time.
//!
//! Two ways lead to the same bytes: [`x25519`] climbs a ladder for each point; [`Multiples`] makes a table of each point
//! first, and is the faster one if a point is multiplied more than once.

use std::sync::OnceLock;

use crate::edwards::{self, Table, inverse_roots, is_on_curve};
use crate::erase::{Leavings, erase};
#[cfg(target_arch = "x86_64")]
use crate::few::Few;
use crate::field::{Field, Limbs, bytes_of, invert, limbs_of};
use crate::montgomery::{self, LANES_MAX, ONE};
use crate::path::{Isa, Path, Work, in_one_lane};
use crate::portable::Portable;
use crate::scalar::{Words, clamped, comb_words, eighth, words_of};
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512, avx2::Four, ifma::Eight, with_avx2, with_avx512};

/// How many points [`Multiples`] takes at once.
pub const BATCH: usize = 16;

/// Vectors whose roots are taken side by side.
const GROUP: usize = 2;

/// The base point.
const BASE: Limbs = [9, 0, 0, 0, 0];
/// The same as bytes.
const BASE_BYTES: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 9;
    bytes
};

/// Every u of a point whose order divides 8, as [`bytes_of`] gives them.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// X25519 of each point with its scalar: `out[i] = clamp(scalars[i]) * points[i]`, as RFC 7748, section 5, has it: the
/// top bit of a point is ignored, a number of p or more is taken modulo p, and a point of small order gives zero.
///
/// Constant time: neither branches nor addresses depend on points or scalars.
///
/// # Panics
///
/// If the three slices do not have the same length.
pub fn x25519(path: Path, points: &[&[u8; 32]], scalars: &[&[u8; 32]], out: &mut [[u8; 32]]) {
    assert!(
        points.len() == scalars.len() && points.len() == out.len(),
        "one scalar and one product per point"
    );
    let lanes = path.lanes();
    for ((points, scalars), out) in points.chunks(lanes).zip(scalars.chunks(lanes)).zip(out.chunks_mut(lanes))
    {
        let climb = Climb { points, scalars, out };
        match path.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) => with_avx512::<Eight>(proof, climb),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) => with_avx2::<Four>(proof, climb),
            // A ladder has no use for lanes.
            #[cfg(target_arch = "x86_64")]
            Isa::Few(_) => in_one_lane::<Portable>(climb),
            Isa::Portable => in_one_lane::<Portable>(climb),
        }
    }
}

/// One ladder in each lane; no more points than lanes.
struct Climb<'a> {
    points: &'a [&'a [u8; 32]],
    scalars: &'a [&'a [u8; 32]],
    out: &'a mut [[u8; 32]],
}

impl<F: Field> Work<F> for Climb<'_> {
    const LEAVES: Leavings = Leavings::Large;

    #[inline(always)]
    fn run(self, proof: F::Proof) {
        let u = load_points::<F>(proof, self.points);
        let mut scalar = load_scalars::<F>(proof, self.scalars, Kind::Climbed);
        let mut product = montgomery::x25519(proof, u, &scalar);
        store(product, self.out);
        F::wipe_words(&mut scalar);
        product.wipe();
    }
}

/// Up to [`BATCH`] points, each with a table that makes its multiples cheap.
///
/// A table is worth its price if its point is multiplied twice or more: together with the two multiplications it takes
/// about two thirds of the work of two ladders.
pub struct Multiples(Inner);

/// Large either way, and never moved about.
#[expect(clippy::large_enum_variant, reason = "all variants hold tables for as many points")]
enum Inner {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Vectors<Eight, { BATCH / 8 }>),
    #[cfg(target_arch = "x86_64")]
    Few(Avx512, Few<BATCH>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2, Vectors<Four, { BATCH / 4 }>),
    Portable(Vectors<Portable, BATCH>),
}

/// Vectors of points with their tables.
struct Vectors<F: Field, const N: usize> {
    tables: [Table<F>; N],
    points: [F; N],
    /// Whether all points of a vector have a table: they are on the curve, and not of small order.
    have_tables: [bool; N],
    len: usize,
}

impl Multiples {
    /// Room for [`BATCH`] points.
    #[must_use]
    pub fn new(path: Path) -> Self {
        Self(match path.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) => Inner::Avx512(proof, Vectors::empty(proof)),
            #[cfg(target_arch = "x86_64")]
            Isa::Few(proof) => Inner::Few(proof, Few::empty(proof)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) => Inner::Avx2(proof, Vectors::empty(proof)),
            Isa::Portable => Inner::Portable(Vectors::empty(())),
        })
    }

    /// Takes points in the place of those before. What [`x25519`] says of odd encodings and of small order holds.
    ///
    /// Takes longer if a point is not on the curve but on its twist, which no honest public key is: points are not
    /// secret.
    ///
    /// # Panics
    ///
    /// If there are more than [`BATCH`].
    pub fn set(&mut self, points: &[&[u8; 32]]) {
        assert!(points.len() <= BATCH, "at most {BATCH} points, not {}", points.len());
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(proof, lanes) => with_avx512::<Eight>(*proof, Fill { lanes, points }),
            #[cfg(target_arch = "x86_64")]
            Inner::Few(proof, few) => few.set(*proof, points),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(proof, lanes) => with_avx2::<Four>(*proof, Fill { lanes, points }),
            Inner::Portable(lanes) => in_one_lane::<Portable>(Fill { lanes, points }),
        }
    }

    /// Takes points whose tables were kept in the place of those before: for a fifth of what it takes to make them.
    ///
    /// # Panics
    ///
    /// If there are more than [`BATCH`].
    pub fn set_kept(&mut self, points: &[&Kept]) {
        assert!(points.len() <= BATCH, "at most {BATCH} points, not {}", points.len());
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(proof, lanes) => with_avx512::<Eight>(*proof, Refill { lanes, points }),
            #[cfg(target_arch = "x86_64")]
            Inner::Few(proof, few) => few.set_kept(*proof, points),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(proof, lanes) => with_avx2::<Four>(*proof, Refill { lanes, points }),
            Inner::Portable(lanes) => in_one_lane::<Portable>(Refill { lanes, points }),
        }
    }

    /// X25519 of each point with its scalar, in the order in which they were set.
    ///
    /// Neither branches nor addresses depend on scalars.
    ///
    /// # Panics
    ///
    /// If there are more scalars than points, or not as much room as scalars.
    pub fn multiply(&self, scalars: &[&[u8; 32]], out: &mut [[u8; 32]]) {
        self.multiply_by(scalars, Kind::Clamped, out);
    }

    /// The u-coordinate of `8 * scalars[i]` times each point, for scalars that are reduced modulo the order l of the prime
    /// subgroup: what successive X25519 give whose clamped scalars, multiplied and divided by 8, leave that modulo l, if
    /// the point is in that subgroup.
    ///
    /// Neither branches nor addresses depend on scalars. None may be zero modulo l: its product, and others with it, would be
    /// zero.
    ///
    /// # Panics
    ///
    /// If there are more scalars than points, or not as much room as scalars; or if a point is on the twist or of small order.
    pub fn multiply_eighths(&self, scalars: &[&[u8; 32]], out: &mut [[u8; 32]]) {
        self.multiply_by(scalars, Kind::Eighth, out);
    }

    fn multiply_by(&self, scalars: &[&[u8; 32]], kind: Kind, out: &mut [[u8; 32]]) {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(proof, lanes) => {
                with_avx512::<Eight>(*proof, Multiply { lanes, scalars, kind, out });
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Few(proof, few) => few.multiply(*proof, scalars, kind, out),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(proof, lanes) => {
                with_avx2::<Four>(*proof, Multiply { lanes, scalars, kind, out });
            }
            Inner::Portable(lanes) => in_one_lane::<Portable>(Multiply { lanes, scalars, kind, out }),
        }
    }
}

/// X25519 of the base point with each scalar: the public keys.
///
/// Neither branches nor addresses depend on scalars. The first call makes a table that is kept, of some kilobytes.
///
/// # Panics
///
/// If there is not as much room as scalars.
pub fn x25519_base(path: Path, scalars: &[&[u8; 32]], out: &mut [[u8; 32]]) {
    assert!(scalars.len() == out.len(), "one product per scalar");
    for (scalars, out) in scalars.chunks(path.lanes()).zip(out.chunks_mut(path.lanes())) {
        let points = &[&BASE_BYTES; LANES_MAX][..path.lanes()];
        match path.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) => {
                static TABLE: OnceLock<Box<Vectors<Eight, 1>>> = OnceLock::new();
                let lanes = TABLE.get_or_init(|| {
                    let mut lanes = Box::new(Vectors::empty(proof));
                    with_avx512::<Eight>(proof, Fill { lanes: &mut *lanes, points });
                    lanes
                });
                with_avx512::<Eight>(proof, Multiply { lanes: &**lanes, scalars, kind: Kind::Clamped, out });
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Few(proof) => {
                static TABLE: OnceLock<Box<Few<1>>> = OnceLock::new();
                let few = TABLE.get_or_init(|| {
                    let mut few = Box::new(Few::empty(proof));
                    few.set(proof, points);
                    few
                });
                few.multiply(proof, scalars, Kind::Clamped, out);
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) => {
                static TABLE: OnceLock<Box<Vectors<Four, 1>>> = OnceLock::new();
                let lanes = TABLE.get_or_init(|| {
                    let mut lanes = Box::new(Vectors::empty(proof));
                    with_avx2::<Four>(proof, Fill { lanes: &mut *lanes, points });
                    lanes
                });
                with_avx2::<Four>(proof, Multiply { lanes: &**lanes, scalars, kind: Kind::Clamped, out });
            }
            Isa::Portable => {
                static TABLE: OnceLock<Box<Vectors<Portable, 1>>> = OnceLock::new();
                let lanes = TABLE.get_or_init(|| {
                    let mut lanes = Box::new(Vectors::empty(()));
                    in_one_lane::<Portable>(Fill { lanes: &mut *lanes, points });
                    lanes
                });
                in_one_lane::<Portable>(Multiply { lanes: &**lanes, scalars, kind: Kind::Clamped, out });
            }
        }
    }
}

/// What the bytes of a scalar mean, and how it is multiplied by.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// They are clamped, for a ladder.
    Climbed,
    /// They are clamped, for a table; the product is that of X25519.
    Clamped,
    /// They are an eighth of the factor, modulo l.
    Eighth,
}

impl Kind {
    /// Whether a ladder gives the same.
    pub(crate) const fn climbs(self) -> bool {
        !matches!(self, Self::Eighth)
    }

    /// The words that a ladder or a table takes.
    pub(crate) fn words(self, bytes: &[u8; 32]) -> Words {
        match self {
            Self::Climbed => clamped(bytes),
            Self::Clamped => comb_words(&eighth(&clamped(bytes))),
            Self::Eighth => comb_words(&words_of(bytes)),
        }
    }
}

/// One point with its table, for points that are multiplied again and again, each time with others beside them: see
/// [`Multiples::set_kept`]. Takes 2.5 kB.
#[derive(Clone)]
pub struct Kept {
    point: [u8; 32],
    table: edwards::Kept,
}

impl Kept {
    /// Makes the table; `None` for points that have none, those on the twist or of small order.
    #[must_use]
    pub fn new(point: &[u8; 32]) -> Option<Self> {
        let Single(lanes) = Single::new(point);
        lanes.have_tables[0].then(|| Self { point: *point, table: lanes.tables[0].keep(()) })
    }

    /// Its table.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn table(&self) -> &edwards::Kept {
        &self.table
    }

    /// The point, as it was given.
    #[must_use]
    pub const fn point(&self) -> &[u8; 32] {
        &self.point
    }
}

/// One point with its table, on the portable path: for whoever has a single point, and no use for lanes.
pub struct Single(Vectors<Portable, 1>);

impl Single {
    /// Takes a point; see [`Multiples::set`].
    #[must_use]
    pub fn new(point: &[u8; 32]) -> Self {
        let mut lanes = Vectors::empty(());
        in_one_lane::<Portable>(Fill { lanes: &mut lanes, points: &[point] });
        Self(lanes)
    }

    /// X25519 of the point with a scalar; see [`Multiples::multiply`].
    #[must_use]
    pub fn multiply(&self, scalar: &[u8; 32]) -> [u8; 32] {
        let mut out = [[0; 32]];
        in_one_lane::<Portable>(Multiply {
            lanes: &self.0,
            scalars: &[scalar],
            kind: Kind::Clamped,
            out: &mut out,
        });
        out[0]
    }
}

impl<F: Field, const N: usize> Vectors<F, N> {
    fn empty(proof: F::Proof) -> Self {
        Self {
            tables: [Table::empty(proof); N],
            points: [F::splat(proof, ONE); N],
            have_tables: [false; N],
            len: 0,
        }
    }
}

struct Fill<'a, F: Field, const N: usize> {
    lanes: &'a mut Vectors<F, N>,
    points: &'a [&'a [u8; 32]],
}

impl<F: Field, const N: usize> Work<F> for Fill<'_, F, N> {
    const LEAVES: Leavings = Leavings::Public;

    #[inline(always)]
    fn run(self, proof: F::Proof) {
        let lanes = self.lanes;
        lanes.len = self.points.len();
        for (group, points) in self.points.chunks(GROUP * F::LANES).enumerate() {
            let mut us = [F::splat(proof, BASE); GROUP];
            for (u, points) in us.iter_mut().zip(points.chunks(F::LANES)) {
                *u = load_points(proof, points);
            }
            let roots = inverse_roots(proof, &us);
            let vectors = us.into_iter().zip(roots).take(points.len().div_ceil(F::LANES));
            for ((u, root), at) in vectors.zip(group * GROUP..) {
                lanes.points[at] = u;
                lanes.tables[at].fill(proof, u, root);
                let (mut encoded, mut witnesses) = ([[0; 32]; LANES_MAX], [[0; 32]; LANES_MAX]);
                store(u, &mut encoded[..F::LANES]);
                store(root.1, &mut witnesses[..F::LANES]);
                lanes.have_tables[at] = have_tables(&encoded[..F::LANES], &witnesses[..F::LANES]);
            }
        }
    }
}

/// Tables that were made before, for the points of [`Vectors`].
struct Refill<'a, F: Field, const N: usize> {
    lanes: &'a mut Vectors<F, N>,
    points: &'a [&'a Kept],
}

impl<F: Field, const N: usize> Work<F> for Refill<'_, F, N> {
    const LEAVES: Leavings = Leavings::Public;

    #[inline(always)]
    fn run(self, proof: F::Proof) {
        let lanes = self.lanes;
        lanes.len = self.points.len();
        for (at, points) in self.points.chunks(F::LANES).enumerate() {
            let mut tables = [&points[0].table; LANES_MAX];
            for (table, point) in tables.iter_mut().zip(points) {
                *table = &point.table;
            }
            lanes.tables[at].load(proof, &tables[..F::LANES]);
            // The points themselves are for ladders only, which none of these needs.
            lanes.have_tables[at] = true;
        }
    }
}

/// Whether all points of a vector have a table. In variable time, and not inlined among code that must not be: points are
/// public.
#[inline(never)]
pub(crate) fn have_tables(points: &[[u8; 32]], witnesses: &[[u8; 32]]) -> bool {
    points.iter().zip(witnesses).all(|(u, witness)| is_on_curve(witness) && !SMALL_ORDER.contains(u))
}

struct Multiply<'a, F: Field, const N: usize> {
    lanes: &'a Vectors<F, N>,
    scalars: &'a [&'a [u8; 32]],
    kind: Kind,
    out: &'a mut [[u8; 32]],
}

impl<F: Field, const N: usize> Work<F> for Multiply<'_, F, N> {
    const LEAVES: Leavings = Leavings::Large;

    #[inline(always)]
    fn run(self, proof: F::Proof) {
        let lanes = self.lanes;
        let count = self.scalars.len();
        assert!(count <= lanes.len && self.out.len() == count, "a point, a scalar and a product of each");
        let one = F::splat(proof, ONE);
        let (mut numerators, mut denominators) = ([one; N], [one; N]);
        // Products of the denominators up to each: one inversion serves them all (Montgomery). None is zero, since a
        // point that has a table is not of small order, and no clamped scalar is a multiple of the order of the group.
        let mut products = [one; N];
        let mut product = one;
        for (at, scalars) in self.scalars.chunks(F::LANES).enumerate() {
            if lanes.have_tables[at] {
                let mut scalar = load_scalars::<F>(proof, scalars, self.kind);
                (numerators[at], denominators[at]) = lanes.tables[at].multiply(proof, &scalar);
                products[at] = product;
                product = product.mul(denominators[at]);
                F::wipe_words(&mut scalar);
            }
        }
        let [mut inverse] = invert(&[product]);
        for (at, scalars) in self.scalars.chunks(F::LANES).enumerate().rev() {
            let out = &mut self.out[at * F::LANES..][..scalars.len()];
            let mut result = if lanes.have_tables[at] {
                let result = numerators[at].mul(inverse.mul(products[at]));
                inverse = inverse.mul(denominators[at]);
                result
            } else {
                assert!(self.kind.climbs(), "an eighth is for points on the curve, of large order");
                let mut scalar = load_scalars::<F>(proof, scalars, Kind::Climbed);
                let result = montgomery::x25519(proof, lanes.points[at], &scalar);
                F::wipe_words(&mut scalar);
                result
            };
            store(result, out);
            result.wipe();
        }
        for secret in numerators.iter_mut().chain(&mut denominators).chain(&mut products) {
            secret.wipe();
        }
        product.wipe();
        inverse.wipe();
    }
}

/// Reads the points of a vector; lanes without one get the base point, so that they do not look odd.
#[inline(always)]
fn load_points<F: Field>(proof: F::Proof, points: &[&[u8; 32]]) -> F {
    F::load(proof, &limbs_of_each(points)[..F::LANES])
}

/// Reads the scalars of a vector, each as four words.
#[inline(always)]
fn load_scalars<F: Field>(proof: F::Proof, scalars: &[&[u8; 32]], kind: Kind) -> [F::Word; 4] {
    let mut words = words_of_each(scalars, kind);
    let lanes = F::LANES;
    let loaded = [
        F::words(proof, &words[0][..lanes]),
        F::words(proof, &words[1][..lanes]),
        F::words(proof, &words[2][..lanes]),
        F::words(proof, &words[3][..lanes]),
    ];
    erase(&mut words);
    loaded
}

/// Writes as many lanes as there is room for.
#[inline(always)]
pub(crate) fn store<F: Field>(element: F, out: &mut [[u8; 32]]) {
    let mut lanes: [Limbs; LANES_MAX] = [[0; 5]; LANES_MAX];
    element.store(&mut lanes[..F::LANES]);
    bytes_of_each(&lanes, out);
    erase(&mut lanes);
}

// The three below are not inlined: in a function with vector instructions, the compiler would make gathers and scatters of
// them, and they would be other code than what valgrind can check on the portable path.

#[inline(never)]
pub(crate) fn limbs_of_each(points: &[&[u8; 32]]) -> [Limbs; LANES_MAX] {
    let mut lanes = [BASE; LANES_MAX];
    for (lane, point) in lanes.iter_mut().zip(points) {
        *lane = limbs_of(point);
    }
    lanes
}

#[inline(never)]
pub(crate) fn words_of_each(scalars: &[&[u8; 32]], kind: Kind) -> [[u64; LANES_MAX]; 4] {
    let mut words = [[0; LANES_MAX]; 4];
    for (lane, scalar) in scalars.iter().enumerate() {
        let mut recoded = kind.words(scalar);
        for (word, part) in words.iter_mut().zip(recoded) {
            word[lane] = part;
        }
        erase(&mut recoded);
    }
    words
}

#[inline(never)]
fn bytes_of_each(lanes: &[Limbs; LANES_MAX], out: &mut [[u8; 32]]) {
    for (out, lane) in out.iter_mut().zip(lanes) {
        *out = bytes_of(lane);
    }
}

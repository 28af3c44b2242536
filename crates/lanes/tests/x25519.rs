//! Every path and lane against RFC 7748 and against `curve25519-dalek`, on a million random pairs of points and scalars, and on
//! odd ones.
//!
//! RFC 7748's million iterations are ignored: `cargo xtask soak` runs them, or
//! `cargo test --release -p tombola-lanes -- --ignored`.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tombola_lanes::{BATCH, Kept, Multiples, Path, Single, x25519, x25519_base};

type Bytes = [u8; 32];

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn random(rng: &mut ChaCha20Rng) -> Bytes {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn hex(text: &str) -> Bytes {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

fn dalek(point: &Bytes, scalar: &Bytes) -> Bytes {
    MontgomeryPoint(*point).mul_clamped(*scalar).to_bytes()
}

/// Each point times two scalars, in every way that the crate has.
fn check(points: &[Bytes], scalars: [&[Bytes]; 2]) {
    let points_by_reference: Vec<_> = points.iter().collect();
    let by_reference = scalars.map(|scalars| scalars.iter().collect::<Vec<_>>());
    let expected = scalars.map(|scalars| {
        points.iter().zip(scalars).map(|(point, scalar)| dalek(point, scalar)).collect::<Vec<_>>()
    });
    for path in Path::all() {
        let mut multiples = Multiples::new(path);
        multiples.set(&points_by_reference);
        for (scalars, expected) in by_reference.iter().zip(&expected) {
            let mut out = vec![[0; 32]; points.len()];
            x25519(path, &points_by_reference, scalars, &mut out);
            assert_eq!(&out, expected, "ladder, {}: {points:02x?} {scalars:02x?}", path.name());
            let mut out = vec![[0; 32]; points.len()];
            multiples.multiply(scalars, &mut out);
            assert_eq!(&out, expected, "table, {}: {points:02x?} {scalars:02x?}", path.name());
        }
    }
}

/// Each point times a scalar, alone.
fn check_alone(points: &[Bytes], scalars: &[Bytes]) {
    for (point, scalar) in points.iter().zip(scalars) {
        let expected = dalek(point, scalar);
        assert_eq!(Single::new(point).multiply(scalar), expected, "{point:02x?} {scalar:02x?}");
    }
}

/// RFC 7748, section 5.2.
#[test]
fn vectors_of_the_rfc() {
    let points = [
        hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        hex("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
    ];
    let scalars = [
        hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        hex("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
    ];
    let products = [
        hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
        hex("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
    ];
    for path in Path::all() {
        let mut out = [[0; 32]; 2];
        x25519(path, &[&points[0], &points[1]], &[&scalars[0], &scalars[1]], &mut out);
        assert_eq!(out, products, "{}", path.name());
        let mut multiples = Multiples::new(path);
        multiples.set(&[&points[0], &points[1]]);
        let mut out = [[0; 32]; 2];
        multiples.multiply(&[&scalars[0], &scalars[1]], &mut out);
        assert_eq!(out, products, "{}", path.name());
    }
}

/// RFC 7748, section 5.2: the product becomes the scalar, the scalar the point. In every lane at the same time, by ladders and
/// by tables.
fn iterated(times: u32, expected: &str) {
    let expected = hex(expected);
    for path in Path::all() {
        iterated_with(times, path, &expected, |points, scalars, out| x25519(path, points, scalars, out));
        let mut multiples = Multiples::new(path);
        iterated_with(times, path, &expected, |points, scalars, out| {
            multiples.set(points);
            multiples.multiply(scalars, out);
        });
    }
}

fn iterated_with(
    times: u32,
    path: Path,
    expected: &Bytes,
    mut multiply: impl FnMut(&[&Bytes], &[&Bytes], &mut [Bytes]),
) {
    let mut base = [0; 32];
    base[0] = 9;
    // More lanes than there are would take the same way, one after the other.
    let (mut points, mut scalars) = (vec![base; path.lanes()], vec![base; path.lanes()]);
    let mut products = vec![base; path.lanes()];
    for _ in 0..times {
        multiply(&points.iter().collect::<Vec<_>>(), &scalars.iter().collect::<Vec<_>>(), &mut products);
        std::mem::swap(&mut points, &mut scalars);
        std::mem::swap(&mut scalars, &mut products);
    }
    assert!(scalars.iter().all(|scalar| scalar == expected), "{}", path.name());
}

#[test]
fn a_thousand_iterations() {
    iterated(1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    iterated(1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
}

#[test]
#[ignore = "some minutes: part of `cargo xtask soak`"]
fn a_million_iterations() {
    iterated(1_000_000, "7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424");
}

/// Points of every kind: on the curve and in the subgroup, on the curve with a part of small order, on the twist or not as
/// it comes, odd encodings, small numbers and those near p and 2^255, small order.
fn point_of_any_kind(rng: &mut ChaCha20Rng) -> Bytes {
    let edge = |rng: &mut ChaCha20Rng| {
        let mut bytes = if rng.next_u32().is_multiple_of(2) { [0; 32] } else { [0xff; 32] };
        bytes[0] = random(rng)[0];
        bytes[31] = [0x00, 0x7f, 0x80, 0xff][rng.next_u32() as usize % 4];
        bytes
    };
    let on_curve = |rng: &mut ChaCha20Rng| EdwardsPoint::mul_base_clamped(random(rng));
    match rng.next_u32() % 8 {
        0..4 => on_curve(rng).to_montgomery().to_bytes(),
        4 => (on_curve(rng) + EIGHT_TORSION[1 + rng.next_u32() as usize % 7]).to_montgomery().to_bytes(),
        5 => random(rng),
        6 => edge(rng),
        _ => EIGHT_TORSION[rng.next_u32() as usize % 8].to_montgomery().to_bytes(),
    }
}

fn scalar_of_any_kind(rng: &mut ChaCha20Rng) -> Bytes {
    match rng.next_u32() % 8 {
        0 => [[0; 32], [0xff; 32], [0x55; 32], [0xaa; 32]][rng.next_u32() as usize % 4],
        // Around multiples of the order: m and m + l of the comb.
        1 => (Scalar::from(rng.next_u32() % 16) - Scalar::from(8_u32)).to_bytes(),
        _ => random(rng),
    }
}

/// Batches of all sizes. Most have only points with tables, else the table would hardly ever be used in a wide vector: one
/// point without makes all of its vector climb.
fn random_batches(seed: u8, points: usize) {
    let mut rng = rng(seed);
    let mut done = 0;
    while done < points {
        let count = 1 + rng.next_u32() as usize % BATCH;
        let mixed = rng.next_u32().is_multiple_of(4);
        let batch: Vec<_> = (0..count)
            .map(|_| match mixed {
                true => point_of_any_kind(&mut rng),
                false => MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes(),
            })
            .collect();
        let scalars = [(); 2].map(|()| (0..count).map(|_| scalar_of_any_kind(&mut rng)).collect::<Vec<_>>());
        check(&batch, [&scalars[0], &scalars[1]]);
        if mixed {
            check_alone(&batch[..1], &scalars[0]);
        }
        done += count;
    }
}

/// Half a million points, each times two scalars, in every way that the crate has. A minute or two, on all cores; the same
/// inputs on any number of them.
#[test]
fn a_million_products_of_every_kind() {
    const PIECES: u8 = 100;
    let next = AtomicU8::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= PIECES {
                        break;
                    }
                    random_batches(100 + piece, 500_000 / usize::from(PIECES));
                }
            });
        }
    });
}

/// Points of small order, those in odd encodings, on the twist, and with a part of small order.
fn odd_points() -> Vec<Bytes> {
    let near = |low: u8, high: u8| {
        let mut bytes = [if high & 0x7f == 0x7f { 0xff } else { 0 }; 32];
        (bytes[0], bytes[31]) = (low, high);
        bytes
    };
    let mut odd: Vec<Bytes> = EIGHT_TORSION.iter().map(|point| point.to_montgomery().to_bytes()).collect();
    // p - 2 to 2^255 - 1 and 0 to 3, with the top bit clear and set; then points on the twist, and mixed ones.
    odd.extend((0xeb..=0xff).flat_map(|low| [near(low, 0x7f), near(low, 0xff)]));
    odd.extend((0..4).flat_map(|low| [near(low, 0), near(low, 0x80)]));
    odd.extend((2..40).map(|u| near(u, 0)).filter(|u| MontgomeryPoint(*u).to_edwards(0).is_none()));
    odd.extend(EIGHT_TORSION.map(|torsion| (ED25519_BASEPOINT_POINT + torsion).to_montgomery().to_bytes()));
    odd
}

/// Every odd point in every lane of every size of batch, among sound ones.
#[test]
fn each_odd_point_in_each_lane() {
    let mut rng = rng(3);
    for (number, point) in odd_points().iter().enumerate() {
        let lane = number % BATCH;
        let mut batch: Vec<_> =
            (0..BATCH).map(|_| MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes()).collect();
        batch[lane] = *point;
        batch.truncate(lane + 1 + number % (BATCH - lane));
        let scalars = [(); 2].map(|()| batch.iter().map(|_| random(&mut rng)).collect::<Vec<_>>());
        check(&batch, [&scalars[0], &scalars[1]]);
        check_alone(&batch, &scalars[0]);
    }
}

/// Every odd point in every place among few, sound ones and odd ones, where a point has a vector of its own.
#[test]
fn each_odd_point_among_few() {
    let mut rng = rng(8);
    let odd = odd_points();
    for point in &odd {
        for count in 1..=5 {
            for place in 0..count {
                let mut batch: Vec<_> = (0..count)
                    .map(|_| match rng.next_u32() % 4 {
                        0 => odd[rng.next_u32() as usize % odd.len()],
                        _ => MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes(),
                    })
                    .collect();
                batch[place] = *point;
                let scalars =
                    [(); 2].map(|()| (0..count).map(|_| scalar_of_any_kind(&mut rng)).collect::<Vec<_>>());
                check(&batch, [&scalars[0], &scalars[1]]);
            }
        }
    }
}

/// The path that is chosen for few points is there to be tested.
#[test]
fn all_paths_that_are_chosen_are_tested() {
    let all: Vec<_> = Path::all().collect();
    assert_eq!(all[0], Path::best());
    assert!((1..=BATCH).all(|points| all.contains(&Path::for_points(points))));
    assert_eq!(Path::for_points(BATCH), Path::best());
    if all.iter().any(|path| path.name() == "avx512ifma") {
        assert_eq!(Path::for_points(1).name(), "avx512ifma-few");
    }
}

#[test]
fn multiples_of_the_base_point() {
    let mut rng = rng(4);
    for path in Path::all() {
        for count in 0..=2 * BATCH + 1 {
            let scalars: Vec<_> = (0..count).map(|_| scalar_of_any_kind(&mut rng)).collect();
            let mut out = vec![[0; 32]; count];
            x25519_base(path, &scalars.iter().collect::<Vec<_>>(), &mut out);
            for (scalar, out) in scalars.iter().zip(out) {
                assert_eq!(out, MontgomeryPoint::mul_base_clamped(*scalar).to_bytes(), "{}", path.name());
            }
        }
    }
}

/// Clamped scalars one after the other, as the hops of a route multiply; and once, by an eighth of their product.
#[test]
fn a_product_of_clamped_scalars_is_one_multiplication() {
    let mut rng = rng(5);
    let eighth = Scalar::from(8_u32).invert();
    for path in Path::all() {
        for round in 0..100 {
            let count = 1 + round % BATCH;
            let points: Vec<_> =
                (0..count).map(|_| MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes()).collect();
            let factors: Vec<[Bytes; 5]> =
                (0..count).map(|_| std::array::from_fn(|_| scalar_of_any_kind(&mut rng))).collect();
            let products: Vec<_> = factors
                .iter()
                .map(|factors| {
                    let factors =
                        factors.iter().map(|bytes| Scalar::from_bytes_mod_order(clamp_integer(*bytes)));
                    (eighth * factors.product::<Scalar>()).to_bytes()
                })
                .collect();
            let mut multiples = Multiples::new(path);
            multiples.set(&points.iter().collect::<Vec<_>>());
            let mut out = vec![[0; 32]; count];
            multiples.multiply_eighths(&products.iter().collect::<Vec<_>>(), &mut out);
            for ((point, factors), out) in points.iter().zip(&factors).zip(out) {
                let expected = factors.iter().fold(*point, |point, factor| dalek(&point, factor));
                assert_eq!(out, expected, "{}", path.name());
            }
        }
    }
}

/// Tables that are kept and put together anew give what those give that are made together.
#[test]
fn kept_tables_are_those_of_their_points() {
    let mut rng = rng(7);
    let mut points: Vec<_> =
        (0..40).map(|_| MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes()).collect();
    points
        .extend(EIGHT_TORSION.map(|torsion| (ED25519_BASEPOINT_POINT + torsion).to_montgomery().to_bytes()));
    let kept: Vec<_> = points.iter().map(|point| Kept::new(point).unwrap()).collect();
    for path in Path::all() {
        let mut multiples = Multiples::new(path);
        for round in 0..200 {
            let count = 1 + round % BATCH;
            let chosen: Vec<_> = (0..count).map(|_| &kept[rng.next_u32() as usize % kept.len()]).collect();
            multiples.set_kept(&chosen);
            for _ in 0..2 {
                let scalars: Vec<_> = (0..count).map(|_| scalar_of_any_kind(&mut rng)).collect();
                let mut out = vec![[0; 32]; count];
                multiples.multiply(&scalars.iter().collect::<Vec<_>>(), &mut out);
                for ((kept, scalar), out) in chosen.iter().zip(&scalars).zip(out) {
                    assert_eq!(out, dalek(kept.point(), scalar), "{}", path.name());
                }
            }
        }
    }
    let twisted = {
        let mut two = [0; 32];
        two[0] = 2;
        two
    };
    assert!(Kept::new(&twisted).is_none() && Kept::new(&[0; 32]).is_none());
}

#[test]
fn an_eighth_of_one_is_eight_times_the_point() {
    let mut rng = rng(6);
    for path in Path::all() {
        let points: Vec<_> =
            (0..BATCH).map(|_| MontgomeryPoint::mul_base_clamped(random(&mut rng)).to_bytes()).collect();
        let mut multiples = Multiples::new(path);
        multiples.set(&points.iter().collect::<Vec<_>>());
        let one = Scalar::ONE.to_bytes();
        let mut out = [[0; 32]; BATCH];
        multiples.multiply_eighths(&[&one; BATCH], &mut out);
        for (point, out) in points.iter().zip(out) {
            let point = MontgomeryPoint(*point).to_edwards(0).unwrap();
            assert_eq!(out, (point * Scalar::from(8_u32)).to_montgomery().to_bytes(), "{}", path.name());
        }
    }
}

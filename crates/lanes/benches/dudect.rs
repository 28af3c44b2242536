//! Whether the time of a multiplication depends on the secret scalar (Reparaz, Balasch and Verbauwhede, "Dude, is my code
//! constant time?", 2017): one fixed scalar against random ones, in random order, and Welch's t of the two samples without
//! their slowest tenth. Above 10, something leaks. That it would be seen is shown on code that leaks on purpose.
//!
//! Noise of the machine makes false alarms rarer, not more frequent, but for changes of its clock; so a path is judged by
//! the best of three attempts, and the leak by the worst.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark reports, and stops at a failure")]
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::hint::black_box;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tombola_lanes::{Multiples, Path, x25519};

/// Above this, a leak is beyond doubt (section 3 of the paper).
const LEAK: f64 = 10.0;
const LANES: usize = 8;
const SAMPLES: usize = 20_000;

/// Welch's t of the times with the fixed scalar and with random ones.
fn welch(samples: usize, rng: &mut ChaCha20Rng, mut work: impl FnMut(&[&[u8; 32]])) -> f64 {
    let fixed = [0x5a; 32];
    let inputs: Vec<(bool, [u8; 32])> = (0..samples)
        .map(|_| {
            let mut random = [0; 32];
            rng.fill_bytes(&mut random);
            let is_fixed = rng.next_u32().is_multiple_of(2);
            (is_fixed, if is_fixed { fixed } else { random })
        })
        .collect();
    let mut times: Vec<(bool, f64)> = inputs
        .iter()
        .map(|(is_fixed, scalar)| {
            let scalars = [scalar; LANES];
            let start = Instant::now();
            work(black_box(&scalars));
            (*is_fixed, start.elapsed().as_nanos() as f64)
        })
        .collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    times.truncate(samples * 9 / 10);
    let moments = |class| {
        let class: Vec<f64> = times.iter().filter(|(is, _)| *is == class).map(|(_, time)| *time).collect();
        let count = class.len() as f64;
        let mean = class.iter().sum::<f64>() / count;
        let variance = class.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(true), moments(false));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

fn main() {
    let samples = if std::env::args().any(|argument| argument == "--test") { 20 } else { SAMPLES };
    let judged = samples == SAMPLES;
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut point = [0; 32];
    point[0] = 9;
    let points = [&point; LANES];
    let mut attempts = |work: &mut dyn FnMut(&[&[u8; 32]])| -> Vec<f64> {
        (0..3).map(|_| welch(samples, &mut rng, &mut *work).abs()).collect()
    };
    for path in Path::all() {
        let mut out = [[0; 32]; LANES];
        let mut multiples = Multiples::new(path);
        multiples.set(&points);
        let table = attempts(&mut |scalars| multiples.multiply(scalars, &mut out));
        let mut out = [[0; 32]; LANES];
        let ladder = attempts(&mut |scalars| x25519(path, &points, scalars, &mut out));
        for (name, t) in [("table", table), ("ladder", ladder)] {
            let best = t.iter().copied().fold(f64::INFINITY, f64::min);
            println!("figure x25519.dudect_t.{}.{name} {best:.2}", path.name());
            assert!(
                !judged || best < LEAK,
                "{}, {name}: the time depends on the scalar, t = {t:?}",
                path.name()
            );
        }
    }
    // A multiplication more for each scalar that begins with a clear bit, as the fixed one does.
    let multiples = {
        let mut multiples = Multiples::new(Path::best());
        multiples.set(&points);
        multiples
    };
    let mut out = [[0; 32]; LANES];
    let leak = attempts(&mut |scalars| {
        multiples.multiply(scalars, &mut out);
        if scalars[0][0] & 1 == 0 {
            multiples.multiply(scalars, &mut out);
        }
    });
    let worst = leak.iter().copied().fold(0.0, f64::max);
    println!("figure x25519.dudect_t.leak_on_purpose {worst:.2}");
    assert!(!judged || worst > LEAK, "a leak was not seen, t = {leak:?}");
}

//! What a hop's curve work takes for a few points: the table, and two products by it, on every path.
//!
//! One round after the other times each path with each number of points, so that whatever else the machine does befalls all
//! alike; a figure is the median over the rounds, for all points together.
#![allow(clippy::print_stdout, reason = "a benchmark reports")]
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::hint::black_box;
use std::time::Instant;

use tombola_lanes::{BATCH, Multiples, Path, x25519_base};

const COUNTS: [usize; 6] = [1, 2, 3, 4, 8, 16];
const ROUNDS: usize = 400;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    let scalars: [_; BATCH] = std::array::from_fn(|at| [at as u8 + 1; 32]);
    let mut points = [[0; 32]; BATCH];
    x25519_base(Path::PORTABLE, &scalars.each_ref(), &mut points);
    let paths: Vec<Path> = Path::all().collect();
    let mut multiples: Vec<_> = paths.iter().map(|path| Multiples::new(*path)).collect();
    let mut times = vec![[(); COUNTS.len()].map(|()| (Vec::new(), Vec::new())); paths.len()];
    for _ in 0..rounds {
        for (multiples, times) in multiples.iter_mut().zip(&mut times) {
            for (count, (tables, products)) in COUNTS.into_iter().zip(times) {
                let points = &points.each_ref()[..count];
                let scalars = &scalars.each_ref()[..count];
                let mut out = [[0; 32]; BATCH];
                // Once untimed: the code is in no cache after the path before.
                multiples.set(points);
                multiples.multiply(scalars, &mut out[..count]);
                let start = Instant::now();
                multiples.set(black_box(points));
                tables.push(start.elapsed().as_nanos() as f64);
                let start = Instant::now();
                for _ in 0..2 {
                    multiples.multiply(black_box(scalars), &mut out[..count]);
                }
                products.push(start.elapsed().as_nanos() as f64);
                black_box(out);
            }
        }
    }
    for (path, times) in paths.iter().zip(&mut times) {
        for (count, (tables, products)) in COUNTS.into_iter().zip(times) {
            let (table, products) = (median(tables), median(products));
            println!("figure x25519.few.{}.{count}.table_ns {table:.0}", path.name());
            println!("figure x25519.few.{}.{count}.two_products_ns {products:.0}", path.name());
            println!("figure x25519.few.{}.{count}.ns {:.0}", path.name(), table + products);
        }
    }
}

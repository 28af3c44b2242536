//! One packet through the pool, at constant occupancy; and what a tick of the emission schedule costs.
//!
//! `cargo bench -p tombola-mixing`

use core::hint::black_box;
use core::time::Duration;

use divan::Bencher;
use tombola_mixing::{DelayPool, EmissionSchedule, PacedSlots, Rates, Rng, Time};

const MEAN: Duration = Duration::from_millis(250);
const FOREVER: Duration = Duration::from_secs(1_000_000);

fn main() {
    divan::main();
}

/// Insert one and release one ("hold"): the pool in its steady state, at `pending` items.
#[divan::bench(args = [1_000, 20_000, 100_000, 1_000_000], sample_count = 50, sample_size = 20_000)]
fn hold(bencher: Bencher<'_, '_>, pending: usize) {
    let mut rng = Rng::from_seed([1; 32]);
    let mut pool: DelayPool<Box<u64>> = DelayPool::new(pending + 1, FOREVER, rng.fork());
    for item in 0..pending as u64 {
        pool.insert(Time::ZERO, rng.exponential(MEAN), Box::new(item)).expect("there is room");
    }
    bencher.bench_local(move || {
        let next = pool.poll_timeout().expect("the pool is not empty");
        let (deadline, item) = pool.poll_release(next).expect("it is due");
        pool.insert(deadline, rng.exponential(MEAN), black_box(item)).expect("there is room");
    });
}

/// Drawing the delay, which `hold` contains.
#[divan::bench]
fn exponential(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed([1; 32]);
    bencher.bench_local(move || rng.exponential(black_box(MEAN)));
}

/// One tick, polled when it is due.
#[divan::bench]
fn schedule_tick(bencher: Bencher<'_, '_>) {
    let rates = Rates {
        main: Duration::from_millis(40),
        loops: Duration::from_secs(1),
        drops: Duration::from_secs(1),
    };
    let mut schedule = EmissionSchedule::new(Time::ZERO, rates, Rng::from_seed([1; 32]));
    bencher.bench_local(move || {
        let next = schedule.poll_timeout();
        schedule.poll(black_box(next))
    });
}

/// A poll with nothing due.
#[divan::bench]
fn schedule_idle(bencher: Bencher<'_, '_>) {
    let rates = Rates { main: FOREVER, loops: FOREVER, drops: FOREVER };
    let mut schedule = EmissionSchedule::new(Time::ZERO, rates, Rng::from_seed([1; 32]));
    bencher.bench_local(move || schedule.poll(black_box(Time::ZERO)));
}

/// The first poll after a night asleep.
#[divan::bench]
fn schedule_wake(bencher: Bencher<'_, '_>) {
    let main = Duration::from_millis(40);
    let night = Duration::from_secs(8 * 3600);
    let rates = Rates { main, loops: Duration::MAX, drops: Duration::MAX };
    bencher
        .with_inputs(|| EmissionSchedule::new(Time::ZERO, rates, Rng::from_seed([1; 32])))
        .bench_local_values(|mut schedule| schedule.poll(black_box(Time::ZERO + night)));
}

/// One slot of a gateway's downlink.
#[divan::bench]
fn slot(bencher: Bencher<'_, '_>) {
    let mut slots = PacedSlots::new(Time::ZERO, Duration::from_millis(20), Rng::from_seed([1; 32]));
    bencher.bench_local(move || {
        let next = slots.poll_timeout();
        slots.poll(black_box(next))
    });
}

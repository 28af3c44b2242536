//! How late does the driver release, and what does it cost?
//!
//! `cargo run --release -p tombola-node --example lateness -- [releases per second] [seconds] [busy threads]`
//!
//! Releases form a Poisson process, as in a mix. Busy threads show what other work on the machine does to the releases:
//! with as many as there are cores, the driver competes for a core at each release.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tombola_mixing::{PoissonClock, Rng, Time};
use tombola_node::clock::Clock;
use tombola_node::driver::{self, Machine};
use tombola_node::process;
use tombola_node::shutdown::{Cause, Shutdown};

struct Releases(PoissonClock);

impl Machine for Releases {
    type Input = ();
    type Output = Time;

    fn handle(&mut self, _now: Time, (): ()) {}

    fn poll_output(&mut self, now: Time) -> Option<Time> {
        self.0.poll(now)
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        Some(self.0.poll_timeout())
    }
}

#[expect(clippy::print_stdout, reason = "the output is the purpose")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (rate, seconds, busy) = (number(200)?.max(1), number(10)?.max(1), number(0)?);

    let clock = Clock::start();
    let stop = Shutdown::new();
    let mean = Duration::from_secs(1) / u32::try_from(rate)?;
    let machine = Releases(PoissonClock::new(clock.now(), mean, Rng::from_seed([7; 32])));
    let (_inputs, receiver) = driver::inputs(1);
    let released = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&released);
    let deliver = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };

    let threads: Vec<_> = (0..busy)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || while !stop.is_triggered() {})
        })
        .collect();
    let before = process::usage(None)?.cpu;
    let handle = driver::spawn("lateness", clock, machine, receiver, deliver, stop.clone())?;
    thread::sleep(Duration::from_secs(seconds));
    let cpu = process::usage(None)?.cpu.saturating_sub(before);
    stop.trigger(Cause::Requested("the time is over"));
    let report = handle.lateness();
    handle.join()?;
    for thread in threads {
        thread.join().map_err(|_| "a busy thread panicked")?;
    }

    println!("{} releases in {seconds} s, {busy} busy threads", released.load(Ordering::Relaxed));
    println!(
        "late by: mean {:?}, p50 {:?}, p99 {:?}, max {:?}",
        report.mean, report.p50, report.p99, report.max
    );
    let percent = 100.0 * cpu.as_secs_f64() / Duration::from_secs(seconds).as_secs_f64();
    println!("CPU: {percent:.2} % of a core{}", if busy > 0 { ", the busy threads included" } else { "" });
    Ok(())
}

//! Where the warm-up ends.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use tombola_mixing::Time;

use super::on_threads;
use crate::engine::Seeds;
use crate::fidelity::WireError;
use crate::scenario::{LONGEST, Scenario};
use crate::stats;
use crate::world::{self, Control, Fidelity, Observer, Window};

/// Simulated time before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// How long.
    pub length: Duration,
    /// Whether pilot runs showed its end; `None` if the scenario gives it.
    pub found: Option<bool>,
}

/// The replication number of pilot runs: none that is measured has it.
const PILOT: u32 = 1 << 31;
/// Pilot runs whose mean is looked at.
const PILOTS: u32 = 3;
/// How often pilots are made twice as long.
const LENGTHS: u32 = 8;
/// Points of the series in which the end of the warm-up is looked for.
const SAMPLES: u32 = 400;

/// How many packets are under way or wait for their turn, again and again.
struct Sampler {
    interval: Duration,
    series: Vec<f64>,
}

impl Observer for Sampler {
    fn sampling(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn sample(&mut self, _now: Time, unfinished: usize, _in_mix: &mut dyn Iterator<Item = f64>) {
        self.series.push(unfinished as f64);
    }
}

/// Twice what MSER-5 leaves out of the mean of three pilot runs, and at least five mean times from writing to arrival. The
/// pilots become longer until the warm-up ends in their first half; if it never does, the length of the longest of them.
///
/// # Errors
/// None with packets as numbers.
pub fn find_warm_up(scenario: &Scenario, threads: usize, control: &Control) -> Result<WarmUp, WireError> {
    let least = 5.0 * (scenario.mean_transit() + scenario.mean_wait());
    let longest = LONGEST.as_secs_f64();
    let mut length = (8.0 * least).clamp(1e-3, longest);
    for _ in 0..LENGTHS {
        let interval = Duration::from_secs_f64(length / f64::from(SAMPLES));
        let Some(mean) = pilots(scenario, length, interval, threads, control)? else {
            return Ok(WarmUp { length: Duration::from_secs_f64(least), found: Some(false) });
        };
        if let Some(samples) = stats::warm_up(&mean) {
            let length = Duration::from_secs_f64(least).max(2 * samples as u32 * interval);
            return Ok(WarmUp { length, found: Some(true) });
        }
        length = (length * 2.0).min(longest);
    }
    Ok(WarmUp { length: Duration::from_secs_f64(length / 2.0), found: Some(false) })
}

/// The sum of what pilot runs of this length show; `None` if they were stopped.
fn pilots(
    scenario: &Scenario,
    length: f64,
    interval: Duration,
    threads: usize,
    control: &Control,
) -> Result<Option<Vec<f64>>, WireError> {
    let window =
        Window { warm_up: Duration::from_secs_f64(length), batch: Duration::from_nanos(1), batches: 1 };
    let left = Mutex::new(0..PILOTS);
    let found = Mutex::new(Vec::new());
    on_threads(threads.min(PILOTS as usize), || {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(pilot) = next else { return };
            let seeds = Seeds::new(scenario.seed, PILOT + pilot);
            let mut sampler = Sampler { interval, series: Vec::new() };
            let ended = world::run(scenario, &seeds, window, Fidelity::Index, &mut sampler, control)
                .map(|result| result.map(|_| sampler.series));
            found.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        }
    });
    let mut sum = vec![0.0; SAMPLES as usize];
    // Whole numbers: their sum is the same in any order.
    for series in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let Some(series) = series? else { return Ok(None) };
        sum.iter_mut().zip(series).for_each(|(sum, value)| *sum += value);
    }
    Ok(Some(sum))
}

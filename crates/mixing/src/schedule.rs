//! When a client emits, and for which stream.

use core::time::Duration;

use crate::time::nanos;
use crate::{PoissonClock, Rng, Time};

/// What a tick of the [`EmissionSchedule`] is for (Loopix, section 4.1: lambda_P, lambda_L, lambda_D). On the wire
/// they look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// A real packet if one waits, else cover that looks like one.
    Main,
    /// A loop: a packet that its sender receives again.
    Loop,
    /// Drop cover: a packet that the last gateway discards.
    Drop,
}

/// Mean intervals of the three streams of an [`EmissionSchedule`]; [`Duration::MAX`] switches a stream off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Between ticks of [`Stream::Main`].
    pub main: Duration,
    /// Between ticks of [`Stream::Loop`].
    pub loops: Duration,
    /// Between ticks of [`Stream::Drop`].
    pub drops: Duration,
}

/// Three independent Poisson processes, merged: the instants at which a client emits one packet each.
///
/// It knows nothing of any queue. The instants, and the stream of each, are a function of seed, start and rates, so
/// a client that is saturated and one that is idle emit at the same instants. Ticks that a stall has made too late
/// are skipped and counted, as described at [`PoissonClock`].
///
/// One clock runs at the sum of the rates, and each tick goes to a stream at random, in proportion to its rate. By
/// the marking theorem (Kingman, "Poisson processes", section 5.2) this is the same process as three clocks side by
/// side, with a third of the state.
#[derive(Debug)]
pub struct EmissionSchedule {
    clock: PoissonClock,
    /// For each stream that is on: the greatest mark that belongs to it, if it belongs to none before.
    bounds: [Option<u64>; 3],
}

impl EmissionSchedule {
    const STREAMS: [Stream; 3] = [Stream::Main, Stream::Loop, Stream::Drop];

    /// A schedule that starts at `now`. The mean interval of all ticks together is rounded to nanoseconds.
    #[must_use]
    pub fn new(now: Time, rates: Rates, rng: Rng) -> EmissionSchedule {
        let per_ns = [rates.main, rates.loops, rates.drops].map(rate);
        EmissionSchedule {
            clock: PoissonClock::new(now, mean(per_ns.iter().sum()), rng),
            bounds: bounds(per_ns),
        }
    }

    /// The same schedule with another bound on how late a tick may be handed out (see [`crate::MAX_LAG`]).
    #[must_use]
    pub fn with_max_lag(self, max_lag: Duration) -> EmissionSchedule {
        EmissionSchedule { clock: self.clock.with_max_lag(max_lag), ..self }
    }

    /// The earliest tick that is due at `now` and has not been handed out. Call until `None`.
    pub fn poll(&mut self, now: Time) -> Option<(Time, Stream)> {
        let (tick, mark) = self.clock.poll_marked(now)?;
        let mut streams = Self::STREAMS.into_iter().zip(self.bounds);
        let (stream, _) = streams.find(|(_, bound)| bound.is_some_and(|bound| mark <= bound))?;
        Some((tick, stream))
    }

    /// When [`EmissionSchedule::poll`] wants to be called again; [`Time::MAX`] if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.clock.poll_timeout()
    }

    /// Ticks that were skipped after stalls, all streams together (see [`PoissonClock::skipped`]).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.clock.skipped()
    }
}

// Rates are floating-point numbers, but only added, multiplied and divided, which is exact to the bit everywhere.

/// Ticks per nanosecond.
#[expect(clippy::cast_precision_loss, reason = "an error of 2^-53")]
fn rate(interval: Duration) -> f64 {
    match nanos(interval) {
        u64::MAX => 0.0,
        interval => 1.0 / interval.max(1) as f64,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, positive, saturates")]
fn mean(rate: f64) -> Duration {
    if rate > 0.0 { Duration::from_nanos((1.0 / rate).round() as u64) } else { Duration::MAX }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, saturates")]
fn bounds(rates: [f64; 3]) -> [Option<u64>; 3] {
    let total: f64 = rates.iter().sum();
    let last = rates.iter().rposition(|&rate| rate > 0.0);
    let mut below = 0.0;
    core::array::from_fn(|stream| {
        below += rates[stream] / total;
        // The last one takes what rounding leaves.
        let bound = if Some(stream) == last { u64::MAX } else { (below * 2.0_f64.powi(64)) as u64 };
        (rates[stream] > 0.0).then_some(bound)
    })
}

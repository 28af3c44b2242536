//! A Poisson process whose instants are a function of its seed.

use core::fmt;
use core::time::Duration;

use zeroize::Zeroizing;

use crate::time::nanos;
use crate::{Rng, Time};

/// How late a tick of a [`PoissonClock`] may be handed out, unless [`PoissonClock::with_max_lag`] says otherwise.
///
/// Long enough for a machine that is busy, short enough that a laptop which wakes up does not send a night's worth
/// of packets: with a mean interval of 60 ms about 17 packets make up for a stall, however long it was.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// Mean intervals in an era (see [`PoissonClock`]); also what one call to `poll` may have to walk through.
const ERA_TICKS: u64 = 4096;

/// Ticks at exponentially distributed intervals.
///
/// **Independence.** The instants are determined by seed, start and mean, and by nothing else: not by when or how
/// often the clock is polled, nor by what is done at a tick. Each instant is handed out at most once, in order.
///
/// **Stalls.** A tick that is more than the maximal lag behind `now` ([`MAX_LAG`]) is skipped and counted, so the
/// burst after a suspension is bounded; the ticks that remain are the ones that would have come anyway.
///
/// **Bounded work.** Time is cut into eras of 4096 mean intervals, each with a stream of the generator of its own.
/// As the process has no memory, starting afresh at the beginning of an era changes nothing about it; but any era
/// can be entered without walking through those before it. A poll costs about 200 us at most, after any stall.
pub struct PoissonClock {
    seed: Zeroizing<[u8; 32]>,
    start: Time,
    /// Mean interval in ns, at least 1; [`u64::MAX`] switches the clock off.
    mean: u64,
    max_lag: Duration,
    era: u64,
    era_end: Time,
    rng: Rng,
    next: Time,
    /// A random number that belongs to the next tick.
    mark: u64,
    skipped: u64,
}

impl PoissonClock {
    /// A clock that starts at `now` and ticks at the given mean interval (at least 1 ns). [`Duration::MAX`] makes a
    /// clock that never ticks.
    #[must_use]
    pub fn new(now: Time, mean: Duration, mut rng: Rng) -> PoissonClock {
        let seed = Zeroizing::new(rng.seed());
        let mut clock = PoissonClock {
            rng: Rng::stream(&seed, 0),
            seed,
            start: now,
            mean: nanos(mean).max(1),
            max_lag: MAX_LAG,
            era: 0,
            era_end: Time::MAX,
            next: Time::MAX,
            mark: 0,
            skipped: 0,
        };
        clock.enter_era(0);
        clock
    }

    /// The same clock with another bound on how late a tick may be handed out.
    #[must_use]
    pub fn with_max_lag(mut self, max_lag: Duration) -> PoissonClock {
        self.max_lag = max_lag;
        self
    }

    /// The earliest tick that is due at `now` and has not been handed out. Call until `None`.
    pub fn poll(&mut self, now: Time) -> Option<Time> {
        self.poll_marked(now).map(|(tick, _)| tick)
    }

    /// As [`PoissonClock::poll`], with a random number that belongs to the tick. It comes from the same stream as
    /// the instants do, so that it, too, is independent of polling.
    pub(crate) fn poll_marked(&mut self, now: Time) -> Option<(Time, u64)> {
        self.skip_stale(now);
        if self.next > now || self.next == Time::MAX {
            return None;
        }
        let due = (self.next, self.mark);
        self.advance();
        Some(due)
    }

    /// When [`PoissonClock::poll`] wants to be called again; [`Time::MAX`] if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.next
    }

    /// Ticks that were skipped after stalls. Exact for a stall within one era (4096 mean intervals), else the
    /// expected number for the part of it before the present era.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Moves past the ticks that are too late to be handed out at `now`.
    fn skip_stale(&mut self, now: Time) {
        let oldest = now - self.max_lag;
        if self.next >= oldest {
            return;
        }
        let era = self.era_of(oldest);
        if era > self.era {
            let gap = nanos(self.era_start(era) - self.next);
            self.skipped = self.skipped.saturating_add(1 + gap / self.mean);
            self.enter_era(era);
        }
        while self.next < oldest {
            self.skipped = self.skipped.saturating_add(1);
            self.advance();
        }
    }

    /// Moves on to the next tick.
    fn advance(&mut self) {
        if !self.draw_after(self.next) {
            self.enter_era(self.era + 1);
        }
    }

    /// Moves to the first tick of `era`, or of the first era after it that has one.
    fn enter_era(&mut self, era: u64) {
        if self.mean == u64::MAX {
            return;
        }
        self.era = era;
        loop {
            self.era_end = self.era_start(self.era + 1);
            self.rng = Rng::stream(&self.seed, self.era);
            if self.draw_after(self.era_start(self.era)) {
                return;
            }
            self.era += 1;
        }
    }

    /// Draws the tick that follows `from`; says whether it lies within the present era. What lies beyond the end of
    /// time counts as within the last era, at [`Time::MAX`].
    fn draw_after(&mut self, from: Time) -> bool {
        self.next = from + Duration::from_nanos(self.rng.exponential_ns(self.mean));
        self.mark = self.rng.next_u64();
        self.next < self.era_end || self.era_end == Time::MAX
    }

    fn era_len(&self) -> u64 {
        self.mean.saturating_mul(ERA_TICKS)
    }

    fn era_start(&self, era: u64) -> Time {
        self.start + Duration::from_nanos(self.era_len().saturating_mul(era))
    }

    fn era_of(&self, time: Time) -> u64 {
        nanos(time - self.start) / self.era_len()
    }
}

impl fmt::Debug for PoissonClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoissonClock")
            .field("mean", &Duration::from_nanos(self.mean))
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

//! What runs tell those who wait for them, and the other way round.

use core::time::Duration;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tombola_mixing::Time;

/// Shared by all runs of a scenario: how far they are, and whether they should stop.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    events: AtomicU64,
    /// Nanoseconds of virtual time, of all runs together.
    simulated: AtomicU64,
    expected: AtomicU64,
}

impl Control {
    /// Events between two looks of a run.
    pub(super) const EVERY: u64 = 1 << 16;

    /// Runs stop soon, and yield nothing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether they shall.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Queue items handled so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Virtual time that has passed, of all runs together, and how much is expected; zero until that is known.
    #[must_use]
    pub fn progress(&self) -> (Duration, Duration) {
        let read = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        (read(&self.simulated), read(&self.expected))
    }

    /// From now on so much more virtual time is expected.
    pub(crate) fn expect(&self, more: Duration) {
        let (simulated, _) = self.progress();
        let expected = u64::try_from((simulated + more).as_nanos()).unwrap_or(u64::MAX);
        self.expected.store(expected, Ordering::Relaxed);
    }

    /// A run has handled so many events more, and is at `now`; whether it shall go on.
    pub(super) fn passed(&self, events: u64, seen: &mut Time, now: Time) -> bool {
        self.events.fetch_add(events, Ordering::Relaxed);
        let more = u64::try_from((now - *seen).as_nanos()).unwrap_or(u64::MAX);
        self.simulated.fetch_add(more, Ordering::Relaxed);
        *seen = now;
        !self.is_stopped()
    }
}

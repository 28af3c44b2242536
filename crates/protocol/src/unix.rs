//! Wall-clock time for what outlives a process: when mail was stored, when a client was last here.

use core::time::Duration;

use tombola_mixing::Time;

/// Nanoseconds since 1970, as a wall clock showed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// The time from `earlier` to this; zero if `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What the wall clock showed at the origin of [`Time`]. Fixed for the life of a process: a step of the wall clock shows in
/// nothing that a state machine does until the next start. Payment alone is told what time it is: classes expire by the chain's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// The wall clock at [`Time::ZERO`].
    pub at_zero: UnixNanos,
}

impl WallClock {
    /// It is `now` here, and that much outside.
    #[must_use]
    pub fn new(now: Time, unix: UnixNanos) -> Self {
        Self { at_zero: UnixNanos(unix.0.saturating_sub(now.as_nanos())) }
    }

    /// Seconds since 1970 at `time`.
    #[must_use]
    pub fn seconds(self, time: Time) -> u64 {
        self.at(time).0 / 1_000_000_000
    }

    /// The time of a second since 1970; what was before this process is [`Time::ZERO`].
    #[must_use]
    pub fn time(self, unix_seconds: u64) -> Time {
        let ns = unix_seconds.saturating_mul(1_000_000_000).saturating_sub(self.at_zero.0);
        Time::ZERO + Duration::from_nanos(ns)
    }

    /// The wall clock at `time`.
    #[must_use]
    pub fn at(self, time: Time) -> UnixNanos {
        UnixNanos(self.at_zero.0.saturating_add(time.as_nanos()))
    }
}

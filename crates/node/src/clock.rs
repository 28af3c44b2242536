//! Real time for state machines that take time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tombola_mixing::Time;

/// Turns the operating system's monotonic clock into the [`Time`] of the state machines: nanoseconds since this clock was
/// started. Copies share the origin, so every thread of a process agrees on it.
///
/// Monotonic on purpose. A delay that was measured on the wall clock would end early or late when an administrator, NTP or
/// somebody who controls NTP steps that clock, and a pool that is flushed all at once mixes nothing. Here a step of the wall
/// clock changes nothing at all; `clippy.toml` of this crate bans `SystemTime::now` everywhere but in this file.
/// On Linux the clock also stands still while the machine is suspended: packets in the pool wait a little longer.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The wall clock at the origin, since 1970.
    unix_origin: Duration,
}

impl Clock {
    /// A clock that shows [`Time::ZERO`] now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { origin: Instant::now(), unix_origin: unix_time() }
    }

    /// Nanoseconds since the start; never goes backwards. It would stop at `Time::MAX`, after 584 years.
    #[must_use]
    pub fn now(&self) -> Time {
        let elapsed = self.origin.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since 1970 at `time`, by the wall clock as it was when this clock was started: for people, and to compare
    /// two processes of one machine. A later step of the wall clock does not show in it.
    #[must_use]
    pub fn unix_nanos(&self, time: Time) -> u64 {
        let since = self.unix_origin + Duration::from_nanos(time.as_nanos());
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The instant at which this clock shows `time`. A time that the platform's `Instant` can't hold becomes one that is a
    /// day away: whoever waits for it looks again then.
    #[must_use]
    pub fn instant_of(&self, time: Time) -> Instant {
        self.origin
            .checked_add(Duration::from_nanos(time.as_nanos()))
            .unwrap_or_else(|| Instant::now() + Duration::from_hours(24))
    }
}

/// Seconds since 1970 by the wall clock, for dates that concern others too: an epoch of the network, the age of mail.
/// Never for a delay. A clock set before 1970 reads as 0.
#[must_use]
pub fn unix_now() -> u64 {
    unix_time().as_secs()
}

/// The time since 1970 by the wall clock, as exactly as it is known: for the instants at which epochs change.
#[must_use]
pub fn unix_time_now() -> Duration {
    unix_time()
}

#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_zero_and_only_grows() {
        let clock = Clock::start();
        let copy = clock;
        let mut last = clock.now();
        assert!(last.as_nanos() < 1_000_000_000, "a fresh clock shows about zero");
        for _ in 0..10_000 {
            let now = copy.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn an_instant_and_its_time_are_the_same_moment() {
        let clock = Clock::start();
        let later = clock.now() + Duration::from_millis(20);
        let instant = clock.instant_of(later);
        assert!(instant.duration_since(Instant::now()) <= Duration::from_millis(20));
        while Instant::now() < instant {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(clock.now() >= later);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        assert!(Clock::start().instant_of(Time::MAX) > Instant::now());
    }

    #[test]
    fn the_date_is_in_this_century() {
        assert!((1_700_000_000..4_102_444_800).contains(&unix_now()));
    }
}

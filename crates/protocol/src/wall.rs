//! Unix time for state machines that keep something over a restart: their own time begins anew with each process.

use core::time::Duration;

use tombola_mixing::Time;

/// What Unix time it is at [`Time::ZERO`]. Fixed for the life of a process: a step of the wall clock moves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    zero_ns: u64,
}

impl Wall {
    /// It is `now` here, and that many nanoseconds since 1970 outside.
    pub fn new(now: Time, unix_ns: u64) -> Self {
        Self { zero_ns: unix_ns.saturating_sub(now.as_nanos()) }
    }

    /// Nanoseconds since 1970 at a time.
    pub fn unix_ns(&self, at: Time) -> u64 {
        self.zero_ns.saturating_add(at.as_nanos())
    }

    /// Seconds since 1970 at a time.
    pub fn unix(&self, at: Time) -> u64 {
        self.unix_ns(at) / 1_000_000_000
    }

    /// The time of a second since 1970; what was before this process is [`Time::ZERO`].
    pub fn time(&self, unix: u64) -> Time {
        let ns = unix.saturating_mul(1_000_000_000).saturating_sub(self.zero_ns);
        Time::ZERO + Duration::from_nanos(ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_to_the_second() {
        let now = Time::from_nanos(5_000_000_000);
        let wall = Wall::new(now, 1_000_000_000_000);
        assert_eq!(wall.unix(now), 1000);
        assert_eq!(wall.time(1003), now + Duration::from_secs(3));
        assert_eq!(wall.time(10), Time::ZERO);
    }
}

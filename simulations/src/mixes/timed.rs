//! Timed mixes: all packets leave at every tick (Serjantov, Dingledine and Syverson, "From a trickle to a flood", 2002,
//! section 3).

use core::time::Duration;

use tombola_mixing::{Rng, Time};

use super::{Mix, MixKind, PacketId};
use crate::scenario::{ScenarioError, Section};

/// Mixes that send everything they have once in an `interval`, each at a phase of its own. `kind = "timed"`.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// From tick to tick, above zero.
    pub interval: Duration,
}

impl Timed {
    pub(super) fn read(section: &mut Section) -> Result<Self, ScenarioError> {
        Ok(Self { interval: section.required_interval("interval")? })
    }
}

impl MixKind for Timed {
    fn build(&self, mut rng: Rng, _arrivals: f64) -> Box<dyn Mix> {
        let next = Time::ZERO + rng.uniform(self.interval);
        Box::new(Ticking { interval: self.interval, next, inside: Vec::new(), leaving: Vec::new(), rng })
    }

    fn mean_stay(&self, _arrivals: f64) -> f64 {
        self.interval.as_secs_f64() / 2.0
    }

    fn longest_stay(&self, _arrivals: f64) -> f64 {
        self.interval.as_secs_f64()
    }
}

struct Ticking {
    interval: Duration,
    next: Time,
    inside: Vec<PacketId>,
    leaving: Vec<PacketId>,
    rng: Rng,
}

impl Mix for Ticking {
    fn arrive(&mut self, now: Time, packet: PacketId, _delay: Duration) -> bool {
        // Ticks of an empty mix are not waited for.
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let behind = (now - self.next).as_nanos();
        if now > self.next && self.inside.is_empty() {
            let ticks = u64::try_from(behind).unwrap_or(u64::MAX).div_ceil(interval);
            self.next += Duration::from_nanos(ticks.saturating_mul(interval));
        }
        self.inside.push(packet);
        true
    }

    fn poll(&mut self, now: Time) -> Option<PacketId> {
        if self.leaving.is_empty() && now >= self.next && !self.inside.is_empty() {
            core::mem::swap(&mut self.leaving, &mut self.inside);
            self.rng.shuffle(&mut self.leaving);
            self.next += self.interval;
        }
        self.leaving.pop()
    }

    fn poll_timeout(&self) -> Option<Time> {
        (!self.inside.is_empty()).then_some(self.next)
    }
}

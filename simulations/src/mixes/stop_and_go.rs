//! The deployed mix: every packet stays for the delay that its sender drew (Loopix, section 4.2).

use core::num::NonZeroU32;
use core::time::Duration;

use tombola_mixing::{DelayPool, Rng, Time};

use super::{Delay, Deployed, Mix, MixKind, PacketId};
use crate::scenario::{ScenarioError, Section};

/// Mixes with the [`DelayPool`] that nodes run. `kind = "poisson"`.
#[derive(Clone, Copy, Debug)]
pub struct StopAndGo {
    /// How senders draw delays: exponential, as they do, unless a study asks for something else.
    pub delay: Delay,
    /// What the pool cuts delays to.
    pub max_delay: Duration,
    /// Packets that fit into a pool; by default more than ever come together.
    pub capacity: Option<usize>,
}

impl StopAndGo {
    /// Exponential delays, not cut.
    #[must_use]
    pub fn exponential(mean: Duration) -> Self {
        Self { delay: Delay::Exponential(mean), max_delay: Duration::MAX, capacity: None }
    }

    pub(super) fn read(section: &mut Section) -> Result<Self, ScenarioError> {
        let max_delay = section.duration("max_delay")?.unwrap_or(Duration::MAX);
        let capacity = section.count("capacity")?;
        let delay = section.delay("delay", Delay::Exponential)?.ok_or_else(|| section.missing("delay"))?;
        Ok(Self { delay, max_delay, capacity })
    }

    /// What the pool, which is allocated at once, needs: no more than ever come together.
    fn places(&self, arrivals: f64) -> usize {
        let expected = arrivals * self.delay.mean();
        // Ten standard deviations above the mean of a Poisson variable, and some; saturates.
        let ever = (expected + 10.0 * expected.sqrt() + 1000.0) as usize;
        self.capacity.unwrap_or(usize::MAX).min(ever.saturating_mul(2))
    }
}

impl MixKind for StopAndGo {
    fn build(&self, rng: Rng, arrivals: f64) -> Box<dyn Mix> {
        Box::new(StoppingAndGoing(DelayPool::new(self.places(arrivals), self.max_delay, rng)))
    }

    fn delay(&self) -> Delay {
        self.delay
    }

    fn deployed(&self, arrivals: f64) -> Option<Deployed> {
        let Delay::Exponential(mean_delay) = self.delay else { return None };
        Some(Deployed { mean_delay, max_delay: self.max_delay, capacity: self.places(arrivals) })
    }

    fn mean_stay(&self, _arrivals: f64) -> f64 {
        self.delay.mean().min(self.max_delay.as_secs_f64())
    }

    fn longest_stay(&self, _arrivals: f64) -> f64 {
        self.delay.longest().min(self.max_delay.as_secs_f64())
    }
}

/// Packets by number from 1: where none is zero, a place in the pool takes 16 bytes and not 24.
struct StoppingAndGoing(DelayPool<NonZeroU32>);

impl Mix for StoppingAndGoing {
    fn arrive(&mut self, now: Time, packet: PacketId, delay: Duration) -> bool {
        self.0.insert(now, delay, NonZeroU32::MIN.saturating_add(packet.0)).is_ok()
    }

    fn poll(&mut self, now: Time) -> Option<PacketId> {
        self.0.poll_release(now).map(|(_, number)| PacketId(number.get() - 1))
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.0.poll_timeout()
    }

    fn next_hint(&self) -> Option<PacketId> {
        self.0.peek().map(|number| PacketId(number.get() - 1))
    }
}

//! Pool mixes: at every round, all but a pool of packets leave, chosen at random (Serjantov, Dingledine and Syverson,
//! "From a trickle to a flood", 2002, section 4; entropy in Serjantov and Danezis, "Towards an information theoretic metric
//! for anonymity", 2002, section 4).

use core::time::Duration;

use tombola_mixing::{Rng, Time};

use super::{MEANS_TO_1E9, Mix, MixKind, PacketId};
use crate::scenario::{ScenarioError, Section};

/// Mixes that keep a pool. `kind = "pool"`, with `keep` and either `batch` (a round whenever so many packets have come) or
/// `interval` (a round at every tick).
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Packets that stay behind in every round.
    pub keep: usize,
    /// What makes a round.
    pub round: Round,
}

/// When a pool mix sends.
#[derive(Clone, Copy, Debug)]
pub enum Round {
    /// Whenever so many packets have arrived since the last round.
    Batch(usize),
    /// Once in this time.
    Interval(Duration),
}

impl Pool {
    pub(super) fn read(section: &mut Section) -> Result<Self, ScenarioError> {
        let (batch, interval) = (section.at_least_one("batch")?, section.interval("interval")?);
        let keep = section.required_count("keep")?;
        let round = match (batch, interval) {
            (Some(batch), None) => Round::Batch(batch),
            (None, Some(interval)) => Round::Interval(interval),
            (found, _) => {
                let what = if found.is_some() { "both are given" } else { "neither is given" };
                return Err(
                    section.invalid("batch", format!("a pool mix needs `batch` or `interval`, {what}"))
                );
            }
        };
        Ok(Self { keep, round })
    }

    /// Packets that come between two rounds, and seconds from one to the next.
    fn rhythm(&self, arrivals: f64) -> (f64, f64) {
        match self.round {
            Round::Batch(batch) => (batch as f64, batch as f64 / arrivals),
            Round::Interval(interval) => (arrivals * interval.as_secs_f64(), interval.as_secs_f64()),
        }
    }
}

impl MixKind for Pool {
    fn build(&self, mut rng: Rng, _arrivals: f64) -> Box<dyn Mix> {
        let next = match self.round {
            Round::Batch(_) => Time::MAX,
            Round::Interval(interval) => Time::ZERO + rng.uniform(interval),
        };
        Box::new(Pooling { kind: *self, inside: Vec::new(), arrived: 0, leaving: 0, next, rng })
    }

    fn mean_stay(&self, arrivals: f64) -> f64 {
        // Half a round until the first chance, then a geometric number of rounds.
        let (batch, seconds) = self.rhythm(arrivals);
        seconds * (0.5 + self.keep as f64 / batch)
    }

    fn longest_stay(&self, arrivals: f64) -> f64 {
        let (batch, seconds) = self.rhythm(arrivals);
        let kept = self.keep as f64 / (self.keep as f64 + batch);
        let rounds = if self.keep == 0 { 1.0 } else { 1.0 + MEANS_TO_1E9 / -libm::log(kept) };
        seconds * rounds
    }
}

struct Pooling {
    kind: Pool,
    inside: Vec<PacketId>,
    arrived: usize,
    /// Packets at the end of `inside` that leave in this round, in random order.
    leaving: usize,
    next: Time,
    rng: Rng,
}

impl Pooling {
    fn flush(&mut self) {
        self.arrived = 0;
        self.rng.shuffle(&mut self.inside);
        self.leaving = self.inside.len().saturating_sub(self.kind.keep);
    }
}

impl Mix for Pooling {
    fn arrive(&mut self, _now: Time, packet: PacketId, _delay: Duration) -> bool {
        self.inside.push(packet);
        self.arrived += 1;
        if let Round::Batch(batch) = self.kind.round
            && self.arrived >= batch
        {
            self.flush();
        }
        true
    }

    fn poll(&mut self, now: Time) -> Option<PacketId> {
        if let Round::Interval(interval) = self.kind.round
            && self.leaving == 0
            && now >= self.next
        {
            self.next += interval;
            self.flush();
        }
        self.leaving = self.leaving.checked_sub(1)?;
        self.inside.pop()
    }

    fn poll_timeout(&self) -> Option<Time> {
        (self.next != Time::MAX).then_some(self.next)
    }
}

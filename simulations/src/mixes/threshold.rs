//! Threshold mixes: all packets leave when so many have come together (Chaum, "Untraceable electronic mail", 1981; named
//! by Serjantov, Dingledine and Syverson, "From a trickle to a flood", 2002, section 3).

use core::time::Duration;

use tombola_mixing::{Rng, Time};

use super::{Mix, MixKind, PacketId};
use crate::scenario::{ScenarioError, Section};

/// Mixes that collect `threshold` packets, then send all of them. `kind = "threshold"`.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// Packets that leave together.
    pub threshold: usize,
}

impl Threshold {
    pub(super) fn read(section: &mut Section) -> Result<Self, ScenarioError> {
        let threshold = section.at_least_one("threshold")?.ok_or_else(|| section.missing("threshold"))?;
        Ok(Self { threshold })
    }
}

impl MixKind for Threshold {
    fn build(&self, rng: Rng, _arrivals: f64) -> Box<dyn Mix> {
        Box::new(Batch { threshold: self.threshold, inside: Vec::new(), leaving: false, rng })
    }

    fn mean_stay(&self, arrivals: f64) -> f64 {
        (self.threshold - 1) as f64 / 2.0 / arrivals
    }

    fn longest_stay(&self, arrivals: f64) -> f64 {
        // A sum of exponential gaps: its mean, and what its tail adds.
        let gaps = self.threshold as f64;
        (gaps + 6.0 * gaps.sqrt() + super::MEANS_TO_1E9) / arrivals
    }
}

struct Batch {
    threshold: usize,
    inside: Vec<PacketId>,
    leaving: bool,
    rng: Rng,
}

impl Mix for Batch {
    fn arrive(&mut self, _now: Time, packet: PacketId, _delay: Duration) -> bool {
        self.inside.push(packet);
        if self.inside.len() >= self.threshold {
            self.rng.shuffle(&mut self.inside);
            self.leaving = true;
        }
        true
    }

    fn poll(&mut self, _now: Time) -> Option<PacketId> {
        if !self.leaving {
            return None;
        }
        let packet = self.inside.pop();
        self.leaving = packet.is_some();
        packet
    }

    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}

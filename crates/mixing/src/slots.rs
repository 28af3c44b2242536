//! Slots at a fixed pace, for the way down from a gateway to its client.

use core::time::Duration;

use crate::time::nanos;
use crate::{Rng, Time};

/// How many intervals late a slot may be handed out.
const MAX_SLOTS_BEHIND: u64 = 4;

/// One slot per interval, the first at a random phase: `start + phase + k * interval`.
///
/// The gateway sends one packet in every slot, mail or cover, so the pace says nothing about the mailbox. The phase
/// is uniform in `0..interval`, so that the slots of a gateway's clients neither coincide nor tell when exactly each
/// of them connected.
///
/// Instants do not depend on polling. Slots more than four intervals behind `now` are skipped and counted: after a
/// stall of any length at most five slots are due at once.
#[derive(Debug)]
pub struct PacedSlots {
    next: Time,
    /// In ns, at least 1.
    interval: u64,
    skipped: u64,
}

impl PacedSlots {
    /// Slots every `interval` (at least 1 ns), from a random point within the first interval after `now`.
    #[must_use]
    pub fn new(now: Time, interval: Duration, mut rng: Rng) -> PacedSlots {
        PacedSlots { next: now + rng.uniform(interval), interval: nanos(interval).max(1), skipped: 0 }
    }

    /// The earliest slot that is due at `now` and has not been handed out. Call until `None`.
    pub fn poll(&mut self, now: Time) -> Option<Time> {
        let interval = Duration::from_nanos(self.interval);
        let behind = nanos(now - self.next) / self.interval;
        if behind > MAX_SLOTS_BEHIND {
            let stale = behind - MAX_SLOTS_BEHIND;
            self.skipped = self.skipped.saturating_add(stale);
            // No overflow: the product is at most `now - next`.
            self.next += Duration::from_nanos(stale * self.interval);
        }
        if self.next > now || self.next == Time::MAX {
            return None;
        }
        let slot = self.next;
        self.next += interval;
        Some(slot)
    }

    /// When [`PacedSlots::poll`] wants to be called again; [`Time::MAX`] if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.next
    }

    /// Slots that were skipped after stalls.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

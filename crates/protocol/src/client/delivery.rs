//! What becomes of a client's own loops, and so of its packets.

use core::time::Duration;

use tombola_mixing::Time;

/// Weight of one loop in the share that returns.
const WEIGHT: f64 = 1.0 / 16.0;
/// A share below this changes nothing any more.
const LEAST: f64 = 1.0 / 16.0;
/// When fewer loops than this return, the network is in trouble.
const TROUBLED: f64 = 0.8;
/// When more return, that is over.
const SOUND: f64 = 0.95;

/// The share of own loops that return, the last ones weighing most; whether the network was in trouble, and since when.
#[derive(Debug)]
pub(super) struct Delivery {
    share: f64,
    loop_timeout: Duration,
    last_loss: Option<Time>,
    last_return: Option<Time>,
    /// When it was sound last.
    sound: Time,
    troubled: bool,
}

impl Delivery {
    /// Before the first loop: everything arrives.
    pub(super) fn new(now: Time, loop_timeout: Duration) -> Self {
        Self { share: 1.0, loop_timeout, last_loss: None, last_return: None, sound: now, troubled: false }
    }

    /// The share of packets that arrive, never 0.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Whether packets seem to arrive, and one of its own loops has come back since then.
    pub(super) fn carries_since(&self, since: Option<Time>) -> bool {
        !self.troubled && self.last_return.is_some_and(|at| since.is_none_or(|since| at > since))
    }

    /// How many copies of something unacknowledged make up for what is lost.
    pub(super) fn copies(&self) -> usize {
        (1.0 / self.share - 0.05).ceil().clamp(1.0, 4.0) as usize
    }

    /// Whether something is known to be lost since then.
    pub(super) fn lost_since(&self, since: Time) -> bool {
        self.last_loss.is_some_and(|at| at >= since)
    }

    /// The process was not there: what was under way may be lost.
    pub(super) fn interrupted(&mut self, now: Time) {
        self.last_loss = Some(now);
    }

    /// A loop is overdue.
    pub(super) fn lost(&mut self, now: Time) {
        self.last_loss = Some(now);
        self.note(0.0);
        self.troubled |= self.share < TROUBLED;
    }

    /// A loop came back. If that ends a time of trouble: since when what left may be lost.
    pub(super) fn returned(&mut self, now: Time) -> Option<Time> {
        self.note(1.0);
        self.last_return = Some(now);
        if self.share <= SOUND {
            return None;
        }
        let from = core::mem::replace(&mut self.sound, now);
        // A loop is missed only so long after it left.
        core::mem::take(&mut self.troubled).then(|| from - self.loop_timeout)
    }

    fn note(&mut self, returned: f64) {
        self.share += (returned - self.share) * WEIGHT;
        self.share = self.share.clamp(LEAST, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn trouble_begins_where_all_was_well_and_ends_once() {
        let mut delivery = Delivery::new(at(0), Duration::from_secs(10));
        assert_eq!((0..100).find_map(|n| delivery.returned(at(n))), None, "no trouble");
        (100..130).for_each(|n| delivery.lost(at(n)));
        assert!(delivery.share() < 0.2 && delivery.copies() == 4);
        assert!(delivery.lost_since(at(129)) && !delivery.lost_since(at(130)));
        let ends: Vec<_> = (130..300).filter_map(|n| Some((n, delivery.returned(at(n))?))).collect();
        assert!(matches!(ends[..], [(170..190, from)] if from == at(99 - 10)), "{ends:?}");
        assert_eq!(delivery.copies(), 1);
    }

    #[test]
    fn a_few_losses_are_no_trouble() {
        let mut delivery = Delivery::new(at(0), Duration::from_secs(10));
        for n in 0..1000 {
            if n % 20 < 2 {
                delivery.lost(at(n));
            } else {
                assert_eq!(delivery.returned(at(n)), None);
            }
        }
        (0..1000).for_each(|n| delivery.lost(at(n)));
        assert!(delivery.share() >= LEAST);
    }
}

//! Who is let in before a header is opened: packets for which nobody pays cost two operations on the curve less.
//!
//! A [`Gate`] stands between a node's payment, which runs on one thread, and its [`Opener`](crate::opener::Opener), which runs
//! on many. It has a door for each neighbour. Payment says how many more packets of a key epoch it would take; a packet takes
//! one of these places with it on its way in, and gives it back if it is dropped before payment has seen it. So never
//! more are opened than are paid for, however many come at once. What payment says then about a packet that was opened is
//! what counts: the order of tickets is made there, and is the same at both ends of a link.
//!
//! A neighbour whose tickets do not open is let in with a share of its packets only, and never faster than that share of a
//! neighbour's part of the network's rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tombola_mixing::Time;
use tombola_topology::IdentityKey;

use crate::drops::DropReason;
use crate::frame::Parity;

/// A share of 1.
const WHOLE: u32 = 1 << 16;

/// The doors of a node, by neighbour. A neighbour without one is not let in.
///
/// **Bound.** One door for each neighbour that the node ever had in this process.
#[derive(Debug, Default)]
pub struct Gate {
    doors: RwLock<Arc<Doors>>,
    refused: AtomicU64,
}

/// As they were at some time. Doors themselves are shared: what they say is new.
pub(crate) type Doors = BTreeMap<IdentityKey, Arc<Door>>;

impl Gate {
    /// The door of a neighbour; made if there is none.
    pub(crate) fn door(&self, neighbour: IdentityKey) -> Arc<Door> {
        let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(Arc::make_mut(&mut doors).entry(neighbour).or_default())
    }

    /// All doors, for as long as a batch takes.
    pub(crate) fn doors(&self) -> Arc<Doors> {
        Arc::clone(&self.doors.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A packet was refused because nobody pays for it.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Packets that were refused here because nobody pays for them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What one neighbour may send.
#[derive(Debug)]
pub(crate) struct Door {
    /// By parity.
    places: [Places; 2],
    /// Of its packets, in parts of [`WHOLE`].
    share: AtomicU32,
    /// The shares of the packets that came: one is let in whenever the sum reaches another whole.
    sum: AtomicU32,
    /// When the next packet would be due if they came at exactly the rate that is left.
    due: AtomicU64,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            places: Default::default(),
            share: AtomicU32::new(WHOLE),
            sum: AtomicU32::default(),
            due: AtomicU64::default(),
        }
    }
}

/// Counted from the beginning of the process, so that both sides may be late.
#[derive(Debug, Default)]
struct Places {
    /// How many packets may ever have come in.
    limit: AtomicU64,
    /// How many have, without those that were dropped before payment saw them.
    entered: AtomicU64,
    /// How many payment has seen.
    seen: AtomicU64,
}

impl Door {
    /// A packet wants in. `interval`: nanoseconds between packets at a neighbour's part of the network's rate.
    pub(crate) fn enter(&self, parity: Parity, now: Time, interval: u64) -> Result<(), DropReason> {
        let places = &self.places[parity.index()];
        let limit = places.limit.load(Ordering::Acquire);
        let next = |entered: u64| (entered < limit).then_some(entered + 1);
        if places.entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
            return Err(DropReason::Unpaid);
        }
        if !self.is_in_share(now, interval) {
            self.leave(parity);
            return Err(DropReason::Slowed);
        }
        Ok(())
    }

    /// A packet that was let in is dropped before payment has seen it.
    pub(crate) fn leave(&self, parity: Parity) {
        let less = |entered: u64| Some(entered.saturating_sub(1));
        let entered = &self.places[parity.index()].entered;
        let _ = entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn is_in_share(&self, now: Time, interval: u64) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        if share >= WHOLE {
            return true;
        }
        let before = self.sum.fetch_add(share, Ordering::Relaxed);
        if (before % WHOLE) + share < WHOLE {
            return false;
        }
        let interval = interval.saturating_mul(WHOLE.into()) / u64::from(share.max(1));
        let now = now.as_nanos();
        // A second of that rate at once, and one packet if that is less.
        let ahead = interval.max(1_000_000_000);
        let next =
            |due: u64| (due.saturating_sub(now) < ahead).then(|| due.max(now).saturating_add(interval));
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Payment has seen a packet: from now on it is among those that payment counts itself.
    pub(crate) fn saw(&self, parity: Parity) {
        self.places[parity.index()].seen.fetch_add(1, Ordering::Relaxed);
    }

    /// Payment would take so many more packets than it has seen.
    pub(crate) fn set_room(&self, parity: Parity, room: u64) {
        let places = &self.places[parity.index()];
        places.limit.store(places.seen.load(Ordering::Relaxed).saturating_add(room), Ordering::Release);
    }

    /// Lets in this share of what comes, 0 to 1.
    pub(crate) fn set_share(&self, share: f64) {
        // A share is never nothing.
        let parts = (share.clamp(0.0, 1.0) * f64::from(WHOLE)) as u32;
        self.share.store(parts.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn even() -> Parity {
        Parity::of(0)
    }

    #[test]
    fn as_many_come_in_as_there_is_room_for_whoever_is_late() {
        let door = Door::default();
        let enter = || door.enter(even(), Time::ZERO, 1);
        assert_eq!(enter(), Err(DropReason::Unpaid), "nothing was agreed");
        door.set_room(even(), 3);
        assert_eq!((0..10).filter(|_| enter().is_ok()).count(), 3);
        assert_eq!(door.enter(Parity::of(1), Time::ZERO, 1), Err(DropReason::Unpaid), "of the other epoch");
        // One was dropped on the way, one has arrived and was taken: there is room for two more, and one is on its way.
        door.leave(even());
        door.saw(even());
        door.set_room(even(), 2);
        assert_eq!((0..10).filter(|_| enter().is_ok()).count(), 1);
        // Nothing is taken any more, though two are on their way.
        door.set_room(even(), 0);
        door.saw(even());
        door.saw(even());
        assert!(enter().is_err());
        door.set_room(even(), 1);
        assert!(enter().is_ok() && enter().is_err());
    }

    #[test]
    fn a_share_is_kept_of_what_comes_and_of_the_rate() {
        let door = Door::default();
        door.set_room(even(), u64::MAX);
        let mut now = Time::ZERO + Duration::from_secs(100);
        let mut admitted = |door: &Door, packets: u32, every: Duration| {
            (0..packets)
                .filter(|_| {
                    now += every;
                    let entered = door.enter(even(), now, 1_000_000);
                    assert!(matches!(entered, Ok(()) | Err(DropReason::Slowed)));
                    entered.is_ok()
                })
                .count()
        };
        let slow = Duration::from_millis(100);
        assert_eq!(admitted(&door, 640, slow), 640);
        for (halvings, left) in [(1, 320), (3, 80), (6, 10)] {
            door.set_share(0.5_f64.powi(halvings));
            assert_eq!(admitted(&door, 640, slow), left, "{halvings}");
        }
        // At 1000 a second for each neighbour, 1/64 is 15.6 a second, and a second of that at once, however fast it sends.
        let flood = admitted(&door, 1_000_000, Duration::from_micros(10));
        assert!((150..=175).contains(&flood), "{flood} in ten seconds");
        door.set_share(0.0);
        assert!(admitted(&door, 10 * WHOLE, slow) > 0, "never nothing");
        door.set_share(1.0);
        assert_eq!(admitted(&door, 1000, Duration::ZERO), 1000);
    }
}

//! Where the probability of tracked messages is.
//!
//! The rule (Piotrowska, "Studying the anonymity trilemma with a discrete-event mix network simulator", 2021; Ben Guirat,
//! Gosain and Diaz, "MiXiM", 2021; it follows Serjantov and Danezis, 2002, and Diaz et al., 2002): a mix holds n packets and
//! P, the probability that the tracked message is one of them.
//!
//! - Arrival of a packet with probability p: n += 1, P += p.
//! - Departure from an honest mix: the packet leaves with p = P / n; P -= p, n -= 1.
//! - A corrupt mix leaves p as it was.
//!
//! Inside an honest mix a packet has no probability of its own, so it needs memory for one only while it is on a link or in
//! a corrupt mix: a *slot*, `L` numbers, one for each of `L` messages that are tracked at a time (a *lane*).

/// No slot: all zero.
pub const ZERO: u32 = u32::MAX;

/// What a challenge sender's number in a pool or a packet does not fall below unless it is zero (see
/// [`Masses::never_forget`]).
pub const LEAST: f64 = 1e-300;

/// One number for each lane, in whole lines of a processor's cache.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(64))]
pub struct Lanes<const L: usize>(pub [f64; L]);

#[derive(Clone)]
struct Pool<const L: usize> {
    /// P, by lane.
    mass: Lanes<L>,
    /// n; as a number, because all that is done with it is a division.
    packets: f64,
    corrupt: bool,
}

/// Probabilities of `L` tracked messages, in mixes and in packets.
pub struct Masses<const L: usize> {
    pools: Vec<Pool<L>>,
    slots: Vec<Lanes<L>>,
    free: Vec<u32>,
    /// Lanes that are in use. Without any, nothing needs to be computed.
    lanes: u32,
    /// From this lane on, numbers stay at [`LEAST`] or above until the pool empties.
    unforgotten: usize,
}

impl<const L: usize> Masses<L> {
    /// Empty mixes, of which these are corrupt.
    #[must_use]
    pub fn new(corrupt: &[bool]) -> Self {
        let pool = |&corrupt: &bool| Pool { mass: Lanes([0.0; L]), packets: 0.0, corrupt };
        let pools = corrupt.iter().map(pool).collect();
        Self { pools, slots: Vec::new(), free: Vec::new(), lanes: 0, unforgotten: L }
    }

    /// From now on the numbers of this lane and those behind it are zero only where they are zero exactly.
    ///
    /// A pool that is never empty halves what it holds again and again, and after some thousand departures without a new
    /// arrival a double would be zero, as if none of the lane's messages could be inside. Such a number stays at [`LEAST`]
    /// instead. It is zero again when the last packet has left. What that adds to the sum is too small to be seen.
    pub fn never_forget(&mut self, from: usize) {
        self.unforgotten = from;
    }

    /// Whether the mix is corrupt.
    #[must_use]
    pub fn is_corrupt(&self, mix: usize) -> bool {
        self.pools[mix].corrupt
    }

    /// Packets in a mix.
    #[must_use]
    pub fn packets(&self, mix: usize) -> f64 {
        self.pools[mix].packets
    }

    /// One more lane is in use.
    pub fn open_lane(&mut self) {
        self.lanes += 1;
    }

    /// A lane is not in use any more: its numbers are zero everywhere.
    pub fn close_lane(&mut self, lane: usize) {
        self.pools.iter_mut().for_each(|pool| pool.mass.0[lane] = 0.0);
        self.slots.iter_mut().for_each(|slot| slot.0[lane] = 0.0);
        self.lanes -= 1;
    }

    /// The slot of a packet that is, for certain, the message of this lane.
    pub fn certain(&mut self, lane: usize, slot: u32) -> u32 {
        let slot = if slot == ZERO { self.take() } else { slot };
        self.slots[slot as usize].0[lane] = 1.0;
        slot
    }

    #[inline]
    fn take(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        self.slots.push(Lanes([0.0; L]));
        (self.slots.len() - 1) as u32
    }

    /// The numbers of a slot.
    #[inline]
    #[must_use]
    pub fn of(&self, slot: u32) -> Option<&[f64; L]> {
        self.slots.get(slot as usize).map(|lanes| &lanes.0)
    }

    /// The packet with this slot is gone.
    #[inline]
    pub fn release(&mut self, slot: u32) {
        if slot != ZERO {
            self.slots[slot as usize] = Lanes([0.0; L]);
            self.free.push(slot);
        }
    }

    /// A packet arrives at a mix; what slot it has inside.
    #[inline]
    pub fn arrive(&mut self, mix: usize, slot: u32) -> u32 {
        let pool = &mut self.pools[mix];
        pool.packets += 1.0;
        if pool.corrupt || slot == ZERO {
            return slot;
        }
        let mass = &mut self.slots[slot as usize];
        for (inside, arriving) in pool.mass.0.iter_mut().zip(mass.0.iter_mut()) {
            *inside += *arriving;
            *arriving = 0.0;
        }
        self.free.push(slot);
        ZERO
    }

    /// A packet leaves a mix; what slot it leaves with.
    #[inline]
    pub fn depart(&mut self, mix: usize, slot: u32) -> u32 {
        let packets = self.pools[mix].packets;
        self.pools[mix].packets -= 1.0;
        if self.lanes == 0 || self.pools[mix].corrupt {
            return slot;
        }
        let slot = self.take();
        let share = 1.0 / packets;
        let pool = &mut self.pools[mix];
        for (inside, leaving) in pool.mass.0.iter_mut().zip(self.slots[slot as usize].0.iter_mut()) {
            *leaving = *inside * share;
            *inside -= *leaving;
        }
        if self.unforgotten < L && packets > 1.0 {
            let leaving = &mut self.slots[slot as usize].0[self.unforgotten..];
            for (inside, leaving) in pool.mass.0[self.unforgotten..].iter_mut().zip(leaving) {
                if *inside > 0.0 {
                    *inside = inside.max(LEAST);
                    *leaving = leaving.max(LEAST);
                }
            }
        }
        slot
    }

    /// Slots that exist, used or not.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_mix_spreads_and_keeps_the_sum() {
        let mut masses = Masses::<4>::new(&[false]);
        masses.open_lane();
        let target = masses.certain(2, ZERO);
        assert_eq!(masses.arrive(0, ZERO), ZERO);
        assert_eq!(masses.arrive(0, target), ZERO);
        assert_eq!(masses.arrive(0, ZERO), ZERO);
        let leaving: Vec<f64> = (0..3)
            .map(|_| {
                let slot = masses.depart(0, ZERO);
                masses.of(slot).unwrap()[2]
            })
            .collect();
        for p in &leaving {
            assert!((p - 1.0 / 3.0).abs() < 1e-15);
        }
        assert!((leaving.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert_eq!(masses.packets(0), 0.0);
    }

    #[test]
    fn a_corrupt_mix_leaves_every_packet_what_it_had() {
        let mut masses = Masses::<4>::new(&[true]);
        masses.open_lane();
        let target = masses.certain(0, ZERO);
        let inside = masses.arrive(0, target);
        assert_eq!(masses.arrive(0, ZERO), ZERO);
        assert_eq!(masses.depart(0, ZERO), ZERO);
        let left = masses.depart(0, inside);
        assert_eq!(masses.of(left), Some(&[1.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn what_came_late_shares_only_what_is_left() {
        let mut masses = Masses::<1>::new(&[false]);
        masses.open_lane();
        let target = masses.certain(0, ZERO);
        masses.arrive(0, target);
        masses.arrive(0, ZERO);
        let first = masses.depart(0, ZERO);
        masses.arrive(0, ZERO);
        masses.arrive(0, ZERO);
        let second = masses.depart(0, ZERO);
        assert_eq!(masses.of(first), Some(&[0.5]));
        assert!((masses.of(second).unwrap()[0] - 0.5 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn what_may_still_be_inside_is_not_forgotten_until_the_pool_is_empty() {
        let mut masses = Masses::<4>::new(&[false]);
        masses.never_forget(2);
        (0..4).for_each(|_| masses.open_lane());
        let sent = masses.certain(1, ZERO);
        let sent = masses.certain(2, sent);
        masses.arrive(0, sent);
        masses.arrive(0, ZERO);
        // Each departure halves what is left: 2^-3000 is no number any more.
        let mut last = ZERO;
        for _ in 0..3000 {
            masses.arrive(0, ZERO);
            masses.release(last);
            last = masses.depart(0, ZERO);
        }
        let &[never, forgotten, kept, other] = masses.of(last).unwrap();
        assert_eq!((never, other), (0.0, 0.0));
        assert!(forgotten < 1e-320 && kept == LEAST, "{forgotten}, {kept}");
        // The last packet of all takes everything along.
        masses.depart(0, ZERO);
        let left = masses.depart(0, ZERO);
        assert!(masses.of(left).unwrap()[2] > 0.0);
        masses.arrive(0, ZERO);
        let clean = masses.depart(0, ZERO);
        assert_eq!(masses.of(clean), Some(&[0.0; 4]));
    }

    #[test]
    fn a_lane_that_is_closed_is_zero_everywhere_and_slots_are_used_again() {
        let mut masses = Masses::<2>::new(&[false, false]);
        masses.open_lane();
        for lane in 0..2 {
            let target = masses.certain(lane, ZERO);
            masses.arrive(0, target);
        }
        let on_link = masses.depart(0, ZERO);
        masses.close_lane(0);
        assert_eq!(masses.of(on_link), Some(&[0.0, 0.5]));
        masses.open_lane();
        let last = masses.depart(0, ZERO);
        assert_eq!(masses.of(last), Some(&[0.0, 0.5]));
        for slot in [on_link, last] {
            masses.release(slot);
        }
        masses.arrive(1, ZERO);
        let clean = masses.depart(1, ZERO);
        assert_eq!(masses.of(clean), Some(&[0.0, 0.0]));
        assert_eq!(masses.slots(), 2);
    }
}

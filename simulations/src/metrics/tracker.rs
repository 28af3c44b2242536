//! What is known of each target: the probabilities with which packets that came out are it.

use tombola_mixing::Time;

use super::masses::Lanes;

/// A target is finished when so much of its probability has come out.
pub const COMPLETE: f64 = 1.0 - 1e-9;

/// Buckets in each octave of probability, for guessing.
const PER_OCTAVE: u32 = 64;
const BINS: usize = 62 * PER_OCTAVE as usize;

/// What an adversary knows of one target in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetResult {
    /// Which batch it belongs to.
    pub batch: u32,
    /// Its sender.
    pub sender: u32,
    /// Which of the sender's packets it is.
    pub number: u32,
    /// When it was sent, in nanoseconds.
    pub sent: Time,
    /// Mixes of its route that are corrupt.
    pub corrupt_hops: u32,
    /// -sum p log2 p over the packets that came out.
    pub entropy: f64,
    /// -sum q log2 q over receivers, q the sum of p over the packets of one.
    pub receiver_entropy: Option<f64>,
    /// -log2 of the greatest p.
    pub min_entropy: f64,
    /// The mean number of guesses if packets are named in the order of p (Massey, "Guessing and entropy", 1994); exact to
    /// 0.3 %.
    pub guesses: f64,
    /// Packets with p above zero.
    pub set_size: u64,
    /// What did not come out.
    pub residual: f64,
    /// Whether it is known where all of its probability went. If not, the rest is of no use: the run was given up before.
    pub finished: bool,
}

struct Active {
    batch: u32,
    sender: u32,
    number: u32,
    sent: Time,
    corrupt_hops: u32,
    entropy: f64,
    delivered: f64,
    lost: f64,
    greatest: f64,
    set_size: u64,
}

/// A target as it sets out.
#[derive(Clone, Copy, Debug)]
pub struct NewTarget {
    /// Which batch it belongs to.
    pub batch: u32,
    /// Its sender.
    pub sender: u32,
    /// Which of the sender's packets it is.
    pub number: u32,
    /// When it was sent.
    pub sent: Time,
    /// Mixes of its route that are corrupt.
    pub corrupt_hops: u32,
}

/// The targets in up to `L` lanes.
pub struct Tracker<const L: usize> {
    /// Lanes that targets may have; the others belong to challenge senders.
    lanes: usize,
    active: [Option<Active>; L],
    /// Bit for bit the lanes in use.
    used: u64,
    bins: Vec<Bins>,
    /// By receiver; empty if nobody asks.
    receivers: Vec<Lanes<L>>,
    finished: Vec<TargetResult>,
    passed_over: u64,
}

/// How many packets have about the same probability, and the sum of it.
struct Bins(Vec<(u64, f64)>);

/// What the two challenge senders' packets look like when they come out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// |ln(p0 / p1)| of packets where both are above zero, summed up. A probability is zero or at least
    /// [`LEAST`](super::masses::LEAST).
    pub difference: f64,
    /// Those packets.
    pub both: u64,
    /// Packets where one is zero and the other is not.
    pub one: u64,
}

impl Likelihood {
    /// A packet comes out that is one of the first challenge sender's with probability `p0`, of the second's with `p1` (as
    /// expected numbers: each may exceed 1).
    #[inline]
    pub fn judge(&mut self, p0: f64, p1: f64) {
        if p0 > 0.0 && p1 > 0.0 {
            // Of each alone: their ratio may be no finite number.
            self.difference += (libm::log(p0) - libm::log(p1)).abs();
            self.both += 1;
        } else if p0 > 0.0 || p1 > 0.0 {
            self.one += 1;
        }
    }
}

impl<const L: usize> Tracker<L> {
    /// No targets yet. `receivers` is how many there are, zero if their entropy is not asked for; with `challenge`, the last
    /// two lanes are those of the challenge senders.
    #[must_use]
    pub fn new(lanes: usize, receivers: usize, challenge: bool) -> Self {
        let lanes = lanes.min(L - if challenge { 2 } else { 0 });
        Self {
            lanes,
            active: [const { None }; L],
            used: 0,
            bins: (0..lanes).map(|_| Bins(vec![(0, 0.0); BINS + 1])).collect(),
            receivers: vec![Lanes([0.0; L]); receivers],
            finished: Vec::new(),
            passed_over: 0,
        }
    }

    /// The lane of a challenge sender: 0 or 1.
    #[must_use]
    pub fn challenge_lane(sender: usize) -> usize {
        L - 2 + sender
    }

    /// Begins to follow a target; its lane, or `None` if all are in use.
    pub fn begin(&mut self, target: NewTarget) -> Option<usize> {
        let lane = (!self.used).trailing_zeros() as usize;
        if lane >= self.lanes {
            self.passed_over += 1;
            return None;
        }
        let NewTarget { batch, sender, number, sent, corrupt_hops } = target;
        self.used |= 1 << lane;
        self.active[lane] = Some(Active {
            batch,
            sender,
            number,
            sent,
            corrupt_hops,
            entropy: 0.0,
            delivered: 0.0,
            lost: 0.0,
            greatest: 0.0,
            set_size: 0,
        });
        Some(lane)
    }

    /// A packet comes out, for this receiver. `true` if that may have finished a target: see [`Tracker::finish`].
    #[inline]
    pub fn delivered(&mut self, mass: &[f64; L], receiver: usize) -> bool {
        if let Some(sum) = self.receivers.get_mut(receiver) {
            sum.0.iter_mut().zip(mass).for_each(|(sum, p)| *sum += p);
        }
        let mut complete = false;
        let mut left = self.used;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            left &= left - 1;
            let p = mass[lane];
            if p <= 0.0 {
                continue;
            }
            if let Some(target) = &mut self.active[lane] {
                target.entropy -= p * libm::log2(p);
                target.delivered += p;
                target.greatest = target.greatest.max(p);
                target.set_size += 1;
                complete |= target.delivered + target.lost >= COMPLETE;
            }
            self.bins[lane].add(p);
        }
        complete
    }

    /// One of the numbers that [`Tracker::delivered`] is going to need.
    #[inline]
    pub fn touch(&self, receiver: usize) -> f64 {
        self.receivers.get(receiver).map_or(0.0, |sums| sums.0[0] + sums.0[L / 2])
    }

    /// A packet is lost. As [`Tracker::delivered`].
    pub fn lost(&mut self, mass: &[f64; L]) -> bool {
        let mut complete = false;
        for (target, p) in self.active.iter_mut().zip(mass) {
            if let Some(target) = target {
                target.lost += p;
                complete |= target.delivered + target.lost >= COMPLETE;
            }
        }
        complete
    }

    /// Takes a target out that is finished (or, if `any`, one that is not); its lane is free, once it is zero everywhere.
    pub fn finish(&mut self, any: bool) -> Option<usize> {
        let done = |target: &Active| any || target.delivered + target.lost >= COMPLETE;
        let lane = self.active.iter().position(|target| target.as_ref().is_some_and(done))?;
        let target = self.active[lane].take()?;
        let finished = target.delivered + target.lost >= COMPLETE;
        self.used &= !(1 << lane);
        let receiver_entropy = (!self.receivers.is_empty()).then(|| {
            let column = self.receivers.iter_mut().map(|sum| core::mem::take(&mut sum.0[lane]));
            column.filter(|&q| q > 0.0).map(|q| -q * libm::log2(q)).sum()
        });
        let Active { batch, sender, number, sent, corrupt_hops, entropy, delivered, .. } = target;
        self.finished.push(TargetResult {
            batch,
            sender,
            number,
            sent,
            corrupt_hops,
            entropy,
            receiver_entropy,
            min_entropy: if target.greatest > 0.0 { -libm::log2(target.greatest) } else { 0.0 },
            guesses: self.bins[lane].take_guesses(),
            set_size: target.set_size,
            residual: 1.0 - delivered,
            finished,
        });
        Some(lane)
    }

    /// Targets that are followed now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.used.count_ones() as usize
    }

    /// The first batch that still has a target which is followed.
    #[must_use]
    pub fn earliest(&self) -> Option<u32> {
        self.active.iter().flatten().map(|target| target.batch).min()
    }

    /// Targets that could not be followed because all lanes were in use.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// All that are finished.
    #[must_use]
    pub fn into_results(self) -> Vec<TargetResult> {
        self.finished
    }
}

impl Bins {
    #[inline]
    fn add(&mut self, p: f64) {
        // Exponent and upper bits of the fraction, counted downwards from 1.0.
        let key = |p: f64| p.to_bits() >> (f64::MANTISSA_DIGITS - 1 - PER_OCTAVE.ilog2());
        let bin = usize::try_from(key(1.0).saturating_sub(key(p))).unwrap_or(BINS).min(BINS);
        let (count, mass) = &mut self.0[bin];
        *count += 1;
        *mass += p;
    }

    /// The mean number of guesses; empties the bins.
    fn take_guesses(&mut self) -> f64 {
        let mut before = 0.0;
        let mut guesses = 0.0;
        for (count, mass) in &mut self.0 {
            let number = core::mem::take(count) as f64;
            guesses += core::mem::take(mass) * (before + (number + 1.0) / 2.0);
            before += number;
        }
        guesses
    }
}

#[cfg(test)]
mod tests {
    use super::super::masses::LEAST;
    use super::*;

    const TARGET: NewTarget = NewTarget { batch: 0, sender: 1, number: 2, sent: Time::ZERO, corrupt_hops: 0 };

    /// A target whose packets come out with these probabilities, for these receivers.
    fn result(packets: &[(f64, usize)]) -> TargetResult {
        let mut tracker = Tracker::<4>::new(4, 10, false);
        let lane = tracker.begin(TARGET).unwrap();
        let mut complete = false;
        for &(p, receiver) in packets {
            let mut mass = [0.0; 4];
            mass[lane] = p;
            complete = tracker.delivered(&mass, receiver);
        }
        assert!(complete);
        assert_eq!(tracker.finish(false), Some(lane));
        tracker.into_results().remove(0)
    }

    #[test]
    fn the_measures_of_a_distribution_are_those_of_their_definitions() {
        let found = result(&[(0.5, 0), (0.25, 1), (0.125, 0), (0.125, 3)]);
        assert_eq!(found.entropy, 1.75);
        assert_eq!(found.min_entropy, 1.0);
        assert_eq!(found.set_size, 4);
        assert_eq!(found.guesses, 0.5 + 2.0 * 0.25 + 0.125 * (3.0 + 4.0));
        let expected: f64 = [0.625_f64, 0.25, 0.125].iter().map(|q| -q * q.log2()).sum();
        assert!((found.receiver_entropy.unwrap() - expected).abs() < 1e-15);
        assert_eq!((found.residual, found.finished), (0.0, true));
    }

    #[test]
    fn guesses_are_near_to_exact_for_a_geometric_distribution() {
        let mut left = 1.0;
        let mut packets = Vec::new();
        while left > 1e-10 {
            packets.push((left * 0.01, 0));
            left -= left * 0.01;
        }
        let exact: f64 = packets.iter().zip(1..).map(|(&(p, _), rank)| p * f64::from(rank)).sum();
        let found = result(&packets).guesses;
        assert!((found / exact - 1.0).abs() < 0.003, "{found}, {exact}");
    }

    #[test]
    fn what_is_lost_is_reported_and_not_spread_over_the_rest() {
        let mut tracker = Tracker::<4>::new(4, 0, false);
        let lane = tracker.begin(TARGET).unwrap();
        let half = core::array::from_fn(|at| if at == lane { 0.5 } else { 0.0 });
        assert!(!tracker.delivered(&half, 0));
        assert_eq!(tracker.finish(false), None);
        assert_eq!(tracker.earliest(), Some(0));
        assert!(tracker.lost(&half));
        assert_eq!(tracker.finish(false), Some(lane));
        let found = tracker.into_results().remove(0);
        assert_eq!((found.entropy, found.residual, found.receiver_entropy), (0.5, 0.5, None));
        assert!(found.finished);
    }

    #[test]
    fn a_target_that_is_given_up_is_not_finished() {
        let mut tracker = Tracker::<4>::new(4, 0, false);
        let lane = tracker.begin(TARGET).unwrap();
        assert!(!tracker.delivered(&core::array::from_fn(|at| if at == lane { 0.5 } else { 0.0 }), 0));
        assert_eq!((tracker.finish(true), tracker.earliest()), (Some(lane), None));
        assert!(!tracker.into_results().remove(0).finished);
    }

    #[test]
    fn challenge_senders_keep_the_last_two_lanes() {
        let mut tracker = Tracker::<4>::new(4, 0, true);
        assert_eq!(
            (tracker.begin(TARGET), tracker.begin(TARGET), tracker.begin(TARGET)),
            (Some(0), Some(1), None)
        );
        assert_eq!(tracker.passed_over(), 1);
        assert_eq!((Tracker::<4>::challenge_lane(0), Tracker::<4>::challenge_lane(1)), (2, 3));
    }

    #[test]
    fn challenge_senders_are_compared() {
        let mut found = Likelihood::default();
        for (p0, p1) in [(0.2, 0.1), (0.1, 0.4), (0.0, 0.4), (0.0, 0.0)] {
            found.judge(p0, p1);
        }
        assert_eq!((found.both, found.one), (2, 1));
        assert!((found.difference - 3.0 * core::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn challenge_senders_of_very_different_probability_are_compared_too() {
        for (p0, p1) in [(1e8, LEAST), (LEAST, 1e8), (LEAST, f64::MIN_POSITIVE)] {
            let mut found = Likelihood::default();
            found.judge(p0, p1);
            let expected = (p0.log10() - p1.log10()).abs() * core::f64::consts::LN_10;
            assert!((found.difference - expected).abs() < 1e-9, "{p0}, {p1}: {found:?}");
        }
    }
}

//! Tickets that did not open, by the pair of neighbours between which their packets went.
//!
//! A ticket that does not open was made so by the sender or by the neighbour before, or its acknowledgement was withheld by
//! the neighbour after; one ticket does not say which. Pairs say more: a neighbour whose tickets do not open whoever stands
//! on the other side is the reason. Nobody is told which packet did not open, and no link is cut, else a few paid packets
//! could cut any: above the bound a neighbour's admitted rate is halved until it falls below.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use tombola_mixing::Time;

/// A neighbour, by a number that the node chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour(pub u32);

/// So many tickets of a window may stay closed.
const TOLERATED: u64 = 100;
/// And one of so many beyond.
const TOLERATED_SHARE: u64 = 100;
/// Tickets of a full window; the bound is relative to what was counted, up to this.
const WINDOW: u64 = 65_536;
/// Half of the time over which tickets are counted; that of a window.
const HALF: Duration = Duration::from_secs(1800);
/// How often the rate of a neighbour that stays above the bound is halved again.
const HALVING: Duration = Duration::from_secs(60);
/// So often at most: it is a share and never a cut link.
const MOST_HALVINGS: u32 = 6;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tickets: u64,
    unopened: u64,
}

impl Count {
    const fn plus(self, other: Self) -> Self {
        Self { tickets: self.tickets + other.tickets, unopened: self.unopened + other.unopened }
    }

    const fn is_above(self) -> bool {
        let tickets = if self.tickets < WINDOW { self.tickets } else { WINDOW };
        self.unopened > TOLERATED + tickets / TOLERATED_SHARE
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    current: Count,
    former: Count,
}

/// Counts of one node. Covers between half an hour and an hour.
///
/// **Bound.** Previous times next neighbours.
#[derive(Debug, Default)]
pub struct Openings {
    pairs: BTreeMap<(Neighbour, Neighbour), Pair>,
    halvings: BTreeMap<Neighbour, u32>,
    turned: Time,
    halved: Time,
}

impl Openings {
    /// A ticket was opened, or is given up.
    pub fn count(&mut self, previous: Neighbour, next: Neighbour, opened: bool) {
        let count = &mut self.pairs.entry((previous, next)).or_default().current;
        count.tickets += 1;
        count.unopened += u64::from(!opened);
    }

    /// Tickets of this pair that did not open, and all.
    #[must_use]
    pub fn score(&self, previous: Neighbour, next: Neighbour) -> (u64, u64) {
        let count = self.pairs.get(&(previous, next)).map(|pair| pair.current.plus(pair.former));
        count.map_or((0, 0), |count| (count.unopened, count.tickets))
    }

    /// The sum of the pairs for which this holds.
    fn sum(&self, of: impl Fn(Neighbour, Neighbour) -> bool) -> Count {
        self.pairs
            .iter()
            .filter(|((previous, next), _)| of(*previous, *next))
            .fold(Count::default(), |sum, (_, pair)| sum.plus(pair.current).plus(pair.former))
    }

    /// Whether too many tickets of this previous neighbour stay closed. What goes to a next neighbour that fails with
    /// others too is not counted against it.
    #[must_use]
    pub fn is_suspect_before(&self, neighbour: Neighbour) -> bool {
        let to_blame = |next: Neighbour| self.sum(|other, to| other != neighbour && to == next).is_above();
        self.sum(|previous, next| previous == neighbour && !to_blame(next)).is_above()
    }

    /// Whether too many tickets stay closed because of this next neighbour: it withholds acknowledgements. What comes from
    /// a previous neighbour that fails with others too is not counted against it.
    #[must_use]
    pub fn is_suspect_after(&self, neighbour: Neighbour) -> bool {
        let to_blame =
            |previous: Neighbour| self.sum(|from, other| other != neighbour && from == previous).is_above();
        self.sum(|previous, next| next == neighbour && !to_blame(previous)).is_above()
    }

    /// What share of its rate is admitted from a neighbour: 1, halved as long as it is above the bound.
    #[must_use]
    pub fn admitted_share(&self, neighbour: Neighbour) -> f64 {
        let halvings = self.halvings.get(&neighbour).copied().unwrap_or_default();
        0.5_f64.powi(halvings.try_into().unwrap_or(i32::MAX))
    }

    /// Lets old tickets be forgotten, and looks whose rate is halved. Call every minute or so.
    pub fn handle_timeout(&mut self, now: Time) {
        if now - self.turned >= HALF {
            self.turned = now;
            for pair in self.pairs.values_mut() {
                pair.former = core::mem::take(&mut pair.current);
            }
            self.pairs.retain(|_, pair| pair.former.tickets > 0);
        }
        if now - self.halved < HALVING {
            return;
        }
        self.halved = now;
        let neighbours: BTreeSet<_> =
            self.pairs.keys().flat_map(|(previous, next)| [*previous, *next]).collect();
        let suspect: Vec<_> = neighbours
            .into_iter()
            .filter(|one| self.is_suspect_before(*one) || self.is_suspect_after(*one))
            .collect();
        self.halvings.retain(|neighbour, _| suspect.contains(neighbour));
        for neighbour in suspect {
            let halvings = self.halvings.entry(neighbour).or_default();
            *halvings = (*halvings + 1).min(MOST_HALVINGS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Neighbour = Neighbour(1);
    const B: Neighbour = Neighbour(2);
    const X: Neighbour = Neighbour(11);
    const Y: Neighbour = Neighbour(12);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn counted(failing: impl Fn(Neighbour, Neighbour) -> bool, each: u32) -> Openings {
        let mut openings = Openings::default();
        for (previous, next) in [(A, X), (A, Y), (B, X), (B, Y)] {
            (0..each).for_each(|_| openings.count(previous, next, !failing(previous, next)));
        }
        openings
    }

    #[test]
    fn whoever_fails_with_everybody_is_the_reason() {
        let before = counted(|previous, _| previous == A, 200);
        assert!(before.is_suspect_before(A) && !before.is_suspect_before(B));
        assert!(!before.is_suspect_after(X) && !before.is_suspect_after(Y));
        let after = counted(|_, next| next == X, 200);
        assert!(after.is_suspect_after(X) && !after.is_suspect_after(Y));
        assert!(!after.is_suspect_before(A) && !after.is_suspect_before(B));
    }

    #[test]
    fn a_hundred_and_one_percent_are_tolerated() {
        let mut openings = Openings::default();
        (0..10_000).for_each(|_| openings.count(A, X, true));
        (0..201).for_each(|_| openings.count(A, X, false));
        assert!(!openings.is_suspect_before(A), "100, and 1 % of 10201");
        (0..3).for_each(|_| openings.count(A, X, false));
        assert!(openings.is_suspect_before(A));
        assert_eq!(openings.score(A, X), (204, 10_204));
    }

    #[test]
    fn the_rate_is_halved_while_it_lasts_and_never_cut() {
        let mut openings = counted(|previous, _| previous == A, 200);
        for minute in 1..=20 {
            openings.handle_timeout(at(60 * minute));
            let expected = 0.5_f64.powi(i32::try_from(minute.min(6)).unwrap());
            assert!((openings.admitted_share(A) - expected).abs() < 1e-9);
            assert!((openings.admitted_share(B) - 1.0).abs() < 1e-9);
        }
        openings.handle_timeout(at(1800));
        assert!(openings.admitted_share(A) < 1.0, "half an hour is remembered for a whole one");
        openings.handle_timeout(at(3600));
        openings.handle_timeout(at(3660));
        assert!((openings.admitted_share(A) - 1.0).abs() < 1e-9);
        assert_eq!(openings.score(A, X), (0, 0));
    }
}

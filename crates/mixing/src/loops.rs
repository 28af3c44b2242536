//! What became of the loops that a node sent.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::loss_test::Round;
use crate::{LossTest, Time, Verdict};

/// Follows loops and judges loss, separately for each `K` (a gateway, a path).
///
/// A loop is *due* when the timeout has passed since it was sent; then, and not before, it counts: as returned if it
/// came back in time, else as lost. Returns are seen after seconds, losses only after the timeout; counting each at
/// once would make every link look healthy at first, and would feed the sequential test in an order that depends on
/// the outcomes. So ratio and verdict lag by one timeout, and are unbiased.
///
/// The verdict of a `K` is that of the last round of its [`LossTest`] that has ended; rounds follow each other
/// without end. An alarm is something to report. It must not change what a node forwards or which routes a client
/// takes: the first would be a lever for whoever drops loops, the second a fingerprint.
///
/// **Bound.** At most `capacity` loops that are not due yet, and as many `K`; beyond, [`LoopMonitor::sent`] refuses
/// and counts. Rate times timeout, doubled, is a capacity that is never reached. Ids come from this node's own
/// generator.
pub struct LoopMonitor<K> {
    timeout: Duration,
    capacity: usize,
    test: LossTest,
    in_flight: BTreeMap<[u8; 16], InFlight<K>>,
    /// Deadlines of all that is in flight, in ascending order.
    deadlines: VecDeque<(Time, [u8; 16])>,
    tallies: BTreeMap<K, Tally>,
    refused: u64,
}

struct InFlight<K> {
    key: K,
    sent: Time,
    deadline: Time,
    returned: bool,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    stats: LoopStats,
    round: Round,
    verdict: Verdict,
}

/// Counts of loops for one `K`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Loops sent.
    pub sent: u64,
    /// Loops that came back in time, due or not.
    pub returned: u64,
    /// Loops whose timeout has passed.
    pub due: u64,
    /// Loops among those that did not come back in time.
    pub lost: u64,
    /// Rounds of the loss test that have ended.
    pub rounds: u64,
    /// Rounds among those that ended with an alarm.
    pub alarms: u64,
}

impl LoopStats {
    /// The share of due loops that came back: 0.0 if none of them did, `None` only if nothing was ever due.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio; counts stay far below 2^53")]
    pub fn delivery_ratio(&self) -> Option<f64> {
        (self.due > 0).then(|| (self.due - self.lost) as f64 / self.due as f64)
    }
}

impl core::ops::AddAssign for LoopStats {
    fn add_assign(&mut self, more: Self) {
        // All fields by name, so that a new one is not forgotten here.
        let Self { sent, returned, due, lost, rounds, alarms } = more;
        self.sent += sent;
        self.returned += returned;
        self.due += due;
        self.lost += lost;
        self.rounds += rounds;
        self.alarms += alarms;
    }
}

impl core::iter::Sum for LoopStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}

/// A loop that did not come back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<K> {
    /// What it was sent with.
    pub id: [u8; 16],
    /// What it was sent through.
    pub key: K,
    /// When it was sent.
    pub sent: Time,
}

/// Why a loop is not followed. It was counted in [`LoopMonitor::refused`], and is otherwise as if never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// As many loops as the capacity allows are in flight.
    #[error("too many loops in flight")]
    TooManyInFlight,
    /// As many keys as the capacity allows have statistics; see [`LoopMonitor::retain`].
    #[error("too many keys with loop statistics")]
    TooManyKeys,
    /// A loop with this id is in flight already.
    #[error("a loop with this id is in flight already")]
    DuplicateId,
}

impl<K: Ord + Copy> LoopMonitor<K> {
    /// A monitor that counts a loop as lost `timeout` after it was sent, with at most `capacity` loops in flight.
    #[must_use]
    pub fn new(timeout: Duration, capacity: usize, test: LossTest) -> LoopMonitor<K> {
        LoopMonitor {
            timeout,
            capacity,
            test,
            in_flight: BTreeMap::new(),
            deadlines: VecDeque::with_capacity(capacity),
            tallies: BTreeMap::new(),
            refused: 0,
        }
    }

    /// A loop with this id goes out through `key`.
    ///
    /// # Errors
    ///
    /// [`SendError`] if it is not followed.
    pub fn sent(&mut self, now: Time, id: [u8; 16], key: K) -> Result<(), SendError> {
        self.may_follow(&id, &key).inspect_err(|_| self.refused += 1)?;
        self.tallies.entry(key).or_default().stats.sent += 1;
        // Should `now` ever step back, a loop waits a little longer: deadlines stay in order.
        let latest = self.deadlines.back().map_or(Time::ZERO, |&(deadline, _)| deadline);
        let deadline = (now + self.timeout).max(latest);
        self.deadlines.push_back((deadline, id));
        self.in_flight.insert(id, InFlight { key, sent: now, deadline, returned: false });
        Ok(())
    }

    fn may_follow(&self, id: &[u8; 16], key: &K) -> Result<(), SendError> {
        if self.in_flight.len() >= self.capacity {
            return Err(SendError::TooManyInFlight);
        }
        if self.in_flight.contains_key(id) {
            return Err(SendError::DuplicateId);
        }
        if self.tallies.len() >= self.capacity && !self.tallies.contains_key(key) {
            return Err(SendError::TooManyKeys);
        }
        Ok(())
    }

    /// The loop with this id came back. Says how long it took; `None` if it is unknown, too late (whether or not
    /// [`LoopMonitor::poll_expired`] has noticed) or came back before.
    pub fn returned(&mut self, now: Time, id: [u8; 16]) -> Option<Duration> {
        let flight =
            self.in_flight.get_mut(&id).filter(|flight| !flight.returned && now < flight.deadline)?;
        flight.returned = true;
        if let Some(tally) = self.tallies.get_mut(&flight.key) {
            tally.stats.returned += 1;
        }
        Some(now - flight.sent)
    }

    /// Takes all into account that is due at `now`; hands out each loop that was lost. Call until `None`, and before
    /// reading statistics.
    pub fn poll_expired(&mut self, now: Time) -> Option<Lost<K>> {
        while self.poll_timeout()? <= now {
            let (_, id) = self.deadlines.pop_front()?;
            let Some(flight) = self.in_flight.remove(&id) else { continue };
            if let Some(tally) = self.tallies.get_mut(&flight.key) {
                tally.stats.due += 1;
                tally.stats.lost += u64::from(!flight.returned);
                if let Some(verdict) = tally.round.observe(&self.test, !flight.returned) {
                    tally.stats.rounds += 1;
                    tally.stats.alarms += u64::from(verdict == Verdict::Alarm);
                    tally.verdict = verdict;
                }
            }
            if !flight.returned {
                return Some(Lost { id, key: flight.key, sent: flight.sent });
            }
        }
        None
    }

    /// When [`LoopMonitor::poll_expired`] wants to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.front().map(|&(deadline, _)| deadline)
    }

    /// What is known about `key`; all zero if nothing.
    #[must_use]
    pub fn stats(&self, key: &K) -> LoopStats {
        self.tallies.get(key).map(|tally| tally.stats).unwrap_or_default()
    }

    /// The latest verdict on `key`.
    #[must_use]
    pub fn verdict(&self, key: &K) -> Verdict {
        self.tallies.get(key).map(|tally| tally.verdict).unwrap_or_default()
    }

    /// All keys, in order, with what is known about them.
    pub fn iter(&self) -> impl Iterator<Item = (K, LoopStats, Verdict)> + '_ {
        self.tallies.iter().map(|(key, tally)| (*key, tally.stats, tally.verdict))
    }

    /// All keys taken together.
    #[must_use]
    pub fn total(&self) -> LoopStats {
        self.tallies.values().map(|tally| tally.stats).sum()
    }

    /// Forgets all keys for which `keep` is false (those of an epoch that is over), with their loops in flight.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.tallies.retain(|key, _| keep(key));
        self.in_flight.retain(|_, flight| self.tallies.contains_key(&flight.key));
        self.deadlines.retain(|(_, id)| self.in_flight.contains_key(id));
    }

    /// Loops that are not due yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Loops that [`LoopMonitor::sent`] refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl<K> fmt::Debug for LoopMonitor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopMonitor")
            .field("in_flight", &self.in_flight.len())
            .field("keys", &self.tallies.len())
            .finish_non_exhaustive()
    }
}

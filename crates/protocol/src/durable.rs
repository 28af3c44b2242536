//! What may leave only when its tag is durable.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tombola_mixing::Time;

use crate::taglog::TagLog;

/// How often a log is asked while something waits for it whose time has come. Nobody asks while nothing waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// A log syncs what was appended within this time without being asked to.
const SYNCED_ANYWAY: Duration = Duration::from_millis(250);

/// Where the tag of a packet lies in the log of the key that opened it.
#[derive(Clone, Default)]
pub struct TagPlace {
    log: Option<Arc<dyn TagLog>>,
    position: u64,
}

impl TagPlace {
    /// Everything up to `position` of `log`, the tag included.
    pub fn new(log: Arc<dyn TagLog>, position: u64) -> Self {
        Self { log: Some(log), position }
    }

    /// Whether the packet would be refused after a crash now. A key without a log dies with its process.
    pub fn is_durable(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.durable() >= self.position)
    }

    /// Says that somebody waits for it, and for how long at most.
    pub fn need(&self, within: Duration) {
        if let Some(log) = self.log.as_ref().filter(|_| within < SYNCED_ANYWAY) {
            log.need(self.position, within);
        }
    }
}

impl fmt::Debug for TagPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagPlace").field("logged", &self.log.is_some()).finish_non_exhaustive()
    }
}

/// Things whose time has come and whose tag is not durable yet. They become ready in the order of their deadlines, things
/// with the same deadline in the order in which they came.
///
/// **Bound.** Whoever puts things in has counted them before.
#[derive(Debug)]
pub struct AwaitDurable<T> {
    waiting: BTreeMap<(Time, u64), (TagPlace, T)>,
    ready: VecDeque<(Time, T)>,
    count: u64,
    look_at: Time,
}

impl<T> Default for AwaitDurable<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), ready: VecDeque::new(), count: 0, look_at: Time::MAX }
    }
}

impl<T> AwaitDurable<T> {
    /// Takes a thing that was due at `deadline`, and may wait that long for its tag.
    pub fn insert(&mut self, now: Time, deadline: Time, within: Duration, tag: TagPlace, thing: T) {
        tag.need(within);
        self.look_at = self.look_at.min(now + LOOK_INTERVAL);
        self.waiting.insert((deadline, self.count), (tag, thing));
        self.count += 1;
    }

    /// Asks the logs, if it is time to.
    pub fn look(&mut self, now: Time) {
        if now < self.look_at {
            return;
        }
        for ((deadline, _), (_, thing)) in self.waiting.extract_if(.., |_, (tag, _)| tag.is_durable()) {
            self.ready.push_back((deadline, thing));
        }
        self.look_at = if self.waiting.is_empty() { Time::MAX } else { now + LOOK_INTERVAL };
    }

    /// The deadline of the first thing that is ready.
    pub fn first_ready(&self) -> Option<Time> {
        self.ready.front().map(|(deadline, _)| *deadline)
    }

    /// The first thing that is ready, with its deadline. Call [`look`](Self::look) before.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        self.ready.pop_front()
    }

    /// When it wants to be looked at again.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.first_ready().or((self.look_at < Time::MAX).then_some(self.look_at))
    }

    /// Things in it.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

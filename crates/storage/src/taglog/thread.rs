//! The thread that writes a tag log.

use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::format::{self, Scan};
use super::{BACKLOG, TagLogError};
use crate::mark::Marker;
use crate::medium::Medium;

/// A sync begins so long before somebody needs it, or as long as the last one took.
const LEAD: Duration = Duration::from_millis(3);
/// But not longer.
const LONGEST_LEAD: Duration = Duration::from_millis(50);
/// So many fingerprints do not wait for anything.
const AT_ONCE: usize = BACKLOG / 4;
/// Wait after the first failure; twice as long after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Up to this.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What a log's users and its thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) wake: Condvar,
    pub(super) durable: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Fingerprints that the thread has not taken.
    pub(super) waiting: Vec<u64>,
    /// Position after them.
    pub(super) appended: u64,
    /// Position up to which the thread has taken them.
    pub(super) taken: u64,
    /// When they have to be durable.
    pub(super) due: Option<Instant>,
    /// Why the last attempt to write failed.
    pub(super) trouble: Option<String>,
    pub(super) closing: bool,
    /// The thread is gone.
    pub(super) ended: bool,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.wake.notify_all();
    }
}

impl State {
    /// Whether the thread has to be woken for it.
    pub(super) fn bring_forward(&mut self, due: Instant) -> bool {
        let sooner = self.due.is_none_or(|known| due < known);
        if sooner {
            self.due = Some(due);
        }
        sooner || self.waiting.len() >= AT_ONCE
    }
}

pub(super) struct Thread<F> {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    key_id: [u8; 32],
    shared: Arc<Shared>,
    notify: F,
    marker: Marker,
    /// Where the durable part of the file ends, and how many fingerprints are in it.
    end: u64,
    position: u64,
    /// How long the last sync took.
    lead: Duration,
    /// Trouble that was logged, and is not over.
    told: Option<Discriminant<TagLogError>>,
}

/// Says that the thread is gone, however it went.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        if std::thread::panicking() {
            state.trouble = Some("the thread that writes panicked".into());
        }
    }
}

impl<F: Fn(u64)> Thread<F> {
    pub(super) fn new(
        medium: Arc<dyn Medium>,
        path: &Path,
        key_id: [u8; 32],
        found: Scan,
        shared: Arc<Shared>,
        notify: F,
    ) -> Thread<F> {
        Thread {
            medium,
            path: path.to_owned(),
            key_id,
            shared,
            notify,
            marker: found.marker,
            end: found.end,
            position: found.fingerprints,
            lead: LEAD,
            told: None,
        }
    }

    pub(super) fn run(mut self) -> Result<(), TagLogError> {
        let _ending = Ending(self.shared.clone());
        // It was synced when it was opened.
        self.marker.set(&*self.medium, self.position);
        // What was taken and is not durable yet.
        let mut group = Vec::new();
        let mut retry: Option<(Instant, Duration)> = None;
        loop {
            let closing = self.take(retry.map(|(at, _)| at), &mut group);
            if group.is_empty() {
                // Only when closing is there nothing.
                return self.end();
            }
            match self.write(&group) {
                Ok(()) => {
                    group.clear();
                    retry = None;
                    self.settled();
                    self.shared.durable.store(self.position, Ordering::Release);
                    (self.notify)(self.position);
                    self.marker.set(&*self.medium, self.position);
                }
                Err(error) => {
                    self.marker.lose();
                    self.failed(&error);
                    if closing {
                        return Err(error);
                    }
                    let wait = retry.map_or(FIRST_RETRY, |(_, last)| (2 * last).min(LAST_RETRY));
                    retry = Some((Instant::now() + wait, wait));
                }
            }
        }
    }

    /// Waits until something has to be written, and takes all there is. Returns whether the log is being closed.
    fn take(&self, retry: Option<Instant>, group: &mut Vec<u64>) -> bool {
        let mut state = self.shared.state();
        loop {
            let due = match (retry, state.due) {
                _ if state.closing => break,
                (Some(retry), _) => Some(retry),
                (None, Some(_)) if state.waiting.len() >= AT_ONCE => break,
                (None, Some(due)) => due.checked_sub(self.lead).or(Some(due)),
                (None, None) => None,
            };
            let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
            state = match wait {
                Some(Duration::ZERO) => break,
                Some(wait) => {
                    self.shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.due = None;
        group.append(&mut state.waiting);
        state.taken = state.appended;
        state.closing
    }

    /// Writes and syncs. The durable part grows only if both succeed.
    fn write(&mut self, group: &[u64]) -> Result<(), TagLogError> {
        let mut bytes = Vec::new();
        format::encode(&self.key_id, self.position, group, &mut bytes);
        let begun = Instant::now();
        // After a failure it is unknown what is there. A group only grows then, so that everything is written over.
        let write = || self.medium.write_at(self.end, &bytes).and_then(|()| self.medium.sync());
        write().map_err(|error| TagLogError::io(&self.path, "write", error))?;
        self.lead = begun.elapsed().clamp(LEAD, LONGEST_LEAD);
        self.end += bytes.len() as u64;
        self.position += group.len() as u64;
        Ok(())
    }

    /// Makes the last mark durable.
    fn end(mut self) -> Result<(), TagLogError> {
        let sync = || self.medium.sync().map_err(|error| TagLogError::io(&self.path, "write", error));
        sync()?;
        // After a failure it is one behind.
        if self.marker.number() < self.position {
            self.marker.set(&*self.medium, self.position);
            sync()?;
        }
        Ok(())
    }

    fn settled(&mut self) {
        self.shared.state().trouble = None;
        if self.told.take().is_some() {
            tracing::info!(path = %self.path.display(), "the tag log can be written again");
        }
    }

    fn failed(&mut self, error: &TagLogError) {
        self.shared.state().trouble = Some(error.to_string());
        // Each kind of trouble is told once.
        let kind = Some(discriminant(error));
        if self.told != kind {
            self.told = kind;
            tracing::error!(%error, "the tag log cannot be written; packets are refused until it can");
        }
    }
}

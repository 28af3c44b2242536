//! The thread that writes groups, so that nobody else waits for the disk.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tombola_protocol::store::StoreOp;

use crate::error::StoreError;
use crate::pending::{self, Pending};
use crate::store::Store;

/// Memory for what could not be written yet. A gateway's mail fills it in half a minute at a thousand packets a second.
pub const BACKLOG_BYTES: usize = 64 << 20;
/// A group of this size does not wait for more.
const GROUP_BYTES: usize = 4 << 20;
/// Nor one of so many operations.
const GROUP_OPERATIONS: u64 = 10_000;
/// Wait after the first failure; twice as long after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Up to this.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Operations that a writer did not take: too many wait already, because the disk fails or is too slow, or the writer was
/// closed. They are given back, to be submitted again before any others.
#[derive(Debug, thiserror::Error)]
#[error("the disk does not keep up: {} operations were refused", .0.len())]
pub struct Backlog(pub Vec<StoreOp>);

/// Hands operations to the thread that writes them. Cheap to clone.
///
/// The thread ends when [`close`](Self::close) is called, or the last clone is dropped; only `close` waits for it.
#[derive(Clone)]
pub struct Writer {
    handle: Arc<Owner>,
}

struct Owner {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    linger: Duration,
}

#[derive(Default)]
struct State {
    /// What comes in the next group.
    waiting: Pending,
    /// When it is to be written: at most `linger` after its first operation came.
    due: Option<Instant>,
    /// Size of what the thread is writing, or tries to.
    in_flight: usize,
    closing: bool,
    /// The thread is gone.
    ended: bool,
    trouble: Option<String>,
}

impl Store {
    /// Starts the thread that writes groups: what has come `linger` after the first operation of a group, or earlier if it is
    /// a lot. `durable(count)` is called from it when the first `count` operations ever submitted to this writer are durable;
    /// it must not wait for anything. A store has one writer at a time, or the order between them is open.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start_writer(
        self: &Arc<Self>,
        linger: Duration,
        durable: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Writer> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new(), linger });
        let path = self.path().to_owned();
        let thread = Thread { store: self.clone(), shared: shared.clone(), durable, count: 0, told: None };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || thread.run())?;
        Ok(Writer { handle: Arc::new(Owner { path, shared, thread: Mutex::new(Some(thread)) }) })
    }
}

impl Writer {
    /// Takes operations, to be written after all that were submitted before; all of them in one group. Never waits for the
    /// disk.
    ///
    /// # Errors
    /// [`Backlog`]; nothing of it was taken.
    pub fn submit(&self, operations: Vec<StoreOp>) -> Result<(), Backlog> {
        if operations.is_empty() {
            return Ok(());
        }
        let size: usize = operations.iter().map(pending::size).sum();
        let mut state = self.handle.shared.state();
        let backlog = state.backlog();
        // What is greater than the bound by itself has to be taken some time.
        if state.closing || state.ended || (backlog > 0 && backlog.saturating_add(size) > BACKLOG_BYTES) {
            return Err(Backlog(operations));
        }
        let was_ready = state.is_large();
        let was_empty = state.due.is_none();
        state.waiting.extend(operations);
        if was_empty {
            state.due = Some(Instant::now() + self.handle.shared.linger);
        }
        if was_empty || (!was_ready && state.is_large()) {
            self.handle.shared.wake.notify_all();
        }
        Ok(())
    }

    /// What was submitted and is not durable yet is written so soon at the latest, or when what is being written now is
    /// durable.
    pub fn hurry(&self, within: Duration) {
        let mut state = self.handle.shared.state();
        let due = Instant::now() + within;
        if state.due.is_some_and(|other| due < other) {
            state.due = Some(due);
            self.handle.shared.wake.notify_all();
        }
    }

    /// Why the last attempt to write failed, if it did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.handle.shared.state().trouble.clone()
    }

    /// Memory that is taken by what is not durable yet, of [`BACKLOG_BYTES`].
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.handle.shared.state().backlog()
    }

    /// Writes what waits, once, and ends the thread. Nothing is taken any more.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn close(&self) -> Result<(), StoreError> {
        self.handle.shared.close();
        let mut thread = self.handle.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(self.failed("the thread that writes panicked".into())),
            None => self.trouble().map_or(Ok(()), |trouble| Err(self.failed(trouble))),
        }
    }

    fn failed(&self, reason: String) -> StoreError {
        StoreError::io(&self.handle.path, "write", io::Error::other(reason))
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.handle.path).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.state().closing = true;
        self.wake.notify_all();
    }
}

impl State {
    fn backlog(&self) -> usize {
        self.waiting.bytes() + self.in_flight
    }

    fn is_large(&self) -> bool {
        self.waiting.bytes() >= GROUP_BYTES || self.waiting.operations() >= GROUP_OPERATIONS
    }
}

struct Thread<F> {
    store: Arc<Store>,
    shared: Arc<Shared>,
    durable: F,
    /// Operations that are durable.
    count: u64,
    /// Trouble that was logged, and is not over.
    told: Option<Discriminant<StoreError>>,
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

impl<F: FnMut(u64)> Thread<F> {
    fn run(mut self) -> Result<(), StoreError> {
        let _ending = Ending(self.shared.clone());
        // What was taken and is not written yet.
        let mut group = Pending::default();
        let mut retry: Option<(Instant, Duration)> = None;
        loop {
            let (taken, closing) = self.take(retry.map(|(at, _)| at), group.bytes());
            group.append(taken);
            if group.operations() == 0 {
                // Only when closing does it return nothing.
                return Ok(());
            }
            match self.store.apply(&group) {
                Ok(()) => {
                    self.count += group.operations();
                    group = Pending::default();
                    retry = None;
                    self.settled();
                    (self.durable)(self.count);
                }
                Err(error) => {
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

    /// Waits until there is a group, or it is time to try again; takes all that waits.
    fn take(&self, retry: Option<Instant>, carried: usize) -> (Pending, bool) {
        let mut state = self.shared.state();
        loop {
            let due = match (retry, state.due) {
                _ if state.closing => break,
                (Some(retry), _) => Some(retry),
                (None, Some(_)) if state.is_large() => break,
                (None, due) => due,
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
        let taken = std::mem::take(&mut state.waiting);
        state.in_flight = carried + taken.bytes();
        (taken, state.closing)
    }

    fn settled(&mut self) {
        let mut state = self.shared.state();
        state.in_flight = 0;
        state.trouble = None;
        drop(state);
        if self.told.take().is_some() {
            tracing::info!(path = %self.store.path().display(), "the store can be written again");
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.shared.state().trouble = Some(error.to_string());
        // Each kind of trouble is told once.
        let kind = Some(discriminant(error));
        if self.told != kind {
            self.told = kind;
            tracing::error!(%error, "the store cannot be written; what waits is kept, and tried again");
        }
    }
}

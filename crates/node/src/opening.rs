//! Who opens packets: a pool of workers, or the thread that read them from the link.
//!
//! Workers use several processors and shed load when their queue is full. On the reading thread a packet costs no change of
//! threads, which is dearer than opening it when packets come one by one; what that thread cannot keep up with stays with
//! the transport, whose flow control stops the neighbour. There, too, packets are opened together: those of all links that the
//! thread has read before it comes to opening.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tombola_protocol::opener::{Inbound, Opened, Opener};

use crate::driver::Inputs;
use crate::shutdown::{FailureGuard, Shutdown};
use crate::workers::{BATCH_MAX, Pool, PoolSettings, Refused, Submitter, WorkerPanicked};

/// Packets that may wait for a worker.
const WORKER_QUEUE: usize = 4096;
/// Packets that are opened at the cost of few: sixteen share vector registers and an inversion.
const FULL: usize = 16;
/// How long a worker waits for that many. A packet's delay counts from its arrival, so that nearly all of them leave when they
/// would anyway; and with what it takes to wake a thread it is less than half a millisecond.
const HOLD: Duration = Duration::from_micros(400);

/// Running openers.
#[derive(Debug)]
pub enum Openers {
    /// Threads of their own.
    Workers(Pool<Inbound>),
    /// The reading thread.
    Here(Inline),
}

/// The way to them; clones share it.
#[derive(Clone, Debug)]
pub enum ToOpeners {
    /// Into the workers' queue.
    Workers(Submitter<Inbound>),
    /// On this thread.
    Here(Inline),
}

/// Has packets opened on the thread that reads them, by a task.
#[derive(Clone)]
pub struct Inline {
    waiting: mpsc::Sender<Inbound>,
    room: Arc<dyn Fn() -> usize + Send + Sync>,
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline")
    }
}

impl Openers {
    /// Starts `threads` workers, or none for 0. What is opened becomes inputs of a driver; while its channel is full, who
    /// opens waits. Without workers it has to be called on a runtime.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start<I: Send + 'static>(
        opener: Arc<Opener>,
        threads: usize,
        inputs: &Inputs<I>,
        input_of: impl Fn(Opened) -> I + Clone + Send + Sync + 'static,
        stop: Shutdown,
    ) -> std::io::Result<Self> {
        let inputs = inputs.clone();
        let worker = move |_| {
            let opener = Arc::clone(&opener);
            let mut spare = Vec::new();
            move |batch: &mut Vec<Inbound>, out: &mut Vec<Opened>| {
                opener.open_batch(batch, out, &mut spare);
                spare.clear();
            }
        };
        if threads == 0 {
            let (waiting, received) = mpsc::channel(WORKER_QUEUE);
            let counted = inputs.clone();
            let guard = FailureGuard { shutdown: stop, what: "open" };
            tokio::spawn(work_together(worker(0), received, inputs, input_of, guard));
            return Ok(Self::Here(Inline { waiting, room: Arc::new(move || counted.room()) }));
        }
        // Sending fails only when the driver has ended, and then nothing leaves this node any more.
        let deliver = move |opened| drop(inputs.send(input_of(opened)));
        let settings = PoolSettings { name: "open", threads, queue: WORKER_QUEUE, full: FULL, hold: HOLD };
        Ok(Self::Workers(Pool::spawn(settings, worker, deliver, stop)?))
    }

    /// The way to them.
    #[must_use]
    pub fn way(&self) -> ToOpeners {
        match self {
            Self::Workers(pool) => ToOpeners::Workers(pool.submitter()),
            Self::Here(inline) => ToOpeners::Here(inline.clone()),
        }
    }

    /// Waits until all threads have ended.
    ///
    /// # Errors
    /// A worker panicked.
    pub fn join(self) -> Result<(), WorkerPanicked> {
        match self {
            Self::Workers(pool) => pool.join(),
            Self::Here(_) => Ok(()),
        }
    }
}

impl ToOpeners {
    /// Has packets opened. `refused` is called for each that no worker had room for.
    pub fn open(&self, packets: impl Iterator<Item = Inbound>, mut refused: impl FnMut(Inbound)) {
        match self {
            Self::Workers(workers) => {
                for packet in packets {
                    if let Err(Refused::Full(packet) | Refused::Stopped(packet)) = workers.try_submit(packet)
                    {
                        refused(packet);
                    }
                }
            }
            Self::Here(inline) => {
                for packet in packets {
                    if let Err(TrySendError::Full(packet) | TrySendError::Closed(packet)) =
                        inline.waiting.try_send(packet)
                    {
                        refused(packet);
                    }
                }
            }
        }
    }

    /// How many packets may be opened now. On this thread: as many as the driver has room for, so that what it is too slow for
    /// stays with the transport.
    #[must_use]
    pub fn room(&self) -> usize {
        match self {
            Self::Workers(_) => usize::MAX,
            Self::Here(inline) => {
                let free = inline.waiting.capacity();
                (inline.room)().saturating_sub(inline.waiting.max_capacity() - free).min(free)
            }
        }
    }

    /// Hands the length of the queue to the metrics.
    pub fn publish(&self) {
        if let Self::Workers(workers) = self {
            workers.publish();
        }
    }
}

/// Does the work of a worker as a task: with what was read, until nobody reads any more or the driver has ended. Should it
/// panic, the process ends.
async fn work_together<T, O, I>(
    mut work: impl FnMut(&mut Vec<T>, &mut Vec<O>),
    mut waiting: mpsc::Receiver<T>,
    inputs: Inputs<I>,
    input_of: impl Fn(O) -> I,
    _guard: FailureGuard,
) {
    let (mut batch, mut out) = (Vec::new(), Vec::new());
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        work(&mut batch, &mut out);
        batch.clear();
        for done in out.drain(..) {
            // The driver may be on this thread, so the thread must not wait if something else has taken the room meanwhile.
            if !inputs.pass(input_of(done)).await {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver;
    use crate::shutdown::Cause;

    /// Whatever waits is worked on together, in its order; a full channel delays it, and no more.
    #[tokio::test]
    async fn what_was_read_is_opened_together_and_waits_for_the_driver() {
        let (inputs, received) = driver::inputs::<u32>(1);
        let (waiting, read) = mpsc::channel(100);
        for number in 0..40 {
            waiting.send(number).await.unwrap();
        }
        drop(waiting);
        let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let work = move |batch: &mut Vec<u32>, out: &mut Vec<u32>| {
            seen.lock().unwrap().push(batch.len());
            // What it leaves is dropped, as workers do.
            out.extend_from_slice(batch);
        };
        let guard = FailureGuard { shutdown: Shutdown::new(), what: "open" };
        let task = tokio::spawn(work_together(work, read, inputs, |number| number, guard));
        let mut taken = Vec::new();
        let all = async {
            while taken.len() < 40 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                taken.extend(received.try_take());
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all of them");
        task.await.unwrap();
        assert_eq!(taken, (0..40).collect::<Vec<_>>());
        assert_eq!(*sizes.lock().unwrap(), [BATCH_MAX, 40 - BATCH_MAX]);
    }

    #[tokio::test]
    async fn a_panic_ends_the_process() {
        let (inputs, _received) = driver::inputs::<u32>(1);
        let (waiting, read) = mpsc::channel(1);
        let shutdown = Shutdown::new();
        let guard = FailureGuard { shutdown: shutdown.clone(), what: "open" };
        let work = |_: &mut Vec<u32>, _: &mut Vec<u32>| panic!("wanted by a test");
        let task = tokio::spawn(work_together(work, read, inputs, |number| number, guard));
        assert!(!shutdown.is_triggered());
        waiting.send(1).await.unwrap();
        assert!(task.await.unwrap_err().is_panic());
        assert!(matches!(shutdown.cause(), Some(Cause::Failure(why)) if why.contains("open")));
    }

    #[tokio::test]
    async fn it_ends_with_the_driver() {
        let (inputs, received) = driver::inputs::<u32>(1);
        let (waiting, read) = mpsc::channel(1);
        let guard = FailureGuard { shutdown: Shutdown::new(), what: "open" };
        let work = |batch: &mut Vec<u32>, out: &mut Vec<u32>| out.append(batch);
        let task = tokio::spawn(work_together(work, read, inputs, |number| number, guard));
        drop(received);
        waiting.send(1).await.unwrap();
        task.await.unwrap();
        assert!(waiting.send(2).await.is_err(), "nobody takes it");
    }
}

//! Who opens packets: a pool of workers, or the thread that read them from the link.
//!
//! Workers use several processors and shed load when their queue is full. On the reading thread a packet costs no change of
//! threads, which is dearer than opening it when packets come one by one; what that thread cannot keep up with stays with
//! the transport, whose flow control stops the neighbour.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tombola_protocol::frame::Frame;
use tombola_protocol::opener::{Inbound, Opened, Opener};

use crate::driver::Inputs;
use crate::shutdown::Shutdown;
use crate::workers::{Pool, PoolSettings, Refused, Submitter, WorkerPanicked};

/// Packets that may wait for a worker.
const WORKER_QUEUE: usize = 4096;
/// Packets that are opened at the cost of few: sixteen share vector registers and an inversion.
const FULL: usize = 16;
/// How long a worker waits for that many. A packet's delay counts from its arrival, so that nearly all of them leave when they
/// would anyway; and with what it takes to wake a thread it is less than half a millisecond.
const HOLD: Duration = Duration::from_micros(400);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    batch: Vec<Inbound>,
    opened: Vec<Opened>,
    spare: Vec<Frame>,
}

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

/// Opens packets on the thread that calls it.
#[derive(Clone)]
pub struct Inline {
    open: Arc<dyn Fn(&mut Scratch) + Send + Sync>,
    room: Arc<dyn Fn() -> usize + Send + Sync>,
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline")
    }
}

impl Openers {
    /// Starts `threads` workers, or none for 0. What is opened becomes inputs of a driver; while its channel is full, who
    /// opens waits.
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
        let (inputs, counted) = (inputs.clone(), inputs.clone());
        // Sending fails only when the driver has ended, and then nothing leaves this node any more.
        let deliver = move |opened| drop(inputs.send(input_of(opened)));
        if threads == 0 {
            let open = move |scratch: &mut Scratch| {
                opener.open_batch(&mut scratch.batch, &mut scratch.opened, &mut scratch.spare);
                scratch.spare.clear();
                scratch.opened.drain(..).for_each(&deliver);
            };
            let room = move || counted.room();
            return Ok(Self::Here(Inline { open: Arc::new(open), room: Arc::new(room) }));
        }
        let worker = |_| {
            let opener = Arc::clone(&opener);
            let mut spare = Vec::new();
            move |batch: &mut Vec<Inbound>, out: &mut Vec<Opened>| {
                opener.open_batch(batch, out, &mut spare);
                spare.clear();
            }
        };
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
            Self::Here(inline) => SCRATCH.with_borrow_mut(|scratch| {
                scratch.batch.extend(packets);
                (inline.open)(scratch);
            }),
        }
    }

    /// How many packets may be opened now. On this thread: as many as the driver has room for, which may be on this thread
    /// too, so that waiting for it would be for ever.
    #[must_use]
    pub fn room(&self) -> usize {
        match self {
            Self::Workers(_) => usize::MAX,
            Self::Here(inline) => (inline.room)(),
        }
    }

    /// Hands the length of the queue to the metrics.
    pub fn publish(&self) {
        if let Self::Workers(workers) = self {
            workers.publish();
        }
    }
}

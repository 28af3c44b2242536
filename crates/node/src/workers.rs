//! Threads that do the same thing to whatever arrives, in batches: unwrapping packets, which is nearly all of a relay's work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, select_biased};

use crate::driver::{panic_message, reduce_timer_slack};
use crate::metrics;
use crate::shutdown::{FailureGuard, Shutdown};

/// A worker takes at most this many items at a time.
pub const BATCH_MAX: usize = 32;

/// How many threads this process can run at a time: the default size of a pool.
#[must_use]
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What a pool of workers is made of.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Names the threads and the queue in the metrics.
    pub name: &'static str,
    /// How many threads, at least one.
    pub threads: usize,
    /// How many items may wait, at least one for each thread. With `n` threads at `t` per item, an item waits up to
    /// `queue * t / n`.
    pub queue: usize,
    /// Items that are cheaper together than alone: a worker that has fewer waits for more, but not for long.
    pub full: usize,
    /// How long. Nobody wakes it before.
    pub hold: Duration,
}

/// Running workers. [`Pool::submitter`] is how work gets in.
#[derive(Debug)]
pub struct Pool<T> {
    submitter: Submitter<T>,
    threads: Vec<JoinHandle<()>>,
}

/// The way into a pool; clones share it.
///
/// Each worker has a queue of its own, and one of them at a time is gathering: it gets what comes until it has what it
/// waited for, then it is the next one's turn. So batches are as large as they can be, and workers that are not needed sleep.
pub struct Submitter<T> {
    queues: Arc<[Sender<T>]>,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    stop: Shutdown,
    /// The number of the worker that is gathering.
    gathering: AtomicUsize,
    refused: ::metrics::Counter,
    length: ::metrics::Gauge,
}

/// Why an item was not taken; the item comes back.
#[derive(thiserror::Error)]
pub enum Refused<T> {
    /// The queue is full: load is shed here, before anything has been spent on the item. Counted in
    /// [`metrics::QUEUE_REFUSED_TOTAL`].
    #[error("the queue of the workers is full")]
    Full(T),
    /// The pool is stopping or has failed.
    #[error("the workers have stopped")]
    Stopped(T),
}

impl<T> std::fmt::Debug for Refused<T> {
    /// Names the reason only: an item may be anything.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Full(_) => f.write_str("Full"),
            Refused::Stopped(_) => f.write_str("Stopped"),
        }
    }
}

impl<T> Refused<T> {
    /// The item that was not taken.
    pub fn into_inner(self) -> T {
        match self {
            Refused::Full(item) | Refused::Stopped(item) => item,
        }
    }
}

/// A worker panicked; its message has been printed to standard error and the process's shutdown was triggered.
#[derive(Debug, thiserror::Error)]
#[error("a worker of {pool:?} panicked: {message}")]
pub struct WorkerPanicked {
    /// The pool's name.
    pub pool: &'static str,
    /// The first panic's message.
    pub message: String,
}

impl<T> Clone for Submitter<T> {
    fn clone(&self) -> Self {
        Self { queues: Arc::clone(&self.queues), shared: Arc::clone(&self.shared) }
    }
}

impl<T> std::fmt::Debug for Submitter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitter").field("name", &self.shared.name).field("len", &self.len()).finish()
    }
}

impl<T> Submitter<T> {
    /// Queues an item, or gives it back at once; never blocks.
    ///
    /// # Errors
    /// [`Refused`]: all queues are full, or the pool has stopped.
    pub fn try_submit(&self, mut item: T) -> Result<(), Refused<T>> {
        if self.shared.stop.is_triggered() {
            return Err(Refused::Stopped(item));
        }
        let count = self.queues.len();
        let first = self.shared.gathering.load(Ordering::Relaxed);
        // The one that gathers; the next one if that is busy and has a whole batch to do already; then whoever has room.
        let (free, any) = (0..count, 0..count);
        let free = free.filter(|step| self.queues[(first + step) % count].len() < BATCH_MAX);
        for step in free.chain(any) {
            match self.queues[(first + step) % count].try_send(item) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(refused)) => item = refused,
                Err(TrySendError::Disconnected(item)) => return Err(Refused::Stopped(item)),
            }
        }
        self.shared.refused.increment(1);
        Err(Refused::Full(item))
    }

    /// How many items wait now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.iter().map(Sender::len).sum()
    }

    /// Whether no item waits now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(Sender::is_empty)
    }

    /// Hands the length of the queue to the metrics. For a machine's `publish`.
    pub fn publish(&self) {
        self.shared.length.set(self.len() as f64);
    }
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the threads. `worker` is called once for each of them with its number, and returns the function that turns
    /// a batch into results, together with whatever scratch space that function owns.
    ///
    /// The function finds 1 to [`BATCH_MAX`] items in the first vector and appends to the second, which is empty. It may
    /// leave nothing (all were dropped) or more than it got. What it leaves in the first vector is dropped. Both vectors
    /// are reused, so a worker allocates nothing of its own. The results go to `sink` one by one and in order; `sink` may
    /// block (on the bounded channel of a driver, say): then the pool's queue fills up and new items are refused.
    ///
    /// Stopping: from the moment `stop` is triggered nothing new is taken; what was queued by then is still worked on,
    /// which is bounded by the length of the queue. Then the threads end. (An item that is submitted in the very moment of
    /// the stop may be dropped.) A panic in a worker triggers `stop`.
    ///
    /// # Errors
    /// The operating system could not start a thread. `stop` has been triggered then, which ends those that did start.
    pub fn spawn<U, W, S>(
        settings: PoolSettings,
        mut worker: impl FnMut(usize) -> W,
        sink: S,
        stop: Shutdown,
    ) -> io::Result<Pool<T>>
    where
        U: 'static,
        W: FnMut(&mut Vec<T>, &mut Vec<U>) + Send + 'static,
        S: FnMut(U) + Clone + Send + 'static,
    {
        let PoolSettings { name, threads, queue, full, hold } = settings;
        let threads = threads.max(1);
        let each = queue.div_ceil(threads).max(1);
        let (queues, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| crossbeam_channel::bounded(each)).unzip();
        let shared = Arc::new(Shared {
            name,
            stop: stop.clone(),
            gathering: AtomicUsize::new(0),
            refused: ::metrics::counter!(metrics::QUEUE_REFUSED_TOTAL, "queue" => name),
            length: ::metrics::gauge!(metrics::QUEUE_LENGTH, "queue" => name),
        });
        let submitter = Submitter { queues: queues.into(), shared: Arc::clone(&shared) };
        let mut pool = Pool { submitter, threads: Vec::new() };
        for (index, queue) in receivers.into_iter().enumerate() {
            let (sink, work) = (sink.clone(), worker(index));
            let guard = FailureGuard { shutdown: stop.clone(), what: name };
            let gather = Gather { queue, index, threads, full, hold, shared: Arc::clone(&shared) };
            let thread = thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                // What a worker waits for fills its batch, and shall not take longer than that.
                reduce_timer_slack();
                serve(&gather, &guard.shutdown, work, sink);
            });
            match thread {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => {
                    stop.trigger(crate::shutdown::Cause::Failure(format!(
                        "a thread of {name:?} did not start"
                    )));
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// A way in, to be cloned freely.
    #[must_use]
    pub fn submitter(&self) -> Submitter<T> {
        self.submitter.clone()
    }

    /// Waits until every thread has ended; it does not ask for it. Drop what blocks the sink first.
    ///
    /// # Errors
    /// A worker panicked.
    pub fn join(self) -> Result<(), WorkerPanicked> {
        let pool = self.submitter.shared.name;
        let mut first = Ok(());
        for thread in self.threads {
            if let Err(payload) = thread.join()
                && first.is_ok()
            {
                first = Err(WorkerPanicked { pool, message: panic_message(&*payload) });
            }
        }
        first
    }
}

/// A worker's way to its items.
struct Gather<T> {
    queue: Receiver<T>,
    index: usize,
    threads: usize,
    full: usize,
    hold: Duration,
    shared: Arc<Shared>,
}

impl<T> Gather<T> {
    /// Behind the first item: waits for more if there are few and it is this worker's turn, then takes what is there and
    /// gives the turn to the next.
    ///
    /// If the first one came only now. What is there when a worker comes back from an earlier batch has waited already.
    fn fill(&self, batch: &mut Vec<T>, came_now: bool) {
        let is_mine = self.shared.gathering.load(Ordering::Relaxed) == self.index;
        if is_mine {
            if came_now && batch.len() + self.queue.len() < self.full {
                // Not on the queue: each item would wake this thread.
                thread::sleep(self.hold);
            }
            // Before it takes them: what comes meanwhile is for the next worker.
            self.shared.gathering.store((self.index + 1) % self.threads, Ordering::Relaxed);
        }
        batch.extend(self.queue.try_iter().take(BATCH_MAX - batch.len()));
    }
}

/// One worker: waits for an item, gathers a batch, works, hands on.
fn serve<T, U>(
    gather: &Gather<T>,
    stop: &Shutdown,
    mut work: impl FnMut(&mut Vec<T>, &mut Vec<U>),
    mut sink: impl FnMut(U),
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut results = Vec::with_capacity(BATCH_MAX);
    let queue = &gather.queue;
    loop {
        // Read before the queue: what was accepted before the end is then seen by this round or a later one.
        let ending = stop.is_triggered();
        let (first, came_now) = match queue.try_recv() {
            Ok(item) => (item, false),
            Err(TryRecvError::Empty) if !ending => {
                let received = select_biased! {
                    recv(queue) -> item => item,
                    recv(stop.closing()) -> _ => continue,
                };
                let Ok(item) = received else { return };
                (item, true)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        };
        batch.push(first);
        gather.fill(&mut batch, came_now);
        work(&mut batch, &mut results);
        batch.clear();
        results.drain(..).for_each(&mut sink);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::shutdown::Cause;

    fn settings(threads: usize, queue: usize) -> PoolSettings {
        PoolSettings { name: "test", threads, queue, full: 1, hold: Duration::ZERO }
    }

    /// A worker that does nothing but hand on.
    fn pass(batch: &mut Vec<u64>, results: &mut Vec<u64>) {
        assert!((1..=BATCH_MAX).contains(&batch.len()));
        assert!(results.is_empty());
        results.append(batch);
    }

    #[test]
    fn every_item_comes_out_once() {
        let stop = Shutdown::new();
        let (out, results) = crossbeam_channel::bounded(10_000);
        let pool = Pool::spawn(settings(3, 64), |_| pass, move |item| out.send(item).unwrap(), stop.clone())
            .unwrap();
        let submitter = pool.submitter();
        for item in 0..5000 {
            let mut item = item;
            while let Err(refused) = submitter.try_submit(item) {
                item = refused.into_inner();
                thread::yield_now();
            }
        }
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        let mut seen: Vec<u64> = results.try_iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..5000).collect::<Vec<_>>(), "what was accepted before the stop is worked on");
        assert!(matches!(submitter.try_submit(1), Err(Refused::Stopped(1))));
    }

    #[test]
    fn one_thread_keeps_the_order() {
        let stop = Shutdown::new();
        let (out, results) = crossbeam_channel::bounded(1000);
        let pool =
            Pool::spawn(settings(1, 1000), |_| pass, move |item| out.send(item).unwrap(), stop.clone())
                .unwrap();
        for item in 0..1000 {
            pool.submitter().try_submit(item).unwrap();
        }
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        assert!(results.try_iter().eq(0..1000));
    }

    /// Sizes of the batches that come of items at this interval.
    fn batches(threads: usize, items: u64, every: Duration, full: usize, hold: Duration) -> Vec<usize> {
        let stop = Shutdown::new();
        let (out, sizes) = crossbeam_channel::bounded(10_000);
        let work = |_| {
            |batch: &mut Vec<u64>, results: &mut Vec<usize>| {
                results.push(batch.len());
                batch.clear();
            }
        };
        let settings = PoolSettings { name: "test", threads, queue: 10_000, full, hold };
        let pool = Pool::spawn(settings, work, move |size| out.send(size).unwrap(), stop.clone()).unwrap();
        let submitter = pool.submitter();
        for item in 0..items {
            submitter.try_submit(item).unwrap();
            thread::sleep(every);
        }
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        let sizes: Vec<usize> = sizes.try_iter().collect();
        assert_eq!(sizes.iter().sum::<usize>() as u64, items);
        sizes
    }

    #[test]
    fn items_that_come_apart_are_gathered_and_a_full_batch_waits_for_nothing() {
        let hold = Duration::from_millis(100);
        let apart = Duration::from_millis(10);
        let gathered = batches(3, 100, apart, 8, hold);
        assert!(gathered.len() <= 30, "no batches of several: {gathered:?}");
        let alone = batches(3, 50, apart, 1, hold);
        assert!(alone.len() >= 25, "nothing was to be waited for: {alone:?}");
        // Far less than one wait for each batch.
        let begun = Instant::now();
        let full = batches(1, 10_000, Duration::ZERO, 1, Duration::from_secs(1));
        assert!(begun.elapsed() < Duration::from_secs(30), "{} batches", full.len());
    }

    #[test]
    fn who_comes_back_from_a_batch_does_not_wait_for_the_next() {
        let hold = Duration::from_secs(60);
        let (sender, queue) = crossbeam_channel::bounded(4);
        let shared = Arc::new(Shared {
            name: "test",
            stop: Shutdown::new(),
            gathering: AtomicUsize::new(0),
            refused: ::metrics::Counter::noop(),
            length: ::metrics::Gauge::noop(),
        });
        let stop = shared.stop.clone();
        let gather = Gather { queue, index: 0, threads: 2, full: 16, hold, shared };
        for item in [1, 2] {
            sender.send(item).unwrap();
        }
        // It works on what waits, and ends.
        stop.trigger(Cause::Requested("test"));
        let (begun, mut batches) = (Instant::now(), Vec::new());
        serve(
            &gather,
            &stop,
            |batch, out: &mut Vec<Vec<i32>>| out.push(batch.clone()),
            |batch| batches.push(batch),
        );
        assert_eq!(batches, [[1, 2]]);
        assert_eq!(gather.shared.gathering.load(Ordering::Relaxed), 1, "it is the next one's turn");
        // Nor does one wait whose turn it is not.
        gather.fill(&mut vec![1], true);
        assert!(begun.elapsed() < hold);
    }

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let stop = Shutdown::new();
        let (gate, blocked) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let work = {
            let (gate, blocked) = (Arc::clone(&gate), Arc::clone(&blocked));
            move |_| {
                let (gate, blocked) = (Arc::clone(&gate), Arc::clone(&blocked));
                let mut first = true;
                move |_batch: &mut Vec<u64>, _results: &mut Vec<u64>| {
                    if std::mem::take(&mut first) {
                        blocked.wait();
                        gate.wait();
                    }
                }
            }
        };
        let pool = Pool::spawn(settings(1, 4), work, drop, stop.clone()).unwrap();
        let submitter = pool.submitter();
        submitter.try_submit(0).unwrap();
        blocked.wait();
        for item in 1..=4 {
            submitter.try_submit(item).unwrap();
        }
        assert_eq!(submitter.len(), 4);
        assert!(matches!(submitter.try_submit(5), Err(Refused::Full(5))));
        gate.wait();
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        assert!(submitter.is_empty());
    }

    #[test]
    fn a_flood_is_shed_and_memory_stays_bounded() {
        let stop = Shutdown::new();
        let live = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        struct Item(Arc<AtomicUsize>);
        impl Drop for Item {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let slow = |_| {
            |batch: &mut Vec<Item>, results: &mut Vec<()>| {
                thread::sleep(Duration::from_micros(200));
                results.extend(batch.drain(..).map(drop));
            }
        };
        let sink = move |()| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let pool = Pool::spawn(settings(2, 128), slow, sink, stop.clone()).unwrap();
        let flooders: Vec<_> = (0..4)
            .map(|_| {
                let (submitter, live, most) = (pool.submitter(), Arc::clone(&live), Arc::clone(&most));
                thread::spawn(move || {
                    let (mut taken, mut shed) = (0, 0);
                    for _ in 0..20_000 {
                        most.fetch_max(live.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        match submitter.try_submit(Item(Arc::clone(&live))) {
                            Ok(()) => taken += 1,
                            Err(Refused::Full(_)) => shed += 1,
                            Err(Refused::Stopped(_)) => unreachable!("not stopped yet"),
                        }
                    }
                    (taken, shed)
                })
            })
            .collect();
        let (mut taken, mut shed) = (0, 0);
        for flooder in flooders {
            let (t, s) = flooder.join().unwrap();
            taken += t;
            shed += s;
        }
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        assert_eq!(taken + shed, 80_000);
        assert_eq!(done.load(Ordering::Relaxed), taken);
        assert!(shed > 0, "a flood that is not shed is no flood");
        assert!(most.load(Ordering::Relaxed) <= 128 + 2 * BATCH_MAX + 4, "{most:?} items alive at once");
        assert_eq!(live.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_idle_pool_stops_at_once() {
        let stop = Shutdown::new();
        let pool = Pool::spawn(settings(4, 16), |_| pass, drop, stop.clone()).unwrap();
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        stop.trigger(Cause::Requested("test"));
        pool.join().unwrap();
        assert!(start.elapsed() < Duration::from_millis(500));
    }

    #[test]
    fn a_panic_is_reported_and_stops_the_process() {
        let stop = Shutdown::new();
        let work = |_| |_: &mut Vec<u64>, _: &mut Vec<u64>| panic!("expected in this test");
        let pool = Pool::spawn(settings(2, 16), work, drop, stop.clone()).unwrap();
        pool.submitter().try_submit(1).unwrap();
        let error = pool.join().unwrap_err();
        assert_eq!(error.to_string(), "a worker of \"test\" panicked: expected in this test");
        assert!(stop.cause().unwrap().is_failure());
    }
}

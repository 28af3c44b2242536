//! Drives a state machine with real time, on a thread of its own or, with a timer of the kernel's, in a task.
//!
//! Why not simply a task: the timer wheel of the asynchronous runtime has ticks of a millisecond, and the wire format carries
//! delays in nanoseconds. A delay that is rounded to ticks lets packets leave in groups, whose order an observer can then
//! reason about. This loop sleeps in the kernel, with the thread's timer slack reduced from 50 us to 1 ns; it does not spin.
//! `examples/lateness.rs` measures what comes out of that. Under load it rests (`rest.rs`) before it waits for more to come in;
//! on a thread of its own no longer than until something is due.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, TrySendError, never, select_biased};
use tokio::sync::Notify;
use tokio::task::JoinHandle as TaskHandle;
use tombola_mixing::Time;

#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};

use crate::clock::Clock;
use crate::lateness::{Lateness, LatenessReport};
use crate::metrics;
use crate::rest::Rest;
use crate::shutdown::{FailureGuard, Shutdown};

/// Inputs taken before the timeouts are looked at again. The driver stops earlier when one is due: an input that takes long
/// to handle then delays a release by itself alone.
const INPUTS_PER_ROUND: usize = 32;
/// Outputs handed on before the inputs get their turn, so that neither side can starve the other.
const OUTPUTS_PER_ROUND: usize = 256;
/// No preparatory work is begun when a timeout is this close: three times what a unit of work may take.
const FAR: Duration = Duration::from_millis(1);
/// When there is nothing else to do, work begins up to this close to a timeout: a unit of work and a margin.
const NEAR: Duration = Duration::from_micros(400);
/// How often a full channel is tried again by a task that waits.
const PASS_RETRY: Duration = Duration::from_millis(20);
/// Interval of [`Machine::publish`].
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// The way into a driver; clones share it.
pub struct Inputs<I> {
    sender: Sender<I>,
    /// Wakes a driver that is a task. A driver on its own thread is woken by the channel.
    wake: Arc<Notify>,
}

impl<I> Clone for Inputs<I> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<I> fmt::Debug for Inputs<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("len", &self.sender.len()).finish()
    }
}

/// The driver's end of [`Inputs`].
#[derive(Debug)]
pub struct Received<I> {
    inputs: Receiver<I>,
    wake: Arc<Notify>,
}

#[cfg(test)]
impl<I> Received<I> {
    pub(crate) fn try_take(&self) -> Option<I> {
        self.inputs.try_recv().ok()
    }
}

/// A bounded channel into a driver.
#[must_use]
pub fn inputs<I>(bound: usize) -> (Inputs<I>, Received<I>) {
    let (sender, receiver) = crossbeam_channel::bounded(bound);
    let wake = Arc::new(Notify::new());
    (Inputs { sender, wake: Arc::clone(&wake) }, Received { inputs: receiver, wake })
}

impl<I> Inputs<I> {
    /// Queues an input; waits while there is no room. On the thread of a driver that is a task it would wait for ever: look
    /// at [`room`](Self::room) first.
    ///
    /// # Errors
    /// The driver has ended.
    pub fn send(&self, input: I) -> Result<(), SendError<I>> {
        self.sender.send(input)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Queues an input if there is room.
    ///
    /// # Errors
    /// There is none, or the driver has ended.
    pub fn try_send(&self, input: I) -> Result<(), TrySendError<I>> {
        self.sender.try_send(input)?;
        self.wake.notify_one();
        Ok(())
    }

    /// Queues an input; waits, without holding up the thread, while there is no room. Says whether the driver took it.
    pub async fn pass(&self, mut input: I) -> bool {
        loop {
            match self.try_send(input) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(refused)) => input = refused,
            }
            tokio::time::sleep(PASS_RETRY).await;
        }
    }

    /// How many inputs there is room for. On a single thread nobody takes it in between.
    #[must_use]
    pub fn room(&self) -> usize {
        self.sender.capacity().unwrap_or(usize::MAX).saturating_sub(self.sender.len())
    }
}

/// A state machine without clock and without input or output of its own.
///
/// The driver calls `poll_output` until it returns `None`, after every input and whenever `poll_timeout` has passed.
pub trait Machine: Send + 'static {
    /// What comes in.
    type Input: Send;
    /// What goes out.
    type Output;

    /// Takes one input. `now` never goes backwards from one call of any method to the next.
    fn handle(&mut self, now: Time, input: Self::Input);

    /// Hands out the next thing that is to leave at `now`; `None` if there is nothing left to do before the next timeout.
    fn poll_output(&mut self, now: Time) -> Option<Self::Output>;

    /// When `poll_output` wants to be called again without an input, `None` for never. Called for every input and output,
    /// so it must be cheap. After `poll_output(now)` returned `None` it must be later than `now`: otherwise the driver has
    /// no reason to sleep.
    fn poll_timeout(&mut self) -> Option<Time>;

    /// Does one bounded unit (at most some 300 us) of work ahead of time, such as building a packet, and says whether there
    /// was anything to do. Called only when the next timeout is more than a millisecond away, or 400 us if there is nothing
    /// else to do; so under a load of more than a few thousand timeouts a second it may not be called at all.
    fn work(&mut self, now: Time) -> bool {
        let _ = now;
        false
    }

    /// Called once a second, and once at the end: hands counters to the metrics. Must be as quick as `handle`.
    fn publish(&mut self, now: Time) {
        let _ = now;
    }
}

/// A running driver. Dropping the handle leaves it running until its [`Shutdown`] is triggered.
#[derive(Debug)]
pub struct DriverHandle<M> {
    thread: Running<M>,
    lateness: Arc<Lateness>,
    name: &'static str,
}

/// The state machine, or what it handed its output to, panicked. The message has been printed to standard error and the
/// process's shutdown was triggered.
#[derive(Debug, thiserror::Error)]
#[error("the driver {name:?} panicked: {message}")]
pub struct DriverPanicked {
    /// The name that was given to [`spawn`].
    pub name: &'static str,
    /// The panic's message.
    pub message: String,
}

#[derive(Debug)]
enum Running<M> {
    Thread(JoinHandle<M>),
    Task(TaskHandle<M>),
}

impl<M: Send + 'static> DriverHandle<M> {
    /// How late timeouts have been served since the start.
    #[must_use]
    pub fn lateness(&self) -> LatenessReport {
        self.lateness.report()
    }

    /// Whether it has ended, in order or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.thread {
            Running::Thread(thread) => thread.is_finished(),
            Running::Task(task) => task.is_finished(),
        }
    }

    /// Waits for the end (it does not ask for it) and gives the machine back. Blocks the thread: not for a driver that is a
    /// task, nor inside of a runtime.
    ///
    /// # Errors
    /// The machine panicked.
    pub fn join(self) -> Result<M, DriverPanicked> {
        let name = self.name;
        let panicked = |message| DriverPanicked { name, message };
        match self.thread {
            Running::Thread(thread) => thread.join().map_err(|payload| panicked(panic_message(&*payload))),
            Running::Task(_) => {
                Err(panicked("a driver that is a task is waited for with `ended`".to_owned()))
            }
        }
    }

    /// Waits for the end (it does not ask for it) and gives the machine back.
    ///
    /// # Errors
    /// The machine panicked.
    pub async fn ended(self) -> Result<M, DriverPanicked> {
        let name = self.name;
        let panicked = |message: String| DriverPanicked { name, message };
        match self.thread {
            Running::Task(task) => task.await.map_err(|error| panicked(error.to_string())),
            Running::Thread(thread) => match tokio::task::spawn_blocking(move || thread.join()).await {
                Ok(joined) => joined.map_err(|payload| panicked(panic_message(&*payload))),
                Err(error) => Err(panicked(error.to_string())),
            },
        }
    }
}

/// The text of a panic, as far as it is text.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(no message)".to_owned()
    }
}

/// Starts a thread that drives `machine` until `stop` is triggered; it ends within some milliseconds then, after a last
/// [`Machine::publish`]. Inputs that are still queued are dropped with the channel.
///
/// - `name` names the thread (Linux shows 15 bytes of it) and the queue of its inputs in the metrics.
/// - `received` is the other end of [`inputs`]; a sender that must not block uses `try_send` and counts what it sheds. When
///   every sender is gone the machine goes on with its timeouts alone.
/// - `deliver` is called on the driver's thread and must not block: what it waits for, every packet in the pool waits for.
/// - A panic of the machine or of `deliver` triggers `stop`, so that nothing goes on without it.
///
/// The metrics recorder, if any, has to be installed before: [`metrics::RELEASE_LATENESS_SECONDS`] is registered here.
///
/// # Errors
/// The operating system could not start a thread.
pub fn spawn<M: Machine>(
    name: &'static str,
    clock: Clock,
    machine: M,
    received: Received<M::Input>,
    deliver: impl FnMut(M::Output) + Send + 'static,
    stop: Shutdown,
) -> io::Result<DriverHandle<M>> {
    let driver = Driver::new(name, clock, machine, received.inputs, deliver, stop.clone());
    let lateness = Arc::clone(&driver.lateness);
    let guard = FailureGuard { shutdown: stop, what: name };
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = guard;
        reduce_timer_slack();
        driver.run()
    })?;
    Ok(DriverHandle { thread: Running::Thread(thread), lateness, name })
}

/// Drives `machine` in a task on the current runtime instead, with a timer of the kernel's (timerfd): for a process whose
/// links run on one thread and whose packets come one by one. A packet then costs no change of threads; but what the
/// runtime does in the meantime, opening a packet say, delays releases. Where there is no timerfd, this is [`spawn`].
///
/// # Errors
/// The operating system gave no timer.
pub fn spawn_task<M: Machine>(
    name: &'static str,
    clock: Clock,
    machine: M,
    received: Received<M::Input>,
    deliver: impl FnMut(M::Output) + Send + 'static,
    stop: Shutdown,
) -> io::Result<DriverHandle<M>> {
    #[cfg(target_os = "linux")]
    {
        let timer = Timer::new()?;
        let driver = Driver::new(name, clock, machine, received.inputs, deliver, stop.clone());
        let lateness = Arc::clone(&driver.lateness);
        let guard = FailureGuard { shutdown: stop, what: name };
        let task = tokio::spawn(async move {
            let _guard = guard;
            driver.run_as_task(timer, received.wake).await
        });
        Ok(DriverHandle { thread: Running::Task(task), lateness, name })
    }
    #[cfg(not(target_os = "linux"))]
    spawn(name, clock, machine, received, deliver, stop)
}

/// Asks the kernel to wake this thread when its timer ends and not up to 50 us later. Elsewhere than on Linux the default
/// stays; a refusal costs accuracy, nothing else.
pub(crate) fn reduce_timer_slack() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(std::num::NonZeroU64::MIN)) {
        tracing::warn!(%error, "the timer slack of a thread could not be reduced");
    }
}

struct Driver<M: Machine, D> {
    clock: Clock,
    machine: M,
    inputs: Receiver<M::Input>,
    deliver: D,
    stop: Shutdown,
    lateness: Arc<Lateness>,
    lateness_metric: ::metrics::Histogram,
    queue_metric: ::metrics::Gauge,
    next_publish: Time,
    rest: Rest,
    /// Whether anything came in or went out since the thread was woken.
    worked: bool,
}

impl<M: Machine, D: FnMut(M::Output)> Driver<M, D> {
    fn new(
        name: &'static str,
        clock: Clock,
        machine: M,
        inputs: Receiver<M::Input>,
        deliver: D,
        stop: Shutdown,
    ) -> Self {
        Self {
            clock,
            machine,
            inputs,
            deliver,
            stop,
            lateness: Arc::new(Lateness::default()),
            lateness_metric: ::metrics::histogram!(metrics::RELEASE_LATENESS_SECONDS),
            queue_metric: ::metrics::gauge!(metrics::QUEUE_LENGTH, "queue" => name),
            next_publish: clock.now() + PUBLISH_INTERVAL,
            rest: Rest::new(),
            worked: false,
        }
    }

    fn run(mut self) -> M {
        while !self.stop.is_triggered() {
            if self.round() {
                self.wait();
            }
        }
        self.machine.publish(self.clock.now());
        self.machine
    }

    #[cfg(target_os = "linux")]
    async fn run_as_task(mut self, timer: Timer, wake: Arc<Notify>) -> M {
        let stop = self.stop.clone();
        let mut stopped = std::pin::pin!(stop.triggered());
        while !self.stop.is_triggered() {
            if !self.round() {
                // Links have their turn between two rounds.
                tokio::task::yield_now().await;
                continue;
            }
            let wake_at = self.wake_at();
            let now = self.clock.now();
            if wake_at <= now {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = timer.wait(wake_at - now) => {}
                () = wake.notified() => {}
            }
        }
        self.machine.publish(self.clock.now());
        self.machine
    }

    /// Does what is to be done. Returns whether nothing is left to do for now.
    fn round(&mut self) -> bool {
        // Outputs come first: a release that is due does not wait for the handling of what has arrived since.
        let drained = self.deliver_outputs();
        let handled = self.take_inputs();
        self.publish_if_due();
        let idle = drained && !handled;
        !self.work_if_time_allows(idle) && idle
    }

    fn wake_at(&mut self) -> Time {
        self.machine.poll_timeout().map_or(self.next_publish, |due| due.min(self.next_publish))
    }

    /// Returns whether the machine has nothing more to hand out for now.
    fn deliver_outputs(&mut self) -> bool {
        for _ in 0..OUTPUTS_PER_ROUND {
            let now = self.clock.now();
            let due = self.machine.poll_timeout().filter(|&due| due <= now);
            let output = self.machine.poll_output(now);
            if let Some(due) = due
                && self.machine.poll_timeout() != Some(due)
            {
                self.record(now - due);
            }
            let Some(output) = output else { return true };
            (self.deliver)(output);
            self.worked = true;
        }
        false
    }

    /// One sample per timeout that was served.
    fn record(&self, late: Duration) {
        self.lateness.record(late);
        self.lateness_metric.record(late.as_secs_f64());
    }

    /// Returns whether anything was taken: outputs may follow from it.
    fn take_inputs(&mut self) -> bool {
        for taken in 0..INPUTS_PER_ROUND {
            let Ok(input) = self.inputs.try_recv() else { return taken > 0 };
            let now = self.clock.now();
            self.machine.handle(now, input);
            self.worked = true;
            if self.machine.poll_timeout().is_some_and(|due| due <= now) {
                break;
            }
        }
        true
    }

    fn publish_if_due(&mut self) {
        let now = self.clock.now();
        if now >= self.next_publish {
            // The gauge takes a float; a queue is far shorter than 2^52.
            self.queue_metric.set(self.inputs.len() as f64);
            self.machine.publish(now);
            self.next_publish = now + PUBLISH_INTERVAL;
        }
    }

    /// Returns whether work was done; the machine is looked at again before the next unit.
    fn work_if_time_allows(&mut self, idle: bool) -> bool {
        let now = self.clock.now();
        let room = self.machine.poll_timeout().map_or(Duration::MAX, |due| due - now);
        (room > FAR || (idle && room > NEAR)) && self.machine.work(now)
    }

    /// Sleeps until the next timeout, an input (which it takes) or the end.
    fn wait(&mut self) {
        let wake = self.wake_at();
        let now = self.clock.now();
        if wake <= now {
            return;
        }
        // Not on the channel: each input would wake this thread.
        if std::mem::take(&mut self.worked) && self.rest.before_wait(wake - now) {
            self.rest.woken();
            return;
        }
        let received = select_biased! {
            recv(self.stop.closing()) -> _ => return,
            recv(self.inputs) -> input => input,
            default(wake - now) => return self.rest.woken(),
        };
        self.rest.woken();
        match received {
            Ok(input) => {
                self.machine.handle(self.clock.now(), input);
                self.worked = true;
            }
            // A channel without senders is always ready: it would keep this loop awake.
            Err(_) => self.inputs = never(),
        }
    }
}

/// A timer of the kernel's, to be awaited: it does not know the ticks of a millisecond that the runtime's own timers have.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Timer(AsyncFd<OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    #[expect(
        deprecated,
        reason = "an OwnedFd is one descriptor as long as it lives, which is what the unsafe successor asks for"
    )]
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::with_interest(descriptor, Interest::READABLE)?))
    }

    /// Waits for that long, more than nothing. Safe to drop and call again, as `select!` does: the timer is set anew.
    async fn wait(&self, time: Duration) {
        let value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: value };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            // Cannot happen with a valid descriptor and time; the runtime's timer is coarser, but ends.
            return tokio::time::sleep(time).await;
        }
        loop {
            let Ok(mut ready) = self.0.readable().await else { return tokio::time::sleep(time).await };
            // An expiry from before it was set anew reads as nothing.
            match rustix::io::read(self.0.get_ref(), &mut [0u8; 8]) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                _ => return,
            }
        }
    }
}

//! Drives a state machine with real time, on a thread of its own.
//!
//! Why not a task: the timer wheel of the asynchronous runtime has ticks of a millisecond, and the wire format carries delays
//! in nanoseconds. A delay that is rounded to ticks lets packets leave in groups, whose order an observer can then reason
//! about. This loop sleeps in the kernel, with the thread's timer slack reduced from 50 us to 1 ns; it does not spin.
//! `examples/lateness.rs` measures what comes out of that.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, never, select_biased};
use tombola_mixing::Time;

use crate::clock::Clock;
use crate::lateness::{Lateness, LatenessReport};
use crate::metrics;
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
/// Interval of [`Machine::publish`].
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

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
    thread: JoinHandle<M>,
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

impl<M> DriverHandle<M> {
    /// How late timeouts have been served since the start.
    #[must_use]
    pub fn lateness(&self) -> LatenessReport {
        self.lateness.report()
    }

    /// Whether the thread has ended, in order or by a panic.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end (it does not ask for it) and gives the machine back.
    ///
    /// # Errors
    /// The machine panicked.
    pub fn join(self) -> Result<M, DriverPanicked> {
        let name = self.name;
        self.thread.join().map_err(|payload| DriverPanicked { name, message: panic_message(&*payload) })
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
/// - `inputs` must be bounded; a sender that must not block uses `try_send` and counts what it sheds. When every sender is
///   gone the machine goes on with its timeouts alone.
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
    inputs: Receiver<M::Input>,
    deliver: impl FnMut(M::Output) + Send + 'static,
    stop: Shutdown,
) -> io::Result<DriverHandle<M>> {
    let lateness = Arc::new(Lateness::default());
    let driver = Driver {
        clock,
        machine,
        inputs,
        deliver,
        stop: stop.clone(),
        lateness: Arc::clone(&lateness),
        lateness_metric: ::metrics::histogram!(metrics::RELEASE_LATENESS_SECONDS),
        queue_metric: ::metrics::gauge!(metrics::QUEUE_LENGTH, "queue" => name),
        next_publish: clock.now() + PUBLISH_INTERVAL,
    };
    let guard = FailureGuard { shutdown: stop, what: name };
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        let _guard = guard;
        reduce_timer_slack();
        driver.run()
    })?;
    Ok(DriverHandle { thread, lateness, name })
}

/// Asks the kernel to wake this thread when its timer ends and not up to 50 us later. Elsewhere than on Linux the default
/// stays; a refusal costs accuracy, nothing else.
fn reduce_timer_slack() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(std::num::NonZeroU64::MIN)) {
        tracing::warn!(%error, "the timer slack of the driver's thread could not be reduced");
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
}

impl<M: Machine, D: FnMut(M::Output)> Driver<M, D> {
    fn run(mut self) -> M {
        while !self.stop.is_triggered() {
            // Outputs come first: a release that is due does not wait for the handling of what has arrived since.
            let drained = self.deliver_outputs();
            let handled = self.take_inputs();
            self.publish_if_due();
            let idle = drained && !handled;
            if self.work_if_time_allows(idle) || !idle {
                continue;
            }
            self.wait();
        }
        self.machine.publish(self.clock.now());
        self.machine
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
        let wake = self.machine.poll_timeout().map_or(self.next_publish, |due| due.min(self.next_publish));
        let now = self.clock.now();
        if wake <= now {
            return;
        }
        let received = select_biased! {
            recv(self.stop.closing()) -> _ => return,
            recv(self.inputs) -> input => input,
            default(wake - now) => return,
        };
        match received {
            Ok(input) => self.machine.handle(self.clock.now(), input),
            // A channel without senders is always ready: it would keep this loop awake.
            Err(_) => self.inputs = never(),
        }
    }
}

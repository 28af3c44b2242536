//! One token that ends a process in order, whoever asks for it.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::watch;

/// Why a process ends. The first cause stays; later ones are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGINT: someone pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: a service manager or the launcher asked.
    Terminate,
    /// Standard input ended: the parent process has gone (`--exit-with-stdin`).
    StdinClosed,
    /// The program decided so; the text says why.
    Requested(&'static str),
    /// Something that the process cannot do without has failed; the text names it. The exit code should not be 0.
    Failure(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Interrupt => f.write_str("interrupted (SIGINT)"),
            Cause::Terminate => f.write_str("terminated (SIGTERM)"),
            Cause::StdinClosed => f.write_str("standard input was closed"),
            Cause::Requested(why) => f.write_str(why),
            Cause::Failure(what) => write!(f, "failure: {what}"),
        }
    }
}

impl Cause {
    /// Whether the process should report an error to its parent.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Cause::Failure(_))
    }
}

/// No value of this type exists: the channel that carries it can only be closed.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

/// A token that is triggered once and stays triggered. Clones are the same token. Tasks await [`Shutdown::triggered`];
/// threads ask [`Shutdown::is_triggered`], block in [`Shutdown::wait`], or put [`Shutdown::closing`] into a `select!`
/// next to the channels that they serve.
#[derive(Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

struct Inner {
    cause: OnceLock<Cause>,
    tasks: watch::Sender<bool>,
    /// Dropping the sender wakes every thread that waits on `closing`.
    open: Mutex<Option<Sender<Never>>>,
    closing: Receiver<Never>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("cause", &self.cause()).finish()
    }
}

impl Shutdown {
    /// A token that nobody has triggered.
    #[must_use]
    pub fn new() -> Shutdown {
        let (open, closing) = crossbeam_channel::bounded(0);
        let inner = Inner {
            cause: OnceLock::new(),
            tasks: watch::Sender::new(false),
            open: Mutex::new(Some(open)),
            closing,
        };
        Shutdown { inner: Arc::new(inner) }
    }

    /// Ends whatever holds this token. Returns whether this was the first call: only the first cause is kept.
    pub fn trigger(&self, cause: Cause) -> bool {
        if self.inner.cause.set(cause).is_err() {
            return false;
        }
        self.inner.tasks.send_replace(true);
        // Nothing can panic while this lock is held, and a poisoned one would still have to close.
        drop(self.inner.open.lock().unwrap_or_else(PoisonError::into_inner).take());
        true
    }

    /// Whether the end has been asked for. One atomic read.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.inner.cause.get().is_some()
    }

    /// Why, once it has been triggered.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.inner.cause.get().cloned()
    }

    /// Completes when the token is triggered (at once if it has been). Safe to drop and call again, as `select!` does.
    pub async fn triggered(&self) -> Cause {
        let mut tasks = self.inner.tasks.subscribe();
        loop {
            if let Some(cause) = self.cause() {
                return cause;
            }
            // The sender lives in `self`, so this can't fail; if it ever did, the loop would go by the cause alone.
            let _ = tasks.changed().await;
        }
    }

    /// Blocks this thread until the token is triggered.
    pub fn wait(&self) -> Cause {
        loop {
            if let Some(cause) = self.cause() {
                return cause;
            }
            // Carries no value: returns only when the sending half is dropped, which happens after the cause is set.
            let _ = self.inner.closing.recv();
        }
    }

    /// A channel on which nothing ever arrives and which is disconnected when the token is triggered: for `select!`.
    #[must_use]
    pub fn closing(&self) -> &Receiver<Never> {
        &self.inner.closing
    }

    /// Triggers on SIGINT and SIGTERM. A second signal ends the process at once with the exit code 128 + its number, for
    /// the case that the orderly end hangs. Must be called inside a tokio runtime (with I/O enabled), which then owns the
    /// watching task.
    ///
    /// # Errors
    /// The operating system refused to install a handler.
    pub fn on_signals(&self) -> io::Result<()> {
        self.on_signals_after(None)
    }

    /// As [`on_signals`](Self::on_signals), in one more step: the first signal triggers `drain`, which asks the process to
    /// bring to an end what it has begun; the second triggers this token, the third ends the process at once.
    ///
    /// # Errors
    /// The operating system refused to install a handler.
    pub fn on_signals_draining(&self, drain: Shutdown) -> io::Result<()> {
        self.on_signals_after(Some(drain))
    }

    fn on_signals_after(&self, drain: Option<Shutdown>) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let (cause, number) = tokio::select! {
                    _ = interrupt.recv() => (Cause::Interrupt, 2),
                    _ = terminate.recv() => (Cause::Terminate, 15),
                };
                if drain.as_ref().is_some_and(|drain| drain.trigger(cause.clone())) {
                    continue;
                }
                if !shutdown.trigger(cause) {
                    std::process::exit(128 + number);
                }
            }
        });
        Ok(())
    }

    /// Triggers on SIGUSR1. Must be called inside a tokio runtime, as [`on_signals`](Self::on_signals).
    ///
    /// # Errors
    /// The operating system refused to install a handler.
    pub fn on_user_signal(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut user = signal(SignalKind::user_defined1())?;
        let token = self.clone();
        tokio::spawn(async move {
            if user.recv().await.is_some() {
                token.trigger(Cause::Requested("told to wind up (SIGUSR1)"));
            }
        });
        Ok(())
    }

    /// Triggers when standard input ends. A parent keeps the writing end of a pipe open and needs to do nothing else: when
    /// it dies, however it dies, the kernel closes the pipe and its children end. What is written to the pipe is thrown away.
    /// Under a service manager that connects standard input to `/dev/null` this ends the process at once; that is why it
    /// is behind a flag.
    ///
    /// # Errors
    /// The thread that reads could not be started.
    pub fn on_stdin_closed(&self) -> io::Result<()> {
        let shutdown = self.clone();
        thread::Builder::new().name("stdin".into()).spawn(move || {
            read_to_end(io::stdin().lock());
            shutdown.trigger(Cause::StdinClosed);
        })?;
        Ok(())
    }
}

/// Reads and forgets until the end. An error counts as the end: whoever held the other side is not there.
fn read_to_end(mut input: impl Read) {
    let mut scrap = [0; 256];
    loop {
        match input.read(&mut scrap) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Triggers the token when the thread or task that holds this guard unwinds, so that a process never goes on without one of
/// its parts.
pub(crate) struct FailureGuard {
    pub(crate) shutdown: Shutdown,
    pub(crate) what: &'static str,
}

impl Drop for FailureGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shutdown.trigger(Cause::Failure(format!("the thread {:?} panicked", self.what)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn the_first_cause_stays() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!shutdown.is_triggered());
        assert!(clone.trigger(Cause::Requested("done")));
        assert!(!shutdown.trigger(Cause::Interrupt));
        assert_eq!(shutdown.cause(), Some(Cause::Requested("done")));
        assert_eq!(shutdown.wait(), Cause::Requested("done"));
    }

    #[test]
    fn threads_wake_up() {
        let shutdown = Shutdown::new();
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let shutdown = shutdown.clone();
                thread::spawn(move || shutdown.wait())
            })
            .collect();
        let selecting = {
            let shutdown = shutdown.clone();
            thread::spawn(move || {
                crossbeam_channel::select! {
                    recv(shutdown.closing()) -> nothing => assert!(nothing.is_err()),
                }
            })
        };
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        shutdown.trigger(Cause::Terminate);
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Cause::Terminate);
        }
        selecting.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn tasks_wake_up_before_and_after() {
        runtime().block_on(async {
            let shutdown = Shutdown::new();
            let waiting = {
                let shutdown = shutdown.clone();
                tokio::spawn(async move { shutdown.triggered().await })
            };
            tokio::task::yield_now().await;
            shutdown.trigger(Cause::StdinClosed);
            assert_eq!(waiting.await.unwrap(), Cause::StdinClosed);
            assert_eq!(shutdown.triggered().await, Cause::StdinClosed);
        });
    }

    #[test]
    fn a_panic_is_a_failure() {
        let shutdown = Shutdown::new();
        let guard = FailureGuard { shutdown: shutdown.clone(), what: "relay" };
        let thread = thread::spawn(move || {
            let _guard = guard;
            panic!("expected in this test");
        });
        assert!(thread.join().is_err());
        let cause = shutdown.cause().unwrap();
        assert!(cause.is_failure());
        assert_eq!(cause.to_string(), "failure: the thread \"relay\" panicked");
    }

    #[test]
    fn an_orderly_end_of_a_thread_is_no_failure() {
        let shutdown = Shutdown::new();
        drop(FailureGuard { shutdown: shutdown.clone(), what: "relay" });
        assert!(!shutdown.is_triggered());
    }

    #[test]
    fn input_is_read_to_its_end() {
        let text = vec![b'x'; 100_000];
        read_to_end(text.as_slice());
        read_to_end(io::empty());
    }
}

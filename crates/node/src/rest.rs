//! How often a thread is woken.
//!
//! To put a thread to sleep and to wake it costs as much as to handle a packet. At ten thousand packets a second something
//! happens every 50 us, and threads that wait for each of these events would do little else. So a thread that was just woken
//! rests before it waits again: whatever happens meanwhile is done together. What is further apart is not held up.
//!
//! A driver on a thread of its own knows what is due, and rests until then at most. The one thread of the links does not, and
//! rests in full, also where it drives the machine (`link_threads = 0`): a packet that is due meanwhile leaves up to
//! [`REST`] late. Several threads of links do not rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

/// From one waking to the next. Nobody notices it in a packet that has crossed a network.
pub(crate) const REST: Duration = Duration::from_micros(200);

/// When a thread was woken last.
#[derive(Debug)]
pub(crate) struct Rest {
    begun: Instant,
    /// In nanoseconds since then.
    woken: AtomicU64,
}

impl Rest {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), woken: AtomicU64::new(0) }
    }

    /// The thread was woken.
    pub(crate) fn woken(&self) {
        self.woken.store(self.now(), Ordering::Relaxed);
    }

    /// The thread wants to wait, for so long at most. Says whether it has rested instead: then it has to look first whether
    /// something happened.
    pub(crate) fn before_wait(&self, at_most: Duration) -> bool {
        let awake = Duration::from_nanos(self.now().saturating_sub(self.woken.load(Ordering::Relaxed)));
        let Some(rest) = left_of(awake, at_most) else { return false };
        thread::sleep(rest);
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How long a thread rests that has been awake for so long, and has nothing to do for so long.
fn left_of(awake: Duration, at_most: Duration) -> Option<Duration> {
    Some(REST.saturating_sub(awake).min(at_most)).filter(|rest| !rest.is_zero())
}

/// Has the thread of such a runtime rest, too: what links have to read and to write is done for several packets at a time.
pub(crate) fn rest_between(builder: &mut Builder) {
    let rest = Arc::new(Rest::new());
    let woken = Arc::clone(&rest);
    builder.on_thread_unpark(move || woken.woken());
    // What became ready meanwhile is found at once.
    builder.on_thread_park(move || {
        rest.before_wait(REST);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_was_just_woken_rests_but_not_beyond_what_is_due() {
        let micros = Duration::from_micros;
        assert_eq!(left_of(micros(0), REST), Some(REST));
        assert_eq!(left_of(micros(50), Duration::MAX), Some(REST - micros(50)));
        assert_eq!(left_of(micros(50), micros(20)), Some(micros(20)));
        assert_eq!(left_of(micros(50), Duration::ZERO), None);
        assert_eq!(left_of(REST, REST), None);
    }

    #[test]
    fn a_thread_that_has_rested_waits() {
        let rest = Rest::new();
        let before = Instant::now();
        rest.woken();
        // Unless something has kept it from here for as long.
        if rest.before_wait(REST) {
            assert!(before.elapsed() >= REST);
        }
        assert!(!rest.before_wait(REST), "it has rested, and waits for whatever comes");
    }

    #[test]
    fn a_runtime_that_rests_misses_nothing() {
        let mut builder = Builder::new_current_thread();
        rest_between(&mut builder);
        let (there, mut back) = (tokio::sync::mpsc::channel(1), tokio::sync::mpsc::channel(1));
        let (ask, mut asked) = there;
        let answer = back.0.clone();
        let other = thread::spawn(move || {
            while let Some(number) = asked.blocking_recv() {
                answer.blocking_send(number).unwrap();
            }
        });
        builder.enable_all().build().unwrap().block_on(async {
            for number in 0..200_u32 {
                ask.send(number).await.unwrap();
                assert_eq!(back.1.recv().await, Some(number));
            }
        });
        drop(ask);
        other.join().unwrap();
    }
}

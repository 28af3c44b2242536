//! The frames that wait for one peer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tombola_protocol::frame::Frame;

/// Numbers the connections to one peer, in the order in which they were accepted; a later one replaces an earlier one.
pub(crate) type Generation = u64;

/// A bounded queue: many threads push, one connection at a time pops.
///
/// Frames leave in the order in which they came. When the queue is full the newest frame is refused: the ones that wait
/// have been delayed as their headers demand, and dropping one of them would not make the newcomer leave earlier. While
/// no connection is attached the queue keeps what it has.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// The connection that may pop.
    attached: Option<Generation>,
    /// It, waiting for a frame.
    waiting: Option<Waker>,
    closed: bool,
}

/// Why a frame could not be queued. It is given back.
#[derive(Debug)]
pub(crate) enum Refused {
    Full(Frame),
    Closed(Frame),
}

/// Why a connection gets no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The queue is closed and empty.
    Drained,
    /// A later connection took over.
    Replaced,
}

impl Queue {
    pub(crate) fn new(bound: usize) -> Self {
        Self { state: Mutex::default(), bound }
    }

    /// Appends a frame and wakes the connection. Never blocks for longer than another push or pop takes.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Refused> {
        let waiting = {
            let mut state = self.lock();
            if state.closed {
                return Err(Refused::Closed(frame));
            }
            if state.frames.len() >= self.bound {
                return Err(Refused::Full(frame));
            }
            state.frames.push_back(frame);
            state.waiting.take()
        };
        // Outside of the lock: waking may run the scheduler.
        if let Some(waker) = waiting {
            waker.wake();
        }
        Ok(())
    }

    /// Makes the connection of this generation the one that pops; a connection that popped until now is told so.
    pub(crate) fn attach(&self, generation: Generation) {
        let mut state = self.lock();
        state.attached = Some(generation);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Moves up to `most` frames into `batch`, or waits for one.
    pub(crate) fn poll_pop(
        &self,
        cx: &mut Context<'_>,
        generation: Generation,
        batch: &mut Vec<Frame>,
        most: usize,
    ) -> Poll<Result<(), Ended>> {
        let mut state = self.lock();
        if state.attached != Some(generation) {
            return Poll::Ready(Err(Ended::Replaced));
        }
        if state.frames.is_empty() {
            if state.closed {
                return Poll::Ready(Err(Ended::Drained));
            }
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = state.frames.len().min(most);
        batch.extend(state.frames.drain(..n));
        Poll::Ready(Ok(()))
    }

    /// Takes no more frames; what is queued can still be popped.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Gives back what is queued.
    pub(crate) fn take(&self) -> VecDeque<Frame> {
        std::mem::take(&mut self.lock().frames)
    }

    /// Closes, and gives back what is queued.
    pub(crate) fn clear(&self) -> VecDeque<Frame> {
        self.close();
        self.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().frames.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between the steps of a change, so a poisoned lock guards a sound state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn numbered(number: u8) -> Frame {
        let mut frame = Frame::zeroed();
        frame.as_bytes_mut()[0] = number;
        frame
    }

    fn pop(queue: &Queue, generation: Generation, most: usize) -> Poll<Result<Vec<u8>, Ended>> {
        let mut batch = Vec::new();
        let polled = queue.poll_pop(&mut Context::from_waker(Waker::noop()), generation, &mut batch, most);
        polled.map_ok(|()| batch.iter().map(|frame| frame.as_bytes()[0]).collect())
    }

    #[test]
    fn a_full_queue_refuses_the_newest_and_gives_it_back() {
        let queue = Queue::new(2);
        queue.attach(0);
        queue.push(numbered(1)).unwrap();
        queue.push(numbered(2)).unwrap();
        let Err(Refused::Full(refused)) = queue.push(numbered(3)) else { panic!("not refused") };
        assert_eq!(refused.as_bytes()[0], 3);
        assert_eq!(pop(&queue, 0, 1), Poll::Ready(Ok(vec![1])));
        queue.push(refused).unwrap();
        assert_eq!(pop(&queue, 0, 9), Poll::Ready(Ok(vec![2, 3])));
        assert_eq!(pop(&queue, 0, 9), Poll::Pending);
    }

    #[test]
    fn frames_wait_for_a_connection() {
        let queue = Queue::new(9);
        queue.push(numbered(1)).unwrap();
        assert_eq!(pop(&queue, 0, 9), Poll::Ready(Err(Ended::Replaced)));
        queue.attach(0);
        assert_eq!(pop(&queue, 0, 9), Poll::Ready(Ok(vec![1])));
    }

    #[test]
    fn only_the_last_connection_pops() {
        let queue = Queue::new(9);
        queue.attach(4);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut batch = Vec::new();
        assert!(queue.poll_pop(&mut Context::from_waker(&waker), 4, &mut batch, 9).is_pending());
        queue.attach(5);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        queue.push(numbered(1)).unwrap();
        assert_eq!(pop(&queue, 4, 9), Poll::Ready(Err(Ended::Replaced)));
        assert_eq!(pop(&queue, 5, 9), Poll::Ready(Ok(vec![1])));
    }

    #[test]
    fn a_waiting_connection_is_woken_once() {
        let queue = Queue::new(9);
        queue.attach(0);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut batch = Vec::new();
        assert!(queue.poll_pop(&mut Context::from_waker(&waker), 0, &mut batch, 9).is_pending());
        queue.push(numbered(1)).unwrap();
        queue.push(numbered(2)).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(queue.poll_pop(&mut Context::from_waker(&waker), 0, &mut batch, 9).is_ready());
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn a_closed_queue_is_drained_first() {
        let queue = Queue::new(9);
        queue.attach(0);
        queue.push(numbered(1)).unwrap();
        queue.close();
        assert!(matches!(queue.push(numbered(2)), Err(Refused::Closed(_))));
        assert_eq!(pop(&queue, 0, 9), Poll::Ready(Ok(vec![1])));
        assert_eq!(pop(&queue, 0, 9), Poll::Ready(Err(Ended::Drained)));
    }

    #[test]
    fn many_threads_lose_nothing_and_keep_their_order() {
        const EACH: u8 = 200;
        let queue = Arc::new(Queue::new(4 * usize::from(EACH)));
        queue.attach(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let queue = Arc::clone(&queue);
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut frame = numbered(number);
                        frame.as_bytes_mut()[1] = thread;
                        queue.push(frame).unwrap();
                    }
                });
            }
        });
        let mut batch = Vec::new();
        assert!(
            queue.poll_pop(&mut Context::from_waker(Waker::noop()), 0, &mut batch, usize::MAX).is_ready()
        );
        for thread in 0..4 {
            let of_thread = batch.iter().filter(|frame| frame.as_bytes()[1] == thread);
            assert!(of_thread.map(|frame| frame.as_bytes()[0]).eq(0..EACH));
        }
    }
}

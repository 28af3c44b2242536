//! Frame buffers that are used again.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tombola_protocol::frame::Frame;

/// A bounded store of frame buffers, shared by all who fill or empty them. What does not fit is freed, what is missing is
/// allocated: it saves allocations, it limits nothing.
pub struct FramePool {
    frames: Mutex<Vec<Frame>>,
    bound: usize,
}

impl FramePool {
    /// An empty pool that keeps up to `bound` buffers.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { frames: Mutex::new(Vec::new()), bound }
    }

    /// A buffer. Its content is left over from another frame: whoever sends it must have written every byte.
    #[must_use]
    pub fn take(&self) -> Frame {
        self.lock().pop().unwrap_or_else(Frame::zeroed)
    }

    /// Gives a buffer back.
    pub fn recycle(&self, frame: Frame) {
        let mut frames = self.lock();
        if frames.len() < self.bound {
            frames.push(frame);
        }
    }

    /// Gives many back, under one lock. Leaves `frames` empty.
    pub fn recycle_all(&self, frames: &mut Vec<Frame>) {
        let mut kept = self.lock();
        let room = self.bound.saturating_sub(kept.len());
        kept.extend(frames.drain(..).take(room));
    }

    /// Buffers that wait in the pool.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no buffer waits in the pool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        // Nothing panics between the steps of a change, so a poisoned lock guards a sound list.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool").field("len", &self.len()).field("bound", &self.bound).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_its_bound() {
        let pool = FramePool::new(3);
        pool.recycle(Frame::zeroed());
        let mut many: Vec<Frame> = (0..10).map(|_| Frame::zeroed()).collect();
        pool.recycle_all(&mut many);
        assert!(many.is_empty());
        assert_eq!(pool.len(), 3);
        pool.recycle(Frame::zeroed());
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn hands_out_the_very_buffer_that_came_back() {
        let pool = FramePool::new(1);
        let frame = pool.take();
        let address = frame.as_bytes().as_ptr();
        pool.recycle(frame);
        assert_eq!(pool.take().as_bytes().as_ptr(), address);
        assert!(pool.is_empty());
    }
}

//! Frames on a stream of bytes: one after the other, nothing before, between or behind them.
//!
//! No length goes along because there is only one length. So a frame can be neither unknown nor oversized at this layer; it
//! can only be cut short.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tombola_protocol::frame::{FRAME_LEN, Frame};

use crate::pool::FramePool;

/// The most frames that are handed over, or written, in one go.
pub const BATCH: usize = 32;

/// How a stream of frames ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Between two frames.
    Whole,
    /// After this many bytes of a frame.
    Truncated(usize),
    /// The connection is gone; the sender's stream need not have ended.
    Broken,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    /// The frame that is being received; its first `filled` bytes are there.
    partial: Frame,
    filled: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, pool: &FramePool) -> Self {
        Self { stream, partial: pool.take(), filled: 0 }
    }

    /// Waits for at least one frame and then takes what is there, up to [`BATCH`] frames in `batch`. At the end of the stream
    /// `batch` holds the last frames, if any, and must not be read into again.
    pub(crate) fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        pool: &FramePool,
        batch: &mut Vec<Frame>,
    ) -> Poll<Result<(), StreamEnd>> {
        while batch.len() < BATCH {
            let rest = &mut self.partial.as_bytes_mut()[self.filled..];
            let read = match Pin::new(&mut self.stream).poll_read(cx, rest) {
                Poll::Ready(read) => read,
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
            };
            match read {
                Ok(0) if self.filled == 0 => return Poll::Ready(Err(StreamEnd::Whole)),
                Ok(0) => return Poll::Ready(Err(StreamEnd::Truncated(self.filled))),
                Ok(n) => self.filled += n,
                Err(_) => return Poll::Ready(Err(StreamEnd::Broken)),
            }
            if self.filled == FRAME_LEN {
                batch.push(std::mem::replace(&mut self.partial, pool.take()));
                self.filled = 0;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes whole batches. Frames go back to the pool.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    stream: W,
    /// A batch in one piece: one call of the transport, one encryption, and mostly fewer packets. A copy costs some 50 ns
    /// per frame. Grows to what the largest batch needed, at most [`BATCH`] frames (78 kB).
    bytes: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, bytes: Vec::new() }
    }

    /// Writes the frames and flushes. Empties `batch` at once.
    pub(crate) async fn write(&mut self, pool: &FramePool, batch: &mut Vec<Frame>) -> std::io::Result<()> {
        self.bytes.clear();
        for frame in batch.iter() {
            self.bytes.extend_from_slice(frame.as_bytes());
        }
        pool.recycle_all(batch);
        self.stream.write_all(&self.bytes).await?;
        self.stream.flush().await
    }

    /// Ends the stream in order: the other end reads [`StreamEnd::Whole`].
    pub(crate) async fn close(&mut self) -> std::io::Result<()> {
        self.stream.close().await
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use proptest::prelude::*;

    use super::*;

    /// Hands out `bytes` in pieces of the given lengths, not ready between them, then ends or breaks.
    struct Pieces {
        bytes: Vec<u8>,
        lengths: Vec<usize>,
        breaks: bool,
        ready: bool,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            self.ready = !self.ready;
            if !self.ready {
                return Poll::Pending;
            }
            let length = self.lengths.pop().unwrap_or(usize::MAX);
            let n = length.min(buffer.len()).min(self.bytes.len());
            if n == 0 && self.breaks {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            let rest = self.bytes.split_off(n);
            buffer[..n].copy_from_slice(&self.bytes);
            self.bytes = rest;
            Poll::Ready(Ok(n))
        }
    }

    fn read_all(pieces: Pieces) -> (Vec<u8>, StreamEnd) {
        let pool = FramePool::new(4);
        let mut reader = FrameReader::new(pieces, &pool);
        let (mut bytes, mut batch) = (Vec::new(), Vec::new());
        loop {
            let polled = reader.poll_batch(&mut Context::from_waker(noop_waker_ref()), &pool, &mut batch);
            assert!(batch.len() <= BATCH);
            assert!(polled != Poll::Ready(Ok(())) || !batch.is_empty());
            batch.drain(..).for_each(|frame| bytes.extend_from_slice(frame.as_bytes()));
            if let Poll::Ready(Err(end)) = polled {
                return (bytes, end);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::with_cases(64) })]

        #[test]
        fn frames_do_not_depend_on_how_the_bytes_arrive(
            frames in 0usize..70,
            partial in 0usize..FRAME_LEN,
            lengths in proptest::collection::vec(1usize..6000, 0..200),
            breaks: bool,
        ) {
            let bytes: Vec<u8> = (0..frames * FRAME_LEN + partial).map(|n| (n % 251) as u8).collect();
            let (read, end) = read_all(Pieces { bytes: bytes.clone(), lengths, breaks, ready: false });
            prop_assert_eq!(read, &bytes[..frames * FRAME_LEN]);
            let expected = match (breaks, partial) {
                (true, _) => StreamEnd::Broken,
                (false, 0) => StreamEnd::Whole,
                (false, n) => StreamEnd::Truncated(n),
            };
            prop_assert_eq!(end, expected);
        }
    }

    #[test]
    fn what_is_written_is_the_frames_and_nothing_else() {
        let pool = FramePool::new(4);
        let mut written = Vec::new();
        let mut writer = FrameWriter::new(&mut written);
        let mut batch: Vec<Frame> = (0..3).map(|_| Frame::zeroed()).collect();
        batch[1].as_bytes_mut().fill(7);
        futures::executor::block_on(writer.write(&pool, &mut batch)).unwrap();
        assert!(batch.is_empty());
        assert_eq!(written.len(), 3 * FRAME_LEN);
        assert_eq!(written[FRAME_LEN..2 * FRAME_LEN], [7; FRAME_LEN]);
        assert_eq!(pool.len(), 3);
    }
}

//! The life of one connection whose two streams are open.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tombola_protocol::frame::Frame;

use crate::queue::{Ended, Generation};
use crate::session::{Opened, RETRY, Superseded};
use crate::shared::{PeerLink, Shared};
use crate::stats::{DropReason, LinkEnd, Refusal};
use crate::stream::{BATCH, FrameReader, FrameWriter, StreamEnd};

/// Time for a peer to be told that another connection replaces this one.
const PARTING: Duration = Duration::from_secs(1);

/// One connection of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<PeerLink>,
    pub(crate) generation: Generation,
    /// Why it ended, once somebody knows.
    verdict: Arc<OnceLock<LinkEnd>>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, link: Arc<PeerLink>, generation: Generation) -> Self {
        Self { shared, link, generation, verdict: Arc::default() }
    }

    /// Says why the connection ends. The first to know is right.
    pub(crate) fn conclude(&self, end: LinkEnd) {
        // Err: there is a verdict already.
        let _ = self.verdict.set(end);
    }
}

/// Moves frames in both directions until the link ends. Dropping the future ends it, too.
///
/// One future for both directions, polled by the task of the connection itself: a frame that arrives, or that is queued,
/// wakes one task and not a chain of them.
pub(crate) async fn run(
    connection: Connection,
    inbound: impl AsyncRead + Unpin,
    outbound: impl AsyncWrite + Unpin,
) {
    let Some(Up(connection)) = &Up::announce(connection).await else { return };
    let receiving = pin!(receive(connection, inbound));
    let sending = pin!(send(connection, outbound));
    let end = match select(receiving, sending).await {
        Either::Left((LinkEnd::Replaced, sending)) if connection.shared.parting.is_some() => {
            // The other direction learns it in a moment, and says goodbye.
            let _ = timeout(2 * PARTING, sending).await;
            LinkEnd::Replaced
        }
        Either::Left((end, _)) | Either::Right((Err(end), _)) => end,
        // All is sent and there will be no more: we are leaving. The peer reads the end of our stream and hangs up.
        Either::Right((Ok(()), receiving)) => receiving.await,
    };
    connection.conclude(end);
}

/// A connection that the sink knows of. Dropping it tells the sink and counts the end.
struct Up(Connection);

impl Up {
    async fn announce(connection: Connection) -> Option<Self> {
        loop {
            match connection.link.open(&connection.shared, connection.generation) {
                Opened::Yes => return Some(Self(connection)),
                Opened::NotNow => sleep(RETRY).await,
                Opened::Superseded => {
                    connection.shared.counters.refused.count(Refusal::NotOpened);
                    return None;
                }
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let Connection { shared, link, generation, verdict } = &self.0;
        let end = if link.is_retired() {
            LinkEnd::Removed
        } else if shared.is_shut_down() {
            LinkEnd::ShutDown
        } else if link.is_superseded(*generation) {
            LinkEnd::Replaced
        } else {
            verdict.get().copied().unwrap_or(LinkEnd::Broken)
        };
        shared.counters.ended.count(end);
        link.session.close(shared, *generation);
    }
}

/// From the stream to the sink.
async fn receive(connection: &Connection, stream: impl AsyncRead + Unpin) -> LinkEnd {
    let Connection { shared, .. } = connection;
    let mut reader = FrameReader::new(stream, &shared.pool);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let read = poll_fn(|cx| reader.poll_batch(cx, &shared.pool, &mut batch));
        let read = match shared.timeouts.idle {
            None => read.await,
            Some(idle) => match timeout(idle, read).await {
                Ok(read) => read,
                Err(_) => return LinkEnd::Idle,
            },
        };
        let full = batch.len() == BATCH;
        shared.counters.frames_in.fetch_add(batch.len() as u64, Relaxed);
        if deliver(connection, &mut batch).await == Err(Superseded) {
            return LinkEnd::Replaced;
        }
        match read {
            Ok(()) => {}
            Err(StreamEnd::Whole) => return LinkEnd::PeerLeft,
            Err(StreamEnd::Broken) => return LinkEnd::Broken,
            Err(StreamEnd::Truncated(length)) => {
                shared.counters.count_truncated(length);
                return LinkEnd::Truncated;
            }
        }
        if full {
            // There is probably more. Let the other direction, and other connections, have their turn first.
            yield_now().await;
        }
    }
}

/// Offers a batch until the sink has taken all of it. Meanwhile nothing is read: this is the backpressure.
async fn deliver(connection: &Connection, batch: &mut Vec<Frame>) -> Result<(), Superseded> {
    while !batch.is_empty() {
        connection.link.session.deliver(&connection.shared, connection.generation, batch)?;
        if !batch.is_empty() {
            sleep(RETRY).await;
        }
    }
    Ok(())
}

/// From the queue to the stream. `Ok` when the queue was closed, is drained, and the stream has been ended.
async fn send(connection: &Connection, stream: impl AsyncWrite + Unpin) -> Result<(), LinkEnd> {
    let Connection { shared, link, generation, .. } = connection;
    let mut writer = FrameWriter::new(stream);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        match poll_fn(|cx| link.queue.poll_pop(cx, *generation, &mut batch, BATCH)).await {
            Ok(()) => {}
            Err(Ended::Replaced) => {
                part(shared, &mut writer).await;
                return Err(LinkEnd::Replaced);
            }
            Err(Ended::Drained) => return writer.close().await.map_err(|_| LinkEnd::Broken),
        }
        let in_flight = InFlight { shared, frames: batch.len() };
        match timeout(shared.timeouts.stall, writer.write(&shared.pool, &mut batch)).await {
            Ok(Ok(())) => in_flight.written(),
            Ok(Err(_)) => return Err(LinkEnd::Broken),
            Err(_) => return Err(LinkEnd::Stalled),
        }
    }
}

/// Tells the peer why its connection ends, if it is to be told. A peer that is still there hangs up when it has read that;
/// one that is gone does not matter.
async fn part(shared: &Shared, writer: &mut FrameWriter<impl AsyncWrite + Unpin>) {
    let Some(parting) = &shared.parting else { return };
    let written = timeout(PARTING, writer.write(&shared.pool, &mut vec![parting.clone()])).await;
    if matches!(written, Ok(Ok(()))) {
        shared.counters.frames_out.fetch_add(1, Relaxed);
        // To close the connection now would cut off what is on its way.
        sleep(PARTING).await;
    }
}

/// Frames that left the queue. Counted as written, or else, when this is dropped for whatever reason, as lost.
struct InFlight<'a> {
    shared: &'a Shared,
    frames: usize,
}

impl InFlight<'_> {
    fn written(mut self) {
        self.shared.counters.frames_out.fetch_add(self.frames as u64, Relaxed);
        self.frames = 0;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shared.counters.dropped.add(DropReason::InFlight, self.frames);
    }
}

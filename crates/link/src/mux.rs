//! Several streams on one TCP connection: Yamux with bounds that fit links.
//!
//! `libp2p-yamux` is not used because it leaves the receive windows to grow up to 1 GiB per connection, as a function of
//! bandwidth and of a round-trip time that the other end can inflate. Here they begin with 256 KiB per stream, there are few
//! streams, and between nodes all of a connection may grow by 768 KiB together.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::Mode;

/// Streams on one connection at one time, in both directions together: two, and some that are being refused.
const MAX_STREAMS: usize = 8;
/// Inbound streams that wait to be negotiated; more are reset.
const MAX_WAITING: usize = 4;

/// The upgrade of an encrypted connection to one with streams.
#[derive(Debug, Clone)]
pub(crate) struct MuxConfig(yamux::Config);

impl MuxConfig {
    /// Windows begin with the protocol's 256 KiB. Those of a connection may grow together by what `window` is above that, so that
    /// one stream reaches it where the round trip asks for it.
    pub(crate) fn new(window: u32) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        // What is beyond the defaults of all streams is what windows can grow by.
        let growth = window.saturating_sub(yamux::DEFAULT_CREDIT) as usize;
        let defaults = MAX_STREAMS * yamux::DEFAULT_CREDIT as usize;
        config.set_max_connection_receive_window(Some(defaults + growth));
        Self(config)
    }

    fn muxer<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C, mode: Mode) -> Muxer<C> {
        Muxer { connection: yamux::Connection::new(socket, self.0, mode), waiting: VecDeque::new() }
    }
}

impl UpgradeInfo for MuxConfig {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<C> for MuxConfig {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.muxer(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<C> for MuxConfig {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.muxer(socket, Mode::Client)))
    }
}

/// A connection with streams. Everything moves only while [`yamux::Connection::poll_next_inbound`] is being called, which
/// may also produce a stream; `poll` must be called always, `poll_inbound` only when a stream is wanted.
#[derive(Debug)]
pub(crate) struct Muxer<C> {
    connection: yamux::Connection<C>,
    waiting: VecDeque<yamux::Stream>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = yamux::ConnectionError;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let this = self.get_mut();
        loop {
            match this.connection.poll_next_inbound(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Err(yamux::ConnectionError::Closed)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                // libp2p polls for inbound streams after this function, in the same turn: no waker is needed.
                Poll::Ready(Some(Ok(stream))) if this.waiting.len() < MAX_WAITING => {
                    this.waiting.push_back(stream);
                }
                // Dropping a stream resets it.
                Poll::Ready(Some(Ok(_))) => {}
            }
        }
    }

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        match self.get_mut().waiting.pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => Poll::Pending,
        }
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().connection.poll_new_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().connection.poll_close(cx)
    }
}

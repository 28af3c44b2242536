//! What is below a link: QUIC, or TCP with Noise and Yamux. There is no way without encryption.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, quic, tcp};
use rustix::net::sockopt;

use crate::config::{LinkConfig, Policy};
use crate::mux::MuxConfig;

/// Keep-alives per silence timeout: all but one may get lost.
const KEEP_ALIVES: u32 = 3;
/// Streams that a peer may have open: its one, and one that is being refused.
const QUIC_STREAMS: u32 = 2;
/// Connections that the kernel keeps until they are accepted.
const TCP_BACKLOG: u32 = 128;

/// Seconds between two probes of the kernel's, at most: Linux refuses more.
const PROBES_APART_MAX: u64 = 32_767;

/// Bytes that a peer may send before it hears that they were read. Bandwidth times delay: 1 MiB is 2 000 frames a second
/// over 200 ms; a client, with some 25 frames a second, needs less by far.
const NODE_WINDOW: u32 = 1 << 20;
const CLIENT_WINDOW: u32 = 1 << 17;

/// Both transports behind one interface.
pub(crate) fn build(
    keypair: &Keypair,
    config: &LinkConfig,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let quic = quic::tokio::Transport::new(quic_config(keypair, config))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let silence = config.silence_timeout;
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true).listen_backlog(TCP_BACKLOG))
        .map(move |stream, _| {
            if let Err(error) = end_with_silence(&stream.0, silence) {
                // Nothing but a connection that has ended is refused that.
                tracing::debug!(%error, "a TCP connection got no keep-alives");
            }
            stream
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(MuxConfig::new(window(config)))
        .timeout(config.handshake_timeout)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let either = quic.or_transport(tcp).map(|output, _| match output {
        Either::Left(output) | Either::Right(output) => output,
    });
    Ok(either.boxed())
}

fn window(config: &LinkConfig) -> u32 {
    match config.policy {
        Policy::Neighbours => NODE_WINDOW,
        Policy::Clients(_) | Policy::DialOnly => CLIENT_WINDOW,
    }
}

/// Has the kernel end a TCP connection of whose other end nothing was heard for so long, and a probe more, if nothing was sent; else
/// from what was first sent in vain. (A slow reader is not meant: the muxer reads the socket whether or not anybody reads its streams.)
fn end_with_silence(stream: impl AsFd, silence: Duration) -> io::Result<()> {
    let between = Duration::from_secs((silence / KEEP_ALIVES).as_secs().clamp(1, PROBES_APART_MAX));
    sockopt::set_tcp_keepidle(&stream, between)?;
    sockopt::set_tcp_keepintvl(&stream, between)?;
    sockopt::set_tcp_keepcnt(&stream, KEEP_ALIVES)?;
    // There are no probes while something that was sent is not acknowledged. Probes end by it, too, and a window that stays shut.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(
        &stream,
        i32::try_from(silence.as_millis()).unwrap_or(i32::MAX).unsigned_abs(),
    )?;
    sockopt::set_socket_keepalive(&stream, true)?;
    Ok(())
}

fn quic_config(keypair: &Keypair, link: &LinkConfig) -> quic::Config {
    let window = window(link);
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = link.handshake_timeout;
    config.max_idle_timeout = u32::try_from(link.silence_timeout.as_millis()).unwrap_or(u32::MAX);
    config.keep_alive_interval = link.silence_timeout / KEEP_ALIVES;
    config.max_concurrent_stream_limit = QUIC_STREAMS;
    config.max_stream_data = window;
    config.max_connection_data = window * QUIC_STREAMS;
    config
}

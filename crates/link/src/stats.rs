//! Counters: what went through, what did not, and why. They name no peer.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tombola_protocol::frame::FRAME_LEN;

/// A set of reasons that is counted: one counter each.
pub(crate) trait Reason: Copy + Ord + 'static {
    const ALL: &'static [Self];
    fn index(self) -> usize;
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// A short name in lower case, for metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn index(self) -> usize { self as usize }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a connection was refused: it never became a link.
    Refusal {
        /// Too many inbound handshakes were in progress.
        HandshakeLimit = "handshake_limit",
        /// The encryption handshake failed, was cut or took too long.
        HandshakeFailed = "handshake_failed",
        /// The other end's key is not an ed25519 key.
        ForeignKey = "foreign_key",
        /// A node's port: the other end is not one of its peers.
        Stranger = "stranger",
        /// A peer that we are to dial has dialled us.
        WrongDirection = "wrong_direction",
        /// A port for clients: all places are taken.
        ClientLimit = "client_limit",
        /// The peer has too many connections already, in place or being closed.
        KeyLimit = "key_limit",
        /// A port for clients: too many connections from one origin.
        OriginLimit = "origin_limit",
        /// The other end does not speak our protocol.
        Protocol = "protocol",
        /// The two streams were not open in time.
        OpenTimeout = "open_timeout",
        /// The connection broke, or was replaced or no longer wanted, before its two streams were open.
        NotOpened = "not_opened",
        /// We are shutting down.
        ShuttingDown = "shutting_down",
    }
}

reasons! {
    /// Why a link that was up went down.
    LinkEnd {
        /// The peer ended its stream in order.
        PeerLeft = "peer_left",
        /// The peer's stream ended inside a frame.
        Truncated = "truncated",
        /// The connection broke, or the peer was silent for longer than the transport tolerates.
        Broken = "broken",
        /// The peer took nothing although frames waited for it.
        Stalled = "stalled",
        /// A client sent no frame for too long.
        Idle = "idle",
        /// The peer connected anew.
        Replaced = "replaced",
        /// The peer kept opening streams beyond the one that it has.
        ExtraStreams = "extra_streams",
        /// The peer was taken off the list.
        Removed = "removed",
        /// We shut down.
        ShutDown = "shut_down",
    }
}

reasons! {
    /// Why a frame that was to be sent was not, or got lost on this side.
    DropReason {
        /// The peer's queue was full. The frame was given back.
        QueueFull = "queue_full",
        /// There is no such peer. The frame was given back.
        UnknownPeer = "unknown_peer",
        /// We are shut down. The frame was given back, or was still queued in the end.
        ShutDown = "shut_down",
        /// It was queued when its peer was taken off the list or, a client, disconnected.
        PeerGone = "peer_gone",
        /// It waited for a connection that is over, and the next one begins anew.
        Stale = "stale",
        /// It was being written when the connection broke. Frames that were written before may be lost too: the transport
        /// does not say.
        InFlight = "in_flight",
    }
}

/// One counter per reason.
#[derive(Debug)]
pub(crate) struct Tally<R> {
    counts: Box<[AtomicU64]>,
    reasons: PhantomData<R>,
}

impl<R: Reason> Default for Tally<R> {
    fn default() -> Self {
        Self { counts: R::ALL.iter().map(|_| AtomicU64::new(0)).collect(), reasons: PhantomData }
    }
}

impl<R: Reason> Tally<R> {
    pub(crate) fn count(&self, reason: R) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&self, reason: R, n: usize) {
        if let Some(count) = self.counts.get(reason.index()) {
            count.fetch_add(n as u64, Relaxed);
        }
    }

    fn snapshot(&self) -> BTreeMap<R, u64> {
        let counts = R::ALL.iter().zip(&self.counts).map(|(reason, count)| (*reason, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// The live counters. Every one only grows, except `links`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) dropped: Tally<DropReason>,
    pub(crate) refused: Tally<Refusal>,
    pub(crate) ended: Tally<LinkEnd>,
    pub(crate) refused_streams: AtomicU64,
    pub(crate) dials: AtomicU64,
    pub(crate) failed_dials: AtomicU64,
    /// Lengths of truncated frames. At most `FRAME_LEN` - 1 entries, whatever peers do.
    truncated: Mutex<BTreeMap<usize, u64>>,
}

impl Counters {
    /// Counts a frame that ended after `length` bytes.
    pub(crate) fn count_truncated(&self, length: usize) {
        *self.truncated.lock().unwrap_or_else(PoisonError::into_inner).entry(length).or_default() += 1;
    }

    /// Reads all counters, one after the other: what moves meanwhile may show in one and not yet in another.
    pub(crate) fn snapshot(&self, links: usize, queued: usize) -> LinkStats {
        let truncated = self.truncated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let frames_in = self.frames_in.load(Relaxed);
        let mut received_lengths = truncated.clone();
        if frames_in > 0 {
            received_lengths.insert(FRAME_LEN, frames_in);
        }
        LinkStats {
            links,
            queued,
            frames_in,
            frames_out: self.frames_out.load(Relaxed),
            bad_frames: truncated.values().sum(),
            received_lengths,
            dropped: self.dropped.snapshot(),
            refused: self.refused.snapshot(),
            refused_streams: self.refused_streams.load(Relaxed),
            ended: self.ended.snapshot(),
            dials: self.dials.load(Relaxed),
            failed_dials: self.failed_dials.load(Relaxed),
        }
    }
}

/// The counters at one moment, since the start. Reasons that never occurred are missing from the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Links that are up now.
    pub links: usize,
    /// Frames that wait in outbound queues now.
    pub queued: usize,
    /// Whole frames received.
    pub frames_in: u64,
    /// Frames handed to the transport.
    pub frames_out: u64,
    /// Frames that ended before their length was reached. There is no other way for a frame to be bad at this layer.
    pub bad_frames: u64,
    /// How many frames of which length were received: the constant length, and the lengths of truncated ones.
    pub received_lengths: BTreeMap<usize, u64>,
    /// Frames that were not sent.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Connections that were refused.
    pub refused: BTreeMap<Refusal, u64>,
    /// Streams that were refused because the peer had one already.
    pub refused_streams: u64,
    /// Links that went down.
    pub ended: BTreeMap<LinkEnd, u64>,
    /// Attempts to connect, counted per address.
    pub dials: u64,
    /// Attempts that failed.
    pub failed_dials: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        fn check<R: Reason + std::fmt::Debug>() {
            let tally = Tally::<R>::default();
            for (n, &reason) in R::ALL.iter().enumerate() {
                tally.add(reason, n + 1);
            }
            let expected: BTreeMap<R, u64> = R::ALL.iter().copied().zip(1..).collect();
            assert_eq!(tally.snapshot(), expected);
        }
        check::<Refusal>();
        check::<LinkEnd>();
        check::<DropReason>();
    }

    #[test]
    fn lengths_are_those_of_whole_and_of_truncated_frames() {
        let counters = Counters::default();
        assert!(counters.snapshot(0, 0).received_lengths.is_empty());
        counters.frames_in.fetch_add(5, Relaxed);
        counters.count_truncated(7);
        counters.count_truncated(7);
        let stats = counters.snapshot(0, 0);
        assert_eq!(stats.received_lengths, BTreeMap::from([(7, 2), (FRAME_LEN, 5)]));
        assert_eq!(stats.bad_frames, 2);
    }
}

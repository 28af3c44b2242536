//! What one run of the world yields.

use core::time::Duration;

use tombola_mixing::LoopStats;

use crate::fidelity::WireCounts;
use crate::metrics::tracker::{Likelihood, TargetResult};
use crate::metrics::{Histogram, Moments};

use super::packets::Kind;

/// Counts and sums of the packets that were sent within one batch of the time that is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Packets sent, by [`Kind`].
    pub sent: [u64; Kind::ALL.len()],
    /// Packets among those that arrived, by [`Kind`].
    pub arrived: [u64; Kind::ALL.len()],
    /// Lost on a link.
    pub lost_on_links: u64,
    /// Refused by a mix without room.
    pub refused: u64,
    /// Seconds from writing to arrival, of messages.
    pub latency: Moments,
    /// Seconds from sending to arrival, of messages.
    pub transit: Moments,
    /// Seconds from writing to sending, of messages.
    pub waiting: Moments,
    /// The same as [`Batch::latency`], by how often it occurred.
    pub latencies: Histogram,
    /// What came out of the mixes in this time says about the challenge senders.
    pub likelihood: Likelihood,
}

impl Batch {
    /// Whether it is known of all of its packets what became of them.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.all_sent() == self.all_arrived() + self.lost_on_links + self.refused
    }

    /// Packets sent, of all kinds.
    #[must_use]
    pub fn all_sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Packets that arrived, of all kinds.
    #[must_use]
    pub fn all_arrived(&self) -> u64 {
        self.arrived.iter().sum()
    }
}

/// Everything that one run found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorldResult {
    /// By batch; one, with replications. All of them, or after an interruption the first ones.
    pub batches: Vec<Batch>,
    /// Whether it was stopped before its end: then only batches that were complete by then are in it.
    pub interrupted: bool,
    /// Targets in the order in which they finished.
    pub targets: Vec<TargetResult>,
    /// Targets that found no free lane.
    pub passed_over: u64,
    /// Targets whose probability had not come out when the run was given up.
    pub unfinished: u64,
    /// Packets of the measured time that were still under way then.
    pub under_way: u64,
    /// What the deployed monitors say about loops that were sent within the measured time: of the monitored clients.
    pub client_loops: LoopStats,
    /// Of the mixes' own, both halves.
    pub mix_loops: LoopStats,
    /// What became of real Sphinx packets, if packets are such.
    pub wire: Option<WireCounts>,
    /// Queue items that were handled.
    pub events: u64,
    /// Packets that arrived, at any time.
    pub delivered: u64,
    /// How much virtual time passed.
    pub simulated: Duration,
}

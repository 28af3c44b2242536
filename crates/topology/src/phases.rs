//! Which epochs are in use at an instant: for whoever sends, for whoever opens packets, for links.
//!
//! The key of epoch e lives through e and e + 1. Let M be [`Parameters::max_delay`](crate::Parameters::max_delay) and L the number of layers.
//!
//! | who | uses or accepts | from | until |
//! |---|---|---|---|
//! | sender | e for nearly everything | start of e + M | start of e + 1 + M |
//! | sender | e for the old share | start of e + 1 + M | end of e + 1 - (L + 1) M |
//! | mix node of layer k | key of e | start of e - (L + 1 - k) M | end of e + 1 - (L + 1 - k) M |
//! | gateway | key of e | start of e | end of e + 1 |
//! | all | links with the nodes of e | start of e - (L + 1) M | end of e + 1 |
//!
//! Senders begin with an epoch a little late, because clocks differ. A packet that is sent at the last moment spends at most
//! M in each layer, so each layer may retire a key M before the next one does; a node that has retired key e has its slot
//! free for e + 2, which has the same parity.

use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;

use crate::document::Network;
use crate::epoch::Epoch;
use crate::error::EpochError;
use crate::ids::{EpochNumber, UnixTime};
use crate::node::Role;

/// The epochs that a sender uses at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phases {
    /// The epoch of nearly all packets.
    pub current: Arc<Epoch>,
    /// The epoch of the old share, as long as all its keys are still accepted.
    pub old: Option<Arc<Epoch>>,
}

impl Phases {
    /// The phases at `now`, the time since 1970.
    ///
    /// # Errors
    /// The document is not valid yet or any more.
    pub fn at(network: &Network, now: Duration) -> Result<Self, EpochError> {
        let begun = network.epoch_at(UnixTime(now.as_secs()))?;
        let before = network.before(begun);
        if now < start(begun).saturating_add(network.parameters().max_delay)
            && let Some(before) = before
        {
            return Ok(Self { current: Arc::clone(before), old: None });
        }
        let ends = end(begun).saturating_sub(network.retirement());
        let old = before.filter(|_| now < ends).map(Arc::clone);
        Ok(Self { current: Arc::clone(begun), old })
    }
}

impl Network {
    /// When a node that has this role in an epoch accepts packets under its key of that epoch. `None` if the document does
    /// not have the epoch.
    ///
    /// As long as the next epoch is not announced the key is taken to end with its own.
    #[must_use]
    pub fn key_window(&self, number: EpochNumber, role: Role) -> Option<Range<Duration>> {
        let epoch = self.epoch(number)?;
        let stratum = match role {
            Role::Mix { layer } => u32::from(layer),
            Role::Gateway => u32::from(epoch.layers()) + 1,
        };
        let early = self.parameters().max_delay * (u32::from(epoch.layers()) + 1).saturating_sub(stratum);
        let retired = match self.after(epoch) {
            Some(next) => end(next).saturating_sub(early),
            None => end(epoch),
        };
        Some(start(epoch).saturating_sub(early)..retired)
    }

    /// When links with the nodes of an epoch are kept: all its keys have their windows within.
    #[must_use]
    pub fn link_window(&self, epoch: &Epoch) -> Range<Duration> {
        start(epoch).saturating_sub(self.retirement())..self.death(epoch)
    }

    /// When no node accepts keys of this epoch any more: the end of the next one, or its own as long as the next is not
    /// announced.
    #[must_use]
    pub fn death(&self, epoch: &Epoch) -> Duration {
        end(self.after(epoch).map_or(epoch, Arc::as_ref))
    }

    /// The next instant after `now` at which anything of this changes, for anybody.
    #[must_use]
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        let max_delay = self.parameters().max_delay;
        self.epochs()
            .iter()
            .flat_map(|epoch| {
                let layers = u32::from(epoch.layers());
                let before = |at: Duration| (0..=layers + 1).map(move |k| at.saturating_sub(max_delay * k));
                before(start(epoch)).chain(before(end(epoch))).chain([start(epoch).saturating_add(max_delay)])
            })
            .filter(|at| *at > now)
            .min()
    }

    /// The epoch before, if the document has it.
    #[must_use]
    pub fn before(&self, epoch: &Epoch) -> Option<&Arc<Epoch>> {
        self.epoch(EpochNumber(epoch.number().0.checked_sub(1)?))
    }

    /// The epoch that follows, if the document has it.
    #[must_use]
    pub fn after(&self, epoch: &Epoch) -> Option<&Arc<Epoch>> {
        self.epoch(EpochNumber(epoch.number().0.checked_add(1)?))
    }

    /// How long the keys of an epoch take to be retired, layer by layer.
    fn retirement(&self) -> Duration {
        self.parameters().max_delay * (u32::from(self.parameters().layers) + 1)
    }
}

fn start(epoch: &Epoch) -> Duration {
    Duration::from_secs(epoch.valid_from().0)
}

fn end(epoch: &Epoch) -> Duration {
    Duration::from_secs(epoch.valid_until().0)
}

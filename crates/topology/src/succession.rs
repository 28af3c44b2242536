//! What a new document may change.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::authority::AuthorityKey;
use crate::document::Network;
use crate::epoch::Epoch;
use crate::ids::{EpochNumber, UnixTime};

/// Why a document does not take the place of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another network.
    #[error("it is signed by authority {found}, the one in force by {expected}")]
    OtherAuthority {
        /// Who signed the one in force.
        expected: AuthorityKey,
        /// Who signed the new one.
        found: AuthorityKey,
    },
    /// Another network of the same authority.
    #[error("it is of the network {found:?}, the one in force of {expected:?}")]
    OtherName {
        /// Name in the one in force.
        expected: String,
        /// Name in the new one.
        found: String,
    },
    /// An older one.
    #[error("its serial number is {found}, the one in force has {expected}: it is an older document")]
    Older {
        /// Of the one in force.
        expected: u64,
        /// Of the new one.
        found: u64,
    },
    /// Two documents with one serial number: the authority, or whoever has its key, shows different networks to different
    /// people.
    #[error(
        "it has the serial number {serial} of the one in force and is another document: the authority has signed two \
         (digests {expected} and {found}); do not trust it before that has been explained"
    )]
    Equivocation {
        /// Of both.
        serial: u64,
        /// Of the one in force, in hexadecimal.
        expected: String,
        /// Of the new one, in hexadecimal.
        found: String,
    },
    /// Parameters hold for the life of a network, since all participants have to change them at the same time.
    #[error("its parameters are not those of the one in force: they cannot change while a network runs")]
    Parameters,
    /// An epoch that has begun, and whose keys may be in use, is not there any more.
    #[error("epoch {0}, whose keys are in use, is missing")]
    EpochMissing(EpochNumber),
    /// An epoch that has begun is another.
    #[error("epoch {0} has begun, and is not what it was in the document in force")]
    EpochChanged(EpochNumber),
    /// A Sphinx key of an epoch that has begun is listed in another one.
    #[error("node {node} of epoch {epoch} has a Sphinx key of an epoch that has begun")]
    KeyReused {
        /// The epoch that is still to come.
        epoch: EpochNumber,
        /// Its node.
        node: usize,
    },
}

impl Network {
    /// Whether this document may take the place of `old` at `now`. A document may take its own.
    ///
    /// It has to be of the same authority, network and parameters, with a higher serial number, and has to leave alone all
    /// epochs that have begun; those whose keys are dead it need not list.
    ///
    /// # Errors
    /// [`Refusal`], by what is wrong; `old` stays in force.
    pub fn succeeds(&self, old: &Self, now: UnixTime) -> Result<(), Refusal> {
        if self.digest() == old.digest() && self.authority() == old.authority() {
            return Ok(());
        }
        if self.authority() != old.authority() {
            return Err(Refusal::OtherAuthority { expected: old.authority(), found: self.authority() });
        }
        if self.name() != old.name() {
            let [expected, found] = [old, self].map(|network| network.name().to_owned());
            return Err(Refusal::OtherName { expected, found });
        }
        if self.serial() == old.serial() {
            let [expected, found] = [old, self].map(|network| hex::encode(network.digest()));
            return Err(Refusal::Equivocation { serial: old.serial(), expected, found });
        }
        if self.serial() < old.serial() {
            return Err(Refusal::Older { expected: old.serial(), found: self.serial() });
        }
        if self.parameters() != old.parameters() {
            return Err(Refusal::Parameters);
        }
        let begun = old.epochs().iter().filter(|epoch| epoch.valid_from() <= now);
        for epoch in begun.clone() {
            match self.epoch(epoch.number()) {
                Some(same) if same == epoch => {}
                Some(_) => return Err(Refusal::EpochChanged(epoch.number())),
                None if old.death(epoch).as_secs() <= now.0 => {}
                None => return Err(Refusal::EpochMissing(epoch.number())),
            }
        }
        self.reuses_no_key_of(begun)
    }

    /// Within one document each key is there once; here are those of epochs that the new one does not list.
    fn reuses_no_key_of<'a>(&self, begun: impl Iterator<Item = &'a Arc<Epoch>>) -> Result<(), Refusal> {
        let dropped = begun.filter(|epoch| self.epoch(epoch.number()).is_none());
        let keys: BTreeSet<_> = dropped.flat_map(|epoch| epoch.nodes()).map(|node| node.sphinx_key).collect();
        for epoch in self.epochs() {
            if let Some(node) = epoch.nodes().iter().position(|node| keys.contains(&node.sphinx_key)) {
                return Err(Refusal::KeyReused { epoch: epoch.number(), node });
            }
        }
        Ok(())
    }
}

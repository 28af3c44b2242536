//! Whom the watcher follows, and what it said of them last.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::Address;
use tokio::sync::Notify;
use tombola_tickets::ClassNumber;

use super::Fact;
use crate::ledger::{Accounts, Ledger, LedgerError, SignerState};

#[derive(Debug, Default)]
struct Wanted {
    issuers: BTreeSet<Address>,
    classes: BTreeSet<ClassNumber>,
}

/// Whom and what the watcher follows. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    wanted: Arc<Mutex<Wanted>>,
    news: Arc<Notify>,
}

impl Follow {
    /// From now on guarantee and keys of an issuer are reported.
    pub fn issuer(&self, issuer: Address) {
        if self.wanted().issuers.insert(issuer) {
            self.news.notify_one();
        }
    }

    /// An issuer does not matter any more.
    pub fn forget_issuer(&self, issuer: &Address) {
        self.wanted().issuers.remove(issuer);
    }

    /// A class is reported as soon as its registration is final.
    pub fn class(&self, class: ClassNumber) {
        if self.wanted().classes.insert(class) {
            self.news.notify_one();
        }
    }

    /// A class does not matter any more.
    pub fn forget_class(&self, class: &ClassNumber) {
        self.wanted().classes.remove(class);
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn accounts(&self, own: Address) -> Accounts {
        Accounts { own, issuers: self.wanted().issuers.iter().copied().collect() }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn classes(&self) -> Vec<ClassNumber> {
        self.wanted().classes.iter().copied().collect()
    }
}

/// What is read of the past, and after which block the present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Where the past begins.
    pub(super) start: u64,
    /// Blocks that are read at once.
    pub(super) range: u64,
    /// The present.
    pub(super) at: u64,
}

/// What was said last: only what differs is said again.
#[derive(Debug, Default)]
pub(super) struct Known {
    deposit: Option<u128>,
    guarantees: BTreeMap<Address, u128>,
    /// The keys of an issuer, once its past was read.
    signers: BTreeMap<Address, BTreeMap<Address, Option<SignerState>>>,
    classes: BTreeSet<ClassNumber>,
    /// After which block a class was looked for that was not there.
    missed: BTreeMap<ClassNumber, u64>,
}

impl Known {
    /// Something new is followed, or may be there now.
    pub(super) fn lacks(&self, follow: &Follow, own: Address, at: u64) -> bool {
        let wanted = follow.wanted();
        let issuers = wanted.issuers.iter().chain([&own]);
        issuers.into_iter().any(|issuer| !self.signers.contains_key(issuer))
            || wanted
                .classes
                .iter()
                .any(|class| !self.classes.contains(class) && self.missed.get(class) != Some(&at))
    }

    /// A key of which an event told.
    pub(super) fn add_signer(&mut self, issuer: Address, signer: Address) {
        if let Some(signers) = self.signers.get_mut(&issuer) {
            signers.entry(signer).or_default();
        }
    }

    /// The chain has changed: classes and keys may be others.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Reads everything after a block, and says what differs, also if reading then fails.
    pub(super) async fn read(
        &mut self,
        ledger: &impl Ledger,
        follow: &Follow,
        own: Address,
        span: Span,
        facts: &mut Vec<Fact>,
    ) -> Result<(), LedgerError> {
        let at = span.at;
        let deposit = ledger.deposit(own, at).await?;
        if self.deposit.replace(deposit) != Some(deposit) {
            facts.push(Fact::Deposit(deposit));
        }
        for class in follow.classes() {
            if self.classes.contains(&class) {
                continue;
            }
            match ledger.class(class, at).await? {
                Some(found) => {
                    self.classes.insert(class);
                    self.missed.remove(&class);
                    facts.push(Fact::Class { number: class, class: found });
                }
                None => {
                    self.missed.insert(class, at);
                }
            }
        }
        let Accounts { issuers, .. } = follow.accounts(own);
        self.guarantees.retain(|issuer, _| issuers.contains(issuer));
        self.signers.retain(|issuer, _| *issuer == own || issuers.contains(issuer));
        for issuer in issuers.iter().copied() {
            let amount = ledger.guarantee(issuer, own, at).await?;
            if self.guarantees.insert(issuer, amount) != Some(amount) {
                facts.push(Fact::Guarantee { issuer, amount });
            }
        }
        for issuer in issuers.into_iter().chain([own]) {
            self.read_signers(ledger, issuer, span, facts).await?;
        }
        Ok(())
    }

    async fn read_signers(
        &mut self,
        ledger: &impl Ledger,
        issuer: Address,
        span: Span,
        facts: &mut Vec<Fact>,
    ) -> Result<(), LedgerError> {
        let signers = match self.signers.entry(issuer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(empty) => {
                let found = past_signers(ledger, issuer, span).await?;
                empty.insert(found.into_iter().map(|signer| (signer, None)).collect())
            }
        };
        for (signer, known) in signers {
            let state = ledger.signer(issuer, *signer, span.at).await?;
            if *known != state {
                *known = state;
                facts.push(Fact::Signer { issuer, signer: *signer, state });
            }
        }
        Ok(())
    }
}

/// All keys that were ever added for an issuer.
async fn past_signers(
    ledger: &impl Ledger,
    issuer: Address,
    span: Span,
) -> Result<BTreeSet<Address>, LedgerError> {
    let mut found = BTreeSet::new();
    let Span { start: mut from, mut range, at: to } = span;
    while from <= to {
        let end = to.min(from.saturating_add(range.max(1) - 1));
        match ledger.signers_added(issuer, from, end).await {
            Ok(signers) => found.extend(signers),
            Err(LedgerError::TooMuch(_)) if end > from => {
                range = (end - from).div_ceil(2);
                continue;
            }
            Err(error) => return Err(error),
        }
        from = end + 1;
    }
    Ok(found)
}

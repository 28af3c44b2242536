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
    /// Accounts that somebody says are his, with the key that he has shown; and whether that is to be read yet. He may be
    /// anybody, so of these nothing is read but what he guarantees to us, and this key.
    clients: BTreeMap<(Address, Address), bool>,
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

    /// From now on it is reported what an account guarantees to us, and whether this key signs for it. Whoever says that the
    /// account is his may be anybody: it costs two questions and no search. What was reported before it was forgotten is reported
    /// again. Its key is looked at when something happens to our own account, and at each refresh.
    pub fn client(&self, account: Address, signer: Address) {
        if self.wanted().clients.insert((account, signer), true).is_none() {
            self.news.notify_one();
        }
    }

    /// An account does not matter any more, as far as this key is concerned.
    pub fn forget_client(&self, account: Address, signer: Address) {
        self.wanted().clients.remove(&(account, signer));
    }

    /// A class is reported as soon as its registration is final.
    pub fn class(&self, class: ClassNumber) {
        if self.wanted().classes.insert(class) {
            self.news.notify_one();
        }
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

    /// Those, with their keys, that are to be read; all of them or only new ones.
    fn clients(&self, all: bool) -> Vec<(Address, Address)> {
        let wanted = self.wanted();
        wanted.clients.iter().filter(|(_, new)| all || **new).map(|(client, _)| *client).collect()
    }

    /// A client was read. Whether that was for the first time since it is followed.
    fn is_new(&self, client: &(Address, Address)) -> bool {
        self.wanted().clients.get_mut(client).is_some_and(core::mem::take)
    }
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that is followed.
    All,
    /// What was not read yet.
    New,
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
    /// What clients, and their keys, were last said to be.
    clients: BTreeMap<Address, u128>,
    keys: BTreeMap<(Address, Address), Option<SignerState>>,
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
            || wanted.clients.values().any(|new| *new)
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

    /// The chain has changed: classes and amounts may be others. What was said of keys stays, so that it is said of one that is gone,
    /// too.
    pub(super) fn forget(&mut self) {
        let (keys, signers) = (core::mem::take(&mut self.keys), core::mem::take(&mut self.signers));
        *self = Self { keys, signers, ..Self::default() };
    }

    /// Reads what is so after a block, and says what differs, also if reading then fails.
    pub(super) async fn read(
        &mut self,
        ledger: &impl Ledger,
        follow: &Follow,
        own: Address,
        span: Span,
        extent: Extent,
        facts: &mut Vec<Fact>,
    ) -> Result<(), LedgerError> {
        let (at, all) = (span.at, extent == Extent::All);
        if all || self.deposit.is_none() {
            let deposit = ledger.deposit(own, at).await?;
            if self.deposit.replace(deposit) != Some(deposit) {
                facts.push(Fact::Deposit(deposit));
            }
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
        let unread = |known: &Self, issuer: &Address| all || !known.signers.contains_key(issuer);
        for issuer in issuers.iter().copied().filter(|issuer| unread(self, issuer)).collect::<Vec<_>>() {
            let amount = ledger.guarantee(issuer, own, at).await?;
            if self.guarantees.insert(issuer, amount) != Some(amount) {
                facts.push(Fact::Guarantee { issuer, amount });
            }
        }
        for issuer in issuers.into_iter().chain([own]) {
            if unread(self, &issuer) {
                self.read_signers(ledger, issuer, span, facts).await?;
            }
        }
        let followed = follow.clients(true);
        let accounts: BTreeSet<_> = followed.iter().map(|(account, _)| *account).collect();
        self.clients.retain(|account, _| accounts.contains(account));
        self.keys.retain(|key, _| followed.binary_search(key).is_ok());
        for client in follow.clients(all) {
            self.read_client(ledger, follow, own, client, at, facts).await?;
        }
        Ok(())
    }

    async fn read_client(
        &mut self,
        ledger: &impl Ledger,
        follow: &Follow,
        own: Address,
        (account, signer): (Address, Address),
        at: u64,
        facts: &mut Vec<Fact>,
    ) -> Result<(), LedgerError> {
        let amount = ledger.guarantee(account, own, at).await?;
        // An account's own key signs for it always.
        let state = if signer == account { None } else { ledger.signer(account, signer, at).await? };
        let new = follow.is_new(&(account, signer));
        if self.clients.insert(account, amount) != Some(amount) || new {
            facts.push(Fact::Guarantee { issuer: account, amount });
        }
        let before = self.keys.insert((account, signer), state).flatten();
        if before != state || (new && state.is_some()) {
            facts.push(Fact::Signer { issuer: account, signer, state });
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

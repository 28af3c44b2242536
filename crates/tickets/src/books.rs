//! What all links of one account on the chain share.

use alloy_primitives::Address;
use std::collections::BTreeMap;
use tombola_mixing::Time;

use crate::batch::Domain;
use crate::class::UnixSeconds;
use crate::credit::Credit;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::lottery::WindowNumber;
use crate::records::Restore;
use crate::solvency::Solvency;

/// Windows that a recipient without its state leaves out: it may have claimed that many of which the chain knows
/// nothing yet.
pub const SKIPPED_WINDOWS: u32 = 512;

/// What time it is: on the monotonic clock, by which everything is measured, and on the chain's, by which classes expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub time: Time,
    /// The chain's.
    pub unix: UnixSeconds,
}

/// What all links of one account on the chain share: deposit, guarantees, window numbers, ledger and journal. The machines
/// take it as an argument.
#[derive(Debug)]
pub struct Books {
    /// Where everything is worth something.
    pub domain: Domain,
    /// What must be on disk.
    pub journal: Journal,
    /// What is owed and earned.
    pub ledger: Ledger,
    /// What we can pay.
    pub solvency: Solvency,
    credit: BTreeMap<Address, Credit>,
    /// The window that comes next, by issuer.
    series: BTreeMap<Address, u32>,
    /// The highest window for which a recipient sent a commitment.
    committed: BTreeMap<Address, WindowNumber>,
    /// What was on disk was lost once: series begin 512 windows further on.
    lost: bool,
}

impl Books {
    /// Nothing owed and nothing earned.
    #[must_use]
    pub fn new(domain: Domain, deposit: u128) -> Self {
        Self {
            domain,
            journal: Journal::default(),
            ledger: Ledger::default(),
            solvency: Solvency::new(deposit),
            credit: BTreeMap::new(),
            series: BTreeMap::new(),
            committed: BTreeMap::new(),
            lost: false,
        }
    }

    /// After a restart. The links restore themselves.
    #[must_use]
    pub fn restore(domain: Domain, deposit: u128, kept: &Restore) -> Self {
        let mut books = Self::new(domain, deposit);
        books.lost = kept.lost;
        for (issuer, next) in &kept.series {
            books.go_on_from(*issuer, *next);
        }
        for (issuer, window) in kept.windows.keys() {
            books.go_on_from(*issuer, window.0.saturating_add(1));
        }
        let skipped = &kept.skipped;
        for (recipient, window) in
            kept.issued.keys().map(|(recipient, window)| (recipient, window)).chain(skipped)
        {
            books.commit(*recipient, *window);
        }
        for (peer, over) in &kept.over {
            books.ledger.with(*peer).restore(over);
        }
        books
    }

    /// Something between us and a peer is over. In the journal before the windows go that it was in.
    pub(crate) fn keep_over(&mut self, peer: &Address) {
        self.journal.put_over(peer, &self.ledger.account(peer).over());
    }

    /// What an issuer guarantees to us, and what we have at risk with it.
    pub fn credit(&mut self, issuer: Address) -> &mut Credit {
        self.credit.entry(issuer).or_default()
    }

    /// What an issuer guarantees to us. Of whom nothing is guaranteed, and nothing was, nothing is remembered.
    pub fn guarantee(&mut self, issuer: Address, amount: u128) {
        if amount > 0 || self.credit.contains_key(&issuer) {
            self.credit(issuer).set_guaranteed(amount);
        }
    }

    /// Whether one more ticket of this issuer may be worked for, which might win `face_value`.
    #[must_use]
    pub fn allows(&self, issuer: &Address, face_value: u128) -> bool {
        self.credit.get(issuer).copied().unwrap_or_default().allows(face_value)
    }

    /// Forgets an issuer that guarantees nothing and with which nothing is at risk.
    pub fn forget_credit(&mut self, issuer: &Address) {
        if self.credit.get(issuer) == Some(&Credit::default()) {
            self.credit.remove(issuer);
        }
    }

    /// The window that will be the next one with this issuer.
    #[must_use]
    pub fn next_window(&self, issuer: &Address) -> WindowNumber {
        WindowNumber(self.series.get(issuer).copied().unwrap_or(self.first()))
    }

    /// What was on disk is lost, or there never was anything, which nobody can tell: all series begin 512 windows further on, as
    /// issuer and as recipient, also after a restart.
    pub fn lose(&mut self) {
        self.lost = true;
        self.journal.put_lost();
    }

    /// The first window of a series.
    const fn first(&self) -> u32 {
        if self.lost { SKIPPED_WINDOWS } else { 0 }
    }

    /// What was on disk is lost; `highest` is the highest window of this issuer that was claimed on the chain. The series
    /// goes on 512 windows beyond it: claims of the windows between may be on their way, and their randomness with them.
    pub fn skip_windows(&mut self, issuer: Address, highest: Option<WindowNumber>) {
        let beyond = highest.map_or(0, |highest| highest.0).saturating_add(SKIPPED_WINDOWS);
        self.go_on_from(issuer, beyond);
        self.journal.put_series(&issuer, beyond);
    }

    /// What was on disk is lost; `highest` is the highest window in which we are the issuer and that this recipient has claimed on
    /// the chain. Commitments count from 512 windows beyond it on: in those before, a number may be signed.
    pub fn skip_issued(&mut self, recipient: Address, highest: Option<WindowNumber>) {
        let beyond = highest.map_or(0, |highest| highest.0).saturating_add(SKIPPED_WINDOWS);
        let skipped = WindowNumber(beyond.saturating_sub(1));
        if self.commit(recipient, skipped) {
            self.journal.put_skipped(&recipient, skipped);
        }
    }

    /// The highest window for which this recipient sent a commitment.
    pub(crate) fn highest(&self, recipient: &Address) -> Option<WindowNumber> {
        self.committed.get(recipient).copied().or_else(|| self.first().checked_sub(1).map(WindowNumber))
    }

    /// Whether this window is the highest for which this recipient sent a commitment.
    pub(crate) fn is_highest(&self, recipient: &Address, window: WindowNumber) -> bool {
        self.committed.get(recipient) == Some(&window)
    }

    /// A recipient sent a commitment; false if it sent one for this window or a higher one before.
    pub(crate) fn commit(&mut self, recipient: Address, window: WindowNumber) -> bool {
        let grows = self.highest(&recipient).is_none_or(|highest| highest < window);
        if grows {
            self.committed.insert(recipient, window);
        }
        grows
    }

    pub(crate) fn go_on_from(&mut self, issuer: Address, next: u32) {
        let first = self.first();
        let series = self.series.entry(issuer).or_insert(first);
        *series = next.max(*series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_state_skips_what_may_have_been_claimed() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let mut books = Books::new(Domain::new(1, Address::ZERO), 0);
        assert_eq!(books.next_window(&a), WindowNumber(0));
        books.skip_windows(a, Some(WindowNumber(100)));
        books.skip_windows(b, None);
        assert_eq!(books.next_window(&a), WindowNumber(612));
        assert_eq!(books.next_window(&b), WindowNumber(512));
        books.skip_windows(a, Some(WindowNumber(10)));
        assert_eq!(books.next_window(&a), WindowNumber(612), "never back");
    }

    #[test]
    fn after_a_loss_all_series_begin_further_on_as_issuer_too() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let mut books = Books::new(Domain::new(1, Address::ZERO), 0);
        assert_eq!(books.highest(&a), None);
        books.lose();
        assert_eq!((books.next_window(&a), books.highest(&a)), (WindowNumber(512), Some(WindowNumber(511))));
        assert!(!books.commit(a, WindowNumber(511)) && books.commit(a, WindowNumber(512)));
        books.skip_issued(b, Some(WindowNumber(100)));
        assert!(!books.commit(b, WindowNumber(611)) && books.commit(b, WindowNumber(612)));
        // A crash before the loss was marked, which comes last, begins anew.
        let mut early = Restore::default();
        early.skipped.insert(b, WindowNumber(611));
        early.series.insert(a, 512);
        assert!(early.is_empty());
        // The next start knows of it, though nothing else was written.
        let mut kept = Restore::default();
        while let Some(change) = books.journal.poll_change() {
            let crate::journal::Change::Put { table, key, value } = change else {
                panic!("nothing is deleted")
            };
            kept.feed(table, &key, &value).unwrap();
        }
        let mut books = Books::restore(Domain::new(1, Address::ZERO), 0, &kept);
        assert_eq!(books.next_window(&a), WindowNumber(512));
        assert_eq!(
            (books.highest(&a), books.highest(&b)),
            (Some(WindowNumber(511)), Some(WindowNumber(611)))
        );
        assert!(!books.commit(b, WindowNumber(611)) && books.commit(b, WindowNumber(612)));
        assert!(!kept.is_empty() && Restore::default().is_empty());
    }
}

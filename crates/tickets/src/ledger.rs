//! What is owed and earned, by peer. In tickets, and in the smallest unit of the token.
//!
//! Nothing disappears: every ticket that was listed is in one of the places below, and so is every winner's face value.
//!
//! ```text
//! listed  = unsigned + void + batched          batched = waiting + opened + unopened
//! won     = pending + claimed + paid + lost + expired
//! issued  = outstanding + redeemed + lapsed
//! ```

use alloy_primitives::Address;
use std::collections::BTreeMap;

/// Winners and their face values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Winners {
    /// How many.
    pub tickets: u64,
    /// What they are worth together.
    pub value: u128,
}

impl Winners {
    const fn add(&mut self, other: Self) {
        self.tickets += other.tickets;
        self.value = self.value.saturating_add(other.value);
    }

    const fn take(&mut self, other: Self) {
        self.tickets = self.tickets.saturating_sub(other.tickets);
        self.value = self.value.saturating_sub(other.value);
    }
}

/// What is between us and one peer. Winners, and tickets that we signed, are counted over all processes that kept them on disk;
/// the rest since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Tickets that we acknowledged.
    pub listed: u64,
    /// Of these: not signed yet.
    pub unsigned: u64,
    /// Of these: on lists that one side lost.
    pub void: u64,
    /// Of these: signed.
    pub batched: u64,
    /// Of the signed: neither opened nor given up.
    pub waiting: u64,
    /// Of the signed: opened, so that it is known whether they win.
    pub opened: u64,
    /// Of the signed: given up, since the next hop's acknowledgement did not come or did not open them.
    pub unopened: u64,
    /// Winners that are on disk.
    pub won: Winners,
    /// Of these: not claimed yet.
    pub pending: Winners,
    /// Of these: claimed, the chain has not answered.
    pub claimed: Winners,
    /// Of these: paid.
    pub paid: Winners,
    /// Of these: claimed, but the issuer could not pay.
    pub lost: Winners,
    /// Of these: not claimed in time.
    pub expired: Winners,
    /// Tickets that we signed.
    pub issued: u64,
    /// Of these: in windows that may still be claimed.
    pub outstanding: u64,
    /// Of these: in windows that were claimed.
    pub redeemed: u64,
    /// Of these: expired.
    pub lapsed: u64,
    /// What we paid for the windows that were claimed.
    pub spent: u128,
}

impl Account {
    /// Whether everything is somewhere.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let mut winners = self.pending;
        [self.claimed, self.paid, self.lost, self.expired].into_iter().for_each(|part| winners.add(part));
        self.listed == self.unsigned + self.void + self.batched
            && self.batched == self.waiting + self.opened + self.unopened
            && self.won == winners
            && self.issued == self.outstanding + self.redeemed + self.lapsed
    }

    /// Adds what is between us and another peer.
    pub fn add(&mut self, other: &Self) {
        self.listed += other.listed;
        self.unsigned += other.unsigned;
        self.void += other.void;
        self.batched += other.batched;
        self.waiting += other.waiting;
        self.opened += other.opened;
        self.unopened += other.unopened;
        self.won.add(other.won);
        self.pending.add(other.pending);
        self.claimed.add(other.claimed);
        self.paid.add(other.paid);
        self.lost.add(other.lost);
        self.expired.add(other.expired);
        self.issued += other.issued;
        self.outstanding += other.outstanding;
        self.redeemed += other.redeemed;
        self.lapsed += other.lapsed;
        self.spent = self.spent.saturating_add(other.spent);
    }

    /// What is over, as another process has left it.
    pub(crate) fn restore(&mut self, over: &Over) {
        (self.paid, self.lost, self.expired) = (over.paid, over.lost, over.expired);
        [over.paid, over.lost, over.expired].into_iter().for_each(|part| self.won.add(part));
        (self.redeemed, self.lapsed, self.spent) = (over.redeemed, over.lapsed, over.spent);
        self.issued += over.redeemed + over.lapsed;
    }

    /// What is over, and in no window any more.
    pub(crate) const fn over(&self) -> Over {
        let Self { paid, lost, expired, redeemed, lapsed, spent, .. } = *self;
        Over { paid, lost, expired, redeemed, lapsed, spent }
    }

    pub(crate) const fn list(&mut self) {
        self.listed += 1;
        self.unsigned += 1;
    }

    pub(crate) const fn void(&mut self, tickets: u64) {
        self.unsigned -= tickets;
        self.void += tickets;
    }

    pub(crate) const fn batch(&mut self, tickets: u64) {
        self.unsigned -= tickets;
        self.batched += tickets;
        self.waiting += tickets;
    }

    pub(crate) const fn open(&mut self) {
        self.waiting -= 1;
        self.opened += 1;
    }

    pub(crate) const fn give_up(&mut self) {
        self.waiting -= 1;
        self.unopened += 1;
    }

    pub(crate) const fn win(&mut self, winners: Winners) {
        self.won.add(winners);
        self.pending.add(winners);
    }

    pub(crate) const fn claim(&mut self, winners: Winners) {
        self.pending.take(winners);
        self.claimed.add(winners);
    }

    /// The chain has answered a claim.
    pub(crate) const fn settle(&mut self, paid: Winners, lost: Winners) {
        self.claimed.take(paid);
        self.claimed.take(lost);
        self.paid.add(paid);
        self.lost.add(lost);
    }

    pub(crate) const fn expire_pending(&mut self, winners: Winners) {
        self.pending.take(winners);
        self.expired.add(winners);
    }

    pub(crate) const fn expire_claimed(&mut self, winners: Winners) {
        self.claimed.take(winners);
        self.expired.add(winners);
    }

    pub(crate) const fn issue(&mut self, tickets: u64) {
        self.issued += tickets;
        self.outstanding += tickets;
    }

    pub(crate) const fn redeem(&mut self, tickets: u64, spent: u128) {
        self.outstanding -= tickets;
        self.redeemed += tickets;
        self.spent = self.spent.saturating_add(spent);
    }

    pub(crate) const fn lapse(&mut self, tickets: u64) {
        self.outstanding -= tickets;
        self.lapsed += tickets;
    }
}

/// What of an account is over: no window has it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) paid: Winners,
    pub(crate) lost: Winners,
    pub(crate) expired: Winners,
    pub(crate) redeemed: u64,
    pub(crate) lapsed: u64,
    pub(crate) spent: u128,
}

impl Over {
    /// The claim of so many winners is final on the chain, which has paid `amount` for them.
    pub(crate) fn settle(&mut self, winners: u32, face_value: u128, amount: u128) {
        let worth = |tickets: u64| Winners { tickets, value: face_value.saturating_mul(tickets.into()) };
        let paid = amount.checked_div(face_value).unwrap_or_default();
        let paid = u64::try_from(paid).unwrap_or(u64::MAX).min(winners.into());
        self.paid.add(worth(paid));
        self.lost.add(worth(u64::from(winners) - paid));
    }
}

/// The accounts with all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Address, Account>);

impl Ledger {
    /// The account with a peer.
    #[must_use]
    pub fn account(&self, peer: &Address) -> Account {
        self.0.get(peer).copied().unwrap_or_default()
    }

    /// All accounts, by peer.
    pub fn accounts(&self) -> impl Iterator<Item = (&Address, &Account)> {
        self.0.iter()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Account {
        let mut sum = Account::default();
        self.0.values().for_each(|account| sum.add(account));
        sum
    }

    /// Whether everything is somewhere.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.0.values().all(Account::is_conserved)
    }

    pub(crate) fn with(&mut self, peer: Address) -> &mut Account {
        self.0.entry(peer).or_default()
    }
}

//! Windows of a recipient: when they end, when they are claimed, and what becomes of the claims.

use core::time::Duration;
use std::collections::BTreeMap;

use tombola_mixing::Time;

use super::{Event, Recipient, RecipientLink, Settlement, State};
use crate::batch::Digest;
use crate::books::{Books, Now};
use crate::claim::{BatchClaim, WindowClaim};
use crate::ledger::Winners;
use crate::lottery::{Commitment, Randomness, WindowNumber};
use crate::messages::RecipientMessage;
use crate::opening::Openings;
use crate::records::WindowRecord;

/// That its last window shall end is said again after so long, while its issuer does not answer.
const END_AGAIN: Duration = Duration::from_secs(10);
/// A window lasts so long from its first batch.
pub(super) const WINDOW_LIFE: Duration = Duration::from_secs(3600);
/// Batches of a window.
const MOST_BATCHES: u16 = 256;
/// A claim is mined before its class expires at the latest, and final so many seconds later: until then it may be paid.
const FINAL_WITHIN: u32 = 2700;
/// Windows of a link that were used and are neither settled nor expired: as many as an issuer keeps. No other is opened.
const MOST_WINDOWS: usize = 4096;
/// Or so many winners.
const MOST_WINNERS: u32 = 32;
/// More winners of a window do not count: 255 of 280 bytes fit a transaction of 128 KiB, and the format.
pub(super) const MOST_CLAIMED: u32 = 255;

#[derive(Debug)]
pub(super) struct Window {
    pub(super) randomness: Randomness,
    pub(super) commitment: Commitment,
    pub(super) next: u16,
    pub(super) first: Option<Time>,
    /// When the last of its tickets came, or something of it was signed.
    pub(super) last: Time,
    /// The issuer has said that no batch of this number or above will come.
    pub(super) closed: Option<u16>,
    /// Nothing more can be accepted, whatever the issuer says: it signs under a later window.
    pub(super) over: bool,
    pub(super) claimed: bool,
    /// Its list is lost with the process before; batches are only acknowledged.
    pub(super) restored: bool,
    pub(super) winners: u32,
    /// Of these: on disk, and in the ledger.
    pub(super) counted: u32,
    /// The claim is in the ledger.
    pub(super) claim_counted: bool,
    pub(super) won: BTreeMap<u8, BatchClaim>,
    /// What was signed, of each batch that was accepted.
    pub(super) accepted: BTreeMap<u8, Digest>,
}

impl Window {
    /// Whether no batch of it will be accepted any more.
    pub(super) fn is_complete(&self) -> bool {
        self.over || self.closed.is_some_and(|closed| self.restored || self.next >= closed)
    }
}

impl Recipient {
    /// Opens and ends windows, gives up tickets, asks for claims. Call it after batches and at
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now, books: &mut Books, openings: &mut Openings) {
        self.give_up_old(now, books, openings);
        self.turn_window(now, books);
        self.end_again(now, books);
        let forced = now.unix.0.saturating_add(self.limits.claim_before_expiry) >= self.link.price.expiry.0;
        let expired = now.unix > self.link.price.expiry;
        if expired && self.unsigned() > 0 {
            self.drop_list(books);
        }
        if expired {
            books.credit(self.link.issuer).lapse(core::mem::take(&mut self.void));
        }
        let numbers: Vec<_> = self.windows.keys().copied().collect();
        for number in numbers {
            let Some(window) = self.windows.get_mut(&number) else { continue };
            // Who has gone says nothing any more, and nothing is accepted from it when no window is to follow.
            let left = self.ended && !self.agreed;
            let done = (window.is_complete() || left) && now.time >= window.last + self.limits.settled_after;
            // Whether a claim that was made in time was paid is for the chain to say.
            let open = window.claimed && now.unix.0 <= self.link.price.expiry.0.saturating_add(FINAL_WITHIN);
            if expired && open {
                continue;
            }
            if expired {
                self.expire(number, books);
            } else if (done || forced) && !window.claimed {
                self.claim(number, books);
            }
        }
    }

    /// The word may have been lost, or the answer to it.
    fn end_again(&mut self, now: Now, books: &Books) {
        let current = self.current.filter(|_| self.ended && self.agreed);
        let open = |window: &WindowNumber| {
            self.windows.get(window).is_some_and(|window| !window.over && window.closed.is_none())
        };
        let Some(window) = current.filter(open) else {
            self.end_said = None;
            return;
        };
        let said = *self.end_said.get_or_insert(now.time);
        if now.time >= said + END_AGAIN {
            self.end_said = Some(now.time);
            self.events.push(&books.journal, Event::Message(RecipientMessage::End { window }));
        }
    }

    fn give_up_old(&mut self, now: Now, books: &mut Books, openings: &mut Openings) {
        while let Some(pending) = self.pending.front()
            && now.time >= pending.since + self.limits.settled_after
        {
            let (start, count) = (pending.start, pending.batch.header.count.get());
            for ticket in start..start + u64::from(count) {
                let Some(at) = self.index(ticket) else { continue };
                if let State::Waiting(_, next) = self.tickets[at].state {
                    openings.count(self.link.previous, next, false);
                    self.tickets[at].state = State::Done;
                    self.pending[0].waiting -= 1;
                    self.give_up(books);
                }
            }
            self.release();
        }
    }

    pub(super) fn turn_window(&mut self, now: Now, books: &mut Books) {
        let full = |window: &Window| {
            window.next >= MOST_BATCHES
                || window.winners >= MOST_WINNERS
                || window.first.is_some_and(|first| now.time >= first + WINDOW_LIFE)
        };
        let current = self.current.and_then(|current| self.windows.get(&current));
        if self.ended || now.unix > self.link.price.expiry || current.is_some_and(|window| !full(window)) {
            return;
        }
        if self.windows.len() >= MOST_WINDOWS {
            return;
        }
        let number = books.next_window(&self.link.issuer);
        let Some(next) = number.0.checked_add(1) else { return };
        books.go_on_from(self.link.issuer, next);
        books.journal.put_series(&self.link.issuer, next);
        let record = WindowRecord { class: self.link.class, claimed: false };
        books.journal.put_window(&self.link.issuer, number, &record);
        let window = self.window(number, now, books);
        let commitment = window.commitment;
        self.windows.insert(number, window);
        self.current = Some(number);
        let message = RecipientMessage::Commitment { window: number, commitment };
        self.events.push(&books.journal, Event::Message(message));
    }

    /// Its issuer has gone. If nothing is won, at risk, or to be waited for, nothing is kept either: then the machine need not be.
    pub fn leave(&mut self, books: &mut Books) -> bool {
        let idle = self.unsigned() == 0 && self.pending.is_empty() && self.void == 0;
        if !idle || self.windows.values().any(|window| window.claimed || !window.won.is_empty()) {
            return false;
        }
        for (number, window) in core::mem::take(&mut self.windows) {
            self.forget(number, &window, books);
        }
        self.current = None;
        true
    }

    /// Another window follows, whatever was to happen in this one. If nothing has, nothing of it is kept.
    pub(super) fn abandon_window(&mut self, number: WindowNumber, books: &mut Books) {
        self.current = self.current.filter(|current| *current != number);
        let unused = |window: &Window| window.next == 0 && !window.restored;
        if self.windows.get(&number).is_some_and(unused)
            && let Some(window) = self.windows.remove(&number)
        {
            self.forget(number, &window, books);
        }
    }

    pub(super) fn window(&self, number: WindowNumber, now: Now, books: &Books) -> Window {
        let randomness = Randomness::derive(&self.secret, &books.domain, &self.link.issuer, number);
        Window {
            commitment: randomness.commitment(),
            randomness,
            next: 0,
            first: None,
            last: now.time,
            closed: None,
            over: false,
            claimed: false,
            restored: false,
            winners: 0,
            counted: 0,
            claim_counted: false,
            won: BTreeMap::new(),
            accepted: BTreeMap::new(),
        }
    }

    /// That it is claimed is durable before the event comes out.
    fn claim(&mut self, number: WindowNumber, books: &mut Books) {
        let Some(mut window) = self.windows.remove(&number) else { return };
        if self.current == Some(number) {
            self.current = None;
            self.ended = true;
        }
        if window.won.is_empty() {
            // Nothing won: its randomness stays a secret.
            return self.forget(number, &window, books);
        }
        window.claimed = true;
        let record = WindowRecord { class: self.link.class, claimed: true };
        books.journal.put_window(&self.link.issuer, number, &record);
        let claim = self.link.claim(number, &window);
        self.windows.insert(number, window);
        self.events.push(&books.journal, Event::Claim(claim));
    }

    /// A claim is final on the chain: what was not paid never will be.
    pub fn settled(&mut self, number: WindowNumber, settlement: Settlement, books: &mut Books) {
        // Before the claim came out the chain cannot have settled it.
        if self.windows.get(&number).is_none_or(|window| !window.claim_counted) {
            return;
        }
        let Some(window) = self.windows.remove(&number) else { return };
        let paid = settlement.paid.min(window.winners);
        let (paid, lost) = (self.link.winners(paid), self.link.winners(window.winners - paid));
        books.ledger.with(self.link.issuer).settle(paid, lost);
        books.keep_over(&self.link.issuer);
        // What is lost is in the ledger; it is not at risk any more.
        books.credit(self.link.issuer).settled(paid.value.saturating_add(lost.value));
        self.forget(number, &window, books);
    }

    fn expire(&mut self, number: WindowNumber, books: &mut Books) {
        let Some(window) = self.windows.remove(&number) else { return };
        let winners = self.link.winners(window.counted);
        let account = books.ledger.with(self.link.issuer);
        if window.claim_counted {
            account.expire_claimed(winners);
        } else {
            account.expire_pending(winners);
        }
        if winners.tickets > 0 {
            books.keep_over(&self.link.issuer);
        }
        books.credit(self.link.issuer).settled(self.link.winners(window.winners).value);
        self.forget(number, &window, books);
        if self.current == Some(number) {
            self.current = None;
        }
    }

    fn forget(&self, number: WindowNumber, window: &Window, books: &mut Books) {
        let won = window.won.iter().map(|(at, claim)| (*at, claim.winners.as_slice()));
        books.journal.delete_window(&self.link.issuer, number, window.accepted.keys().copied(), won);
    }
}

impl RecipientLink {
    pub(super) fn winners(&self, tickets: u32) -> Winners {
        let value = self.price.face_value.saturating_mul(tickets.into());
        Winners { tickets: tickets.into(), value }
    }

    pub(super) fn claim(&self, number: WindowNumber, window: &Window) -> WindowClaim {
        WindowClaim {
            issuer: self.issuer,
            class: self.class,
            window: number,
            randomness: window.randomness.clone(),
            least: u16::try_from(window.winners).unwrap_or(u16::MAX),
            batches: window.won.values().cloned().collect(),
        }
    }
}

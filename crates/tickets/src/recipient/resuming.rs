//! A link that comes back: what both ends still have of their list, and under which window it goes on.

use super::{Event, Recipient, State};
use crate::ack_list::{AckList, ListHash};
use crate::books::{Books, Now};
use crate::lottery::WindowNumber;
use crate::messages::RecipientMessage;

impl Recipient {
    /// The link is gone. Nothing is accepted or acknowledged until both have agreed on the list again.
    pub fn disconnected(&mut self) {
        self.agreed = false;
        self.answered = false;
        self.events.retain(|event| !matches!(event, Event::Message(_)));
    }

    /// The link is new, or new again, and the issuer says what it has of the list. Batches that it sends again come before.
    /// `highest` is the highest window that it knows, on any link with us; ours is above, or it has signed in it and knows what.
    /// An issuer that has lost what it had on disk gets another window.
    pub fn resume(
        &mut self,
        now: Now,
        session: u64,
        intact: bool,
        list: &AckList,
        highest: Option<WindowNumber>,
        books: &mut Books,
    ) {
        let is_first = !self.intact;
        let agrees = !is_first
            && intact
            && self.unsigned_by_issuer.is_none()
            && self.list_at(list.count()) == Some(list.hash());
        if agrees {
            self.acked = self.list_start + list.count();
            self.acked_list = *list;
        } else {
            self.drop_list(books);
            self.session = session;
        }
        self.agreed = true;
        self.answered = false;
        self.intact = true;
        if let Some(highest) = highest {
            books.go_on_from(self.link.issuer, highest.0.saturating_add(1));
        }
        // Signed by a key that was revoked, or is not final, and come again before this: nothing behind it can be accepted in its
        // window. The issuer signs under another one, and need not keep it.
        if let Some((window, next)) = self.unsigned_by_issuer.take() {
            self.events.push(&books.journal, Event::Message(RecipientMessage::Received { window, next }));
            if let Some(former) = self.windows.get_mut(&window) {
                former.over = true;
            }
            self.current = self.current.filter(|current| *current != window);
        }
        if let Some(current) = self.current {
            let unused = self.windows.get(&current).is_none_or(|window| window.next == 0);
            // Of an unused window it has to know nothing, but that must be the next one; what it knows when both agree first may be
            // of a process before, whose disk was lost, and used. In a used one it goes on only if it knows
            // for certain what it has signed: it has not ended since, or the window is the last that it wrote down. Else it
            // might sign a number twice.
            let goes_on = match unused {
                true => highest.is_none_or(|highest| current > highest || (current == highest && !is_first)),
                false => intact || highest == Some(current),
            };
            if !goes_on {
                self.abandon_window(current, books);
            }
        }
        if self.current.is_none() {
            // The commitment goes before everything that is acknowledged under it.
            self.turn_window(now, books);
        }
        if let Some(window) = self.current.and_then(|current| Some((current, self.windows.get(&current)?))) {
            let (window, commitment) = (window.0, window.1.commitment);
            self.events
                .push(&books.journal, Event::Message(RecipientMessage::Commitment { window, commitment }));
            if self.ended {
                self.events.push(&books.journal, Event::Message(RecipientMessage::End { window }));
            }
        }
        self.events
            .push(&books.journal, Event::Message(RecipientMessage::Resumed { session, void: !agrees }));
    }

    /// The list's hash when it had so many tickets; only of what is not signed.
    pub(super) fn list_at(&self, count: u64) -> Option<ListHash> {
        let ticket = self.list_start.checked_add(count)?;
        match ticket.checked_sub(self.signed)? {
            0 => Some(self.signed_hash),
            _ => self.index(ticket - 1).map(|at| self.tickets[at].hash),
        }
    }

    pub(super) fn drop_list(&mut self, books: &mut Books) {
        let value = self.ticket_value();
        while self.end() > self.signed
            && let Some(ticket) = self.tickets.pop_back()
        {
            let credit = books.credit(self.link.issuer);
            if matches!(ticket.state, State::Done) {
                // Its value was taken off when it did not open.
                credit.open(value);
            }
            credit.void(value);
            self.void = self.void.saturating_add(value);
            books.ledger.with(self.link.issuer).void(1);
        }
        self.list = AckList::new();
        self.signed_hash = self.list.hash();
        self.acked_list = self.list;
        self.list_start = self.signed;
        self.acked = self.signed;
        self.generation += 1;
    }
}

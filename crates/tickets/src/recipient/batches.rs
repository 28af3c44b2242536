//! Batches as they come: what was agreed counts, what came before is acknowledged again, the rest counts for nothing.

use thiserror::Error;

use super::{Event, Pending, Recipient, State};
use crate::batch::{BatchHeader, Digest, SignedBatch};
use crate::books::{Books, Now};
use crate::lottery::{Draw, draw_each};
use crate::merkle::{self, MAX_TICKETS, TicketCount};
use crate::messages::RecipientMessage;

/// Why a batch counts for nothing. Whether its issuer did what it must not: see [`is_fault`](Self::is_fault).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchRefused {
    /// This one was accepted before. It is only acknowledged again.
    #[error("the batch was accepted before")]
    Repeated,
    /// Another one of this number was accepted, which alone counts: the number was signed twice.
    #[error("another batch of this number was accepted")]
    Conflict,
    /// Issuer, recipient or class are others.
    #[error("the batch belongs to another link")]
    OtherLink,
    /// We sent no commitment of this window, or the issuer has said that the window ends before this number.
    #[error("the window is not open")]
    NoWindow,
    /// Its tickets are not here any more: the window was forgotten, or another one has followed, or they were lost with the process
    /// that listed them. Whoever did not hear our answer sends it again; it is acknowledged, and need not be kept.
    #[error("the window is over")]
    Over,
    /// Its randomness is known. Signed before the issuer knew that, it is acknowledged, and need not be kept.
    #[error("the window was claimed")]
    Claimed,
    /// One before it is missing, which may have been lost on the way: both come again.
    #[error("batch {expected} comes next")]
    Number {
        /// The next one.
        expected: u16,
    },
    /// The window's commitment is another one.
    #[error("that is not our commitment")]
    Commitment,
    /// It has more tickets than we acknowledged.
    #[error("we did not acknowledge so many tickets")]
    Count,
    /// Its tree is over other tickets, or in another order.
    #[error("the root is not that of our list")]
    Root,
    /// Somebody else signed it.
    #[error("its issuer did not sign it")]
    Signer,
}

impl BatchRefused {
    /// Whether no honest issuer sends such a batch. The others come where answers or frames get lost, or where one side was killed.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Repeated | Self::Over | Self::Claimed | Self::Number { .. } => false,
            Self::Conflict
            | Self::OtherLink
            | Self::NoWindow
            | Self::Commitment
            | Self::Count
            | Self::Root
            | Self::Signer => true,
        }
    }

    /// Whether the issuer is told that it need not keep the batch.
    const fn is_acknowledged(self) -> bool {
        matches!(self, Self::Repeated | Self::Over | Self::Claimed)
    }
}

impl Recipient {
    /// A batch came. Accepted, its tickets are evaluated as far as they are open.
    ///
    /// # Errors
    ///
    /// See [`BatchRefused`]; it counts for nothing.
    pub fn batch(&mut self, now: Now, batch: &SignedBatch, books: &mut Books) -> Result<(), BatchRefused> {
        let header = &batch.header;
        let link = &self.link;
        if (header.issuer, header.recipient, header.class) != (link.issuer, link.recipient, link.class) {
            return Err(BatchRefused::OtherLink);
        }
        let number = u16::from(header.number);
        let digest = header.digest(&books.domain);
        if let Err(refused) = self.may_be_accepted(header, &digest, books) {
            if refused.is_acknowledged() {
                let known = self.windows.get(&header.window).map_or(0, |window| window.next);
                self.received(header, known.max(number + 1), books);
            }
            return Err(refused);
        }
        let window = self.windows.get_mut(&header.window).ok_or(BatchRefused::NoWindow)?;
        if number > window.next {
            if let Some((_, next)) = self.unsigned_by_issuer.as_mut().filter(|(of, _)| *of == header.window) {
                *next = number + 1;
            }
            return Err(BatchRefused::Number { expected: window.next });
        }
        // What we did not hand out, the issuer cannot know.
        if u64::from(header.count.get()) > self.acked - self.signed {
            return Err(BatchRefused::Count);
        }
        let from = usize::try_from(self.signed - self.base).map_err(|_| BatchRefused::Count)?;
        self.scratch.clear();
        let leaves = self.tickets.iter().skip(from).take(header.count.get().into());
        self.scratch.extend(leaves.map(|ticket| ticket.challenge));
        if merkle::root(&self.scratch) != Ok(header.root) {
            return Err(BatchRefused::Root);
        }
        if !batch.signature.recover(&digest).is_ok_and(|signer| self.signers.contains(&signer)) {
            self.unsigned_by_issuer = Some((header.window, number + 1));
            return Err(BatchRefused::Signer);
        }
        self.unsigned_by_issuer = None;
        window.next = number + 1;
        window.first.get_or_insert(now.time);
        window.last = now.time;
        window.accepted.insert(header.number, digest);
        // Before its winners, and before it is acknowledged: whoever sends it again after a crash did nothing wrong.
        books.journal.put_accepted(&header.issuer, header.window, header.number, &digest);
        // An issuer that signs under a window does not go back to an earlier one.
        for (_, earlier) in self.windows.range_mut(..header.window) {
            earlier.over = true;
        }
        self.take_batch(now, batch, digest, books);
        if header.count == TicketCount::MAX {
            books.journal.hurry();
        }
        self.received(header, number + 1, books);
        Ok(())
    }

    /// What can be said of a batch by its place alone.
    fn may_be_accepted(
        &self,
        header: &BatchHeader,
        digest: &Digest,
        books: &Books,
    ) -> Result<(), BatchRefused> {
        let Some(window) = self.windows.get(&header.window) else {
            // Whoever has lost its disk learns of later windows when both agree first, and what is repeated comes before that.
            let may_have_been = !self.intact || header.window < books.next_window(&self.link.issuer);
            return Err(if may_have_been { BatchRefused::Over } else { BatchRefused::NoWindow });
        };
        match window.accepted.get(&header.number) {
            Some(accepted) if accepted == digest => return Err(BatchRefused::Repeated),
            Some(_) => return Err(BatchRefused::Conflict),
            None => {}
        }
        if header.commitment != window.commitment {
            return Err(BatchRefused::Commitment);
        }
        if window.closed.is_some_and(|closed| u16::from(header.number) >= closed) {
            return Err(BatchRefused::NoWindow);
        }
        if window.claimed {
            return Err(BatchRefused::Claimed);
        }
        // Before both have agreed first there is no list, and what comes is of an earlier process's.
        if window.restored || window.over || !self.intact {
            return Err(BatchRefused::Over);
        }
        Ok(())
    }

    /// All batches of its window before `next` are here, or will not be missed.
    fn received(&mut self, header: &BatchHeader, next: u16, books: &Books) {
        let received = RecipientMessage::Received { window: header.window, next };
        self.events.push(&books.journal, Event::Message(received));
    }

    fn take_batch(&mut self, now: Now, batch: &SignedBatch, digest: Digest, books: &mut Books) {
        let count = batch.header.count.get();
        let start = self.signed;
        self.signed += u64::from(count);
        if let Some(last) = self.index(self.signed - 1) {
            self.signed_hash = self.tickets[last].hash;
        }
        books.ledger.with(self.link.issuer).batch(count.into());
        self.pending.push_back(Pending { batch: *batch, digest, start, waiting: count, since: now.time });
        let last = self.pending.len() - 1;
        let draws = self.draw(batch, &digest, start);
        for (ticket, draw) in (start..self.signed).zip(draws) {
            let Some(at) = self.index(ticket) else { continue };
            match self.tickets[at].state {
                State::Waiting(..) => {}
                State::Open(_) => self.evaluate(last, at, draw, books),
                State::Done => {
                    self.pending[last].waiting -= 1;
                    books.ledger.with(self.link.issuer).give_up();
                }
            }
        }
        self.release();
    }

    /// Draws for those tickets of a batch that are open by now.
    fn draw(&self, batch: &SignedBatch, digest: &Digest, start: u64) -> [Option<Draw>; MAX_TICKETS] {
        let mut draws = [None; MAX_TICKETS];
        let (Some(from), Some(window)) = (self.index(start), self.windows.get(&batch.header.window)) else {
            return draws;
        };
        let open = self.tickets.iter().skip(from).zip(0..=batch.header.count.less_one());
        let open = open.filter_map(|(ticket, k)| match &ticket.state {
            State::Open(opener) => Some((k, opener)),
            _ => None,
        });
        draw_each(digest, open, &window.randomness, |k, draw| draws[usize::from(k)] = Some(draw));
        draws
    }
}

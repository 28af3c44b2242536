//! The earning side of one link under one key epoch.

mod batches;
mod resuming;
mod windows;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy_primitives::Address;
use thiserror::Error;
use tombola_mixing::Time;
use zeroize::Zeroizing;

use crate::ack_list::{AckList, ListHash};
use crate::batch::{Digest, SignedBatch};
use crate::books::{Books, Now};
use crate::claim::{BatchClaim, WindowClaim, WinnerClaim};
use crate::class::{ClassNumber, PriceClass};
use crate::credit::MOST_UNSIGNED;
use crate::journal::Gated;
use crate::ledger::Winners;
use crate::lottery::{Draw, WindowNumber, wins};
use crate::merkle::{self, MAX_TICKETS};
use crate::messages::{PacketAck, PacketId, RecipientMessage};
use crate::opening::{Neighbour, Openings};
use crate::por::{Ack, Challenge, Opener, OwnSecret};
use crate::records::Restore;

pub use batches::BatchRefused;
use windows::{MOST_CLAIMED, WINDOW_LIFE, Window};

/// Between whom, and what a ticket is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientLink {
    /// Who pays.
    pub issuer: Address,
    /// Who signs for it: its own key always does. [`Recipient::set_signers`] says who else.
    pub signer: Address,
    /// Our account on the chain.
    pub recipient: Address,
    /// The class of the packets' key.
    pub class: ClassNumber,
    /// What it says.
    pub price: PriceClass,
    /// The neighbour that pays.
    pub previous: Neighbour,
}

/// What depends on the network's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The delay bound and two cadences of control frames: after so long a ticket has been opened or never will be.
    pub settled_after: Duration,
    /// So many seconds before the expiry of its class a window is claimed whatever its issuer says.
    pub claim_before_expiry: u32,
}

/// Names a ticket to the machine that accepted it; kept beside the packet until the next hop acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId {
    number: u64,
    /// Of the list: numbers of a void one are used again.
    generation: u64,
}

/// What opens a ticket.
#[derive(Clone, Debug)]
pub enum Secret {
    /// Our half; the next hop has the other one.
    Own(OwnSecret, Neighbour),
    /// Everything: at the last paid hop, and on the first link.
    Opener(Opener),
}

/// Why a packet is not worked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No window is open.
    #[error("there is no window")]
    NoWindow,
    /// The list has to be agreed on first, or the packet is older than the agreement.
    #[error("the list is not agreed on")]
    NoAgreement,
    /// As much as is worked for on credit is unsigned.
    #[error("{MOST_UNSIGNED} tickets are unsigned")]
    Unsigned,
    /// What is at risk exceeds what the issuer guarantees.
    #[error("the issuer's guarantee is used up")]
    Guarantee,
    /// Its tickets are worth nothing now.
    #[error("the class is not valid now")]
    Class,
    /// The opener is not that of the challenge.
    #[error("the opener does not open the ticket")]
    NotOpening,
}

/// Why an acknowledgement of the next hop does not open a ticket. Told to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It was opened, given up, or is on a void list.
    #[error("the ticket is gone")]
    Gone,
    /// The challenge is that of another opener.
    #[error("the acknowledgement does not open the ticket")]
    NotOpening,
}

/// What becomes of a claim on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// How many winners' face values were paid.
    pub paid: u32,
}

/// What the machine hands out, when everything that it rests on is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// To be sent to the issuer.
    Message(RecipientMessage),
    /// A ticket won. It is on disk and counted.
    Won {
        /// The window.
        window: WindowNumber,
        /// What it is worth, in the smallest unit of the token.
        value: u128,
    },
    /// To be claimed, as often as it takes. From now on its randomness may be known, and no batch of the window is accepted.
    Claim(WindowClaim),
}

#[derive(Debug)]
struct Ticket {
    packet: PacketId,
    challenge: Challenge,
    ack: Ack,
    state: State,
    /// The list's hash with this ticket.
    hash: ListHash,
    generation: u64,
}

#[derive(Debug)]
enum State {
    Waiting(OwnSecret, Neighbour),
    Open(Opener),
    /// Evaluated, or given up.
    Done,
}

/// A signed batch of which not every ticket is evaluated.
#[derive(Debug)]
struct Pending {
    batch: SignedBatch,
    digest: Digest,
    start: u64,
    waiting: u16,
    since: Time,
}

/// The earning side of one link under one key epoch: tickets in the order in which they were acknowledged, batches whose
/// tickets wait for their openers, windows and their winners.
///
/// **Bound.** Tickets: [`MOST_UNSIGNED`] unsigned, and those of the batches of [`Limits::settled_after`], since a ticket is given up then.
/// Windows: until they are claimed and settled, or expire; of each the digests of 256 batches.
#[derive(Debug)]
pub struct Recipient {
    link: RecipientLink,
    /// Whose signatures bind the issuer.
    signers: BTreeSet<Address>,
    limits: Limits,
    secret: Zeroizing<[u8; 32]>,
    windows: BTreeMap<WindowNumber, Window>,
    current: Option<WindowNumber>,
    ended: bool,
    /// When the issuer was told so last.
    end_said: Option<Time>,
    tickets: VecDeque<Ticket>,
    /// Number of the first ticket that is kept.
    base: u64,
    /// Number of the first that is not signed.
    signed: u64,
    /// Number of the first whose acknowledgement was not handed out.
    acked: u64,
    /// Number of the first ticket of the list, whose hash begins there.
    list_start: u64,
    generation: u64,
    /// What void lists were worth.
    void: u128,
    list: AckList,
    /// The list's hash before `signed`.
    signed_hash: ListHash,
    /// The list up to `acked`.
    acked_list: AckList,
    pending: VecDeque<Pending>,
    scratch: Vec<Challenge>,
    events: Gated<Event>,
    agreed: bool,
    /// Batches of this window before this number came, and were signed by a key that does not sign for the issuer.
    unsigned_by_issuer: Option<(WindowNumber, u16)>,
    /// The answer to the issuer is out; acknowledgements come behind it.
    answered: bool,
    intact: bool,
    session: u64,
}

impl Recipient {
    /// A link that has never been. `secret` is random, kept, and used for nothing but the randomness of windows.
    #[must_use]
    pub fn new(link: RecipientLink, limits: Limits, secret: [u8; 32]) -> Self {
        Self {
            link,
            signers: BTreeSet::from([link.signer]),
            limits,
            secret: Zeroizing::new(secret),
            windows: BTreeMap::new(),
            current: None,
            ended: false,
            end_said: None,
            tickets: VecDeque::with_capacity(4 * MAX_TICKETS),
            base: 0,
            signed: 0,
            acked: 0,
            list_start: 0,
            generation: 0,
            void: 0,
            list: AckList::new(),
            signed_hash: AckList::new().hash(),
            acked_list: AckList::new(),
            pending: VecDeque::new(),
            scratch: Vec::with_capacity(MAX_TICKETS),
            events: Gated::default(),
            unsigned_by_issuer: None,
            agreed: false,
            answered: false,
            intact: false,
            session: 0,
        }
    }

    /// A link after a restart. Winners that were on disk are kept, and what was claimed is claimed again; what was not
    /// signed or not opened is lost, and a new window is opened.
    #[must_use]
    pub fn restore(
        link: RecipientLink,
        limits: Limits,
        secret: [u8; 32],
        kept: &Restore,
        now: Now,
        books: &mut Books,
    ) -> Self {
        let mut recipient = Self::new(link, limits, secret);
        let ours = kept
            .windows
            .iter()
            .filter(|((issuer, _), record)| *issuer == link.issuer && record.class == link.class);
        for ((_, number), record) in ours {
            let place = (link.issuer, *number);
            let mut window = recipient.window(*number, now, books);
            window.restored = true;
            window.claimed = record.claimed;
            let accepted = kept.accepted.range((place, 0)..=(place, u8::MAX));
            window.accepted.extend(accepted.map(|((_, at), digest)| (*at, *digest)));
            for ((_, at), batch) in kept.won.range((place, 0)..=(place, u8::MAX)) {
                let winners = kept.winners_of(place, *at).to_vec();
                // Earlier versions kept those with winners alone.
                window.accepted.entry(*at).or_insert_with(|| batch.header.digest(&books.domain));
                if winners.is_empty() {
                    continue;
                }
                window.winners += u32::try_from(winners.len()).unwrap_or(u32::MAX);
                let header = &batch.header;
                let (number, count, salt) = (header.number, header.count, header.salt);
                let claim = BatchClaim { number, count, salt, signature: batch.signature, winners };
                window.won.insert(*at, claim);
            }
            window.next = window.accepted.last_key_value().map_or(0, |(at, _)| u16::from(*at) + 1);
            let winners = link.winners(window.winners);
            books.credit(link.issuer).won(winners.value);
            books.ledger.with(link.issuer).win(winners);
            window.counted = window.winners;
            if window.claimed {
                window.claim_counted = true;
                books.ledger.with(link.issuer).claim(winners);
                recipient.events.push(&books.journal, Event::Claim(link.claim(*number, &window)));
            }
            recipient.windows.insert(*number, window);
        }
        recipient
    }

    /// These keys sign for the issuer from now on, and no others. What was accepted before stays: it is here, and its signature is
    /// in the claim.
    pub fn set_signers(&mut self, signers: impl IntoIterator<Item = Address>) {
        self.signers.clear();
        self.signers.extend(signers);
    }

    /// Our list: how many packets we acknowledged since both sides agreed last, and their hash.
    #[must_use]
    pub const fn list(&self) -> AckList {
        self.list
    }

    /// Tickets that are acknowledged and not signed.
    #[must_use]
    pub fn unsigned(&self) -> usize {
        usize::try_from(self.end() - self.signed).unwrap_or(usize::MAX)
    }

    /// The window whose commitment was sent last.
    #[must_use]
    pub const fn current_window(&self) -> Option<WindowNumber> {
        self.current
    }

    /// Whether the machine has nothing left to claim or to be paid. Who has gone signs nothing any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        (self.unsigned() == 0 || !self.agreed)
            && self.pending.is_empty()
            && self.windows.values().all(|window| window.won.is_empty())
    }

    fn end(&self) -> u64 {
        self.base + self.tickets.len() as u64
    }

    fn index(&self, ticket: u64) -> Option<usize> {
        usize::try_from(ticket.checked_sub(self.base)?).ok().filter(|at| *at < self.tickets.len())
    }

    /// What one ticket is worth on average, rounded up.
    fn ticket_value(&self) -> u128 {
        self.link.price.expected_value(1)
    }

    /// Whether a packet of this issuer would be worked for. Ask before its header is processed.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn may_accept(&self, now: Now, books: &mut Books) -> Result<(), Refused> {
        if !self.agreed {
            return Err(Refused::NoAgreement);
        }
        if self.current.is_none() || self.ended {
            return Err(Refused::NoWindow);
        }
        if now.unix < self.link.price.valid_from || now.unix > self.link.price.expiry {
            return Err(Refused::Class);
        }
        if self.unsigned() >= MOST_UNSIGNED {
            return Err(Refused::Unsigned);
        }
        if !books.credit(self.link.issuer).allows(self.link.price.face_value) {
            return Err(Refused::Guarantee);
        }
        Ok(())
    }

    /// How many more packets of this issuer would be worked for, if nothing else happens.
    #[must_use]
    pub fn room(&self, now: Now, books: &mut Books) -> u64 {
        if self.may_accept(now, books).is_err() {
            return 0;
        }
        let places = MOST_UNSIGNED.saturating_sub(self.unsigned()) as u64;
        places.min(books.credit(self.link.issuer).room(self.link.price.face_value, self.ticket_value()))
    }

    /// We acknowledge a packet: its ticket goes to the end of the list. Its check was verified before.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; then it must not be acknowledged.
    pub fn accept(
        &mut self,
        now: Now,
        books: &mut Books,
        packet: PacketId,
        challenge: Challenge,
        secret: Secret,
        ack: Ack,
    ) -> Result<TicketId, Refused> {
        self.may_accept(now, books)?;
        if packet.session < self.session {
            return Err(Refused::NoAgreement);
        }
        let state = match secret {
            Secret::Own(own, next) => State::Waiting(own, next),
            Secret::Opener(opener) if opener.opens(&challenge) => State::Open(opener),
            Secret::Opener(_) => return Err(Refused::NotOpening),
        };
        let id = TicketId { number: self.end(), generation: self.generation };
        self.list.push(&challenge);
        let (hash, generation) = (self.list.hash(), self.generation);
        self.tickets.push_back(Ticket { packet, challenge, ack, state, hash, generation });
        if let Some(window) = self.current.and_then(|current| self.windows.get_mut(&current)) {
            window.last = now.time;
        }
        books.credit(self.link.issuer).open(self.ticket_value());
        books.ledger.with(self.link.issuer).list();
        Ok(id)
    }

    /// Appends up to `most` acknowledgements that were not handed out yet, in order, and returns the list behind them: the
    /// content of an ack frame.
    pub fn take_acks(&mut self, most: usize, acks: &mut Vec<PacketAck>) -> AckList {
        if !self.answered {
            return self.acked_list;
        }
        let from = self.index(self.acked).unwrap_or(self.tickets.len());
        for ticket in self.tickets.iter().skip(from).take(most) {
            acks.push(PacketAck { packet: ticket.packet, ack: ticket.ack.clone() });
            self.acked += 1;
            self.acked_list = AckList::restore(self.acked - self.list_start, ticket.hash);
        }
        self.acked_list
    }

    /// The next hop acknowledged the packet of this ticket.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn opened(
        &mut self,
        id: TicketId,
        ack: &Ack,
        books: &mut Books,
        openings: &mut Openings,
    ) -> Result<(), OpenError> {
        let at = self.index(id.number).ok_or(OpenError::Gone)?;
        let previous = self.link.previous;
        let ticket = &mut self.tickets[at];
        let State::Waiting(own, next) = &ticket.state else { return Err(OpenError::Gone) };
        if ticket.generation != id.generation {
            return Err(OpenError::Gone);
        }
        let (opener, next) = (own.opener(ack), *next);
        let opens = opener.opens(&ticket.challenge);
        openings.count(previous, next, opens);
        ticket.state = if opens { State::Open(opener) } else { State::Done };
        if id.number >= self.signed {
            if !opens {
                // Its place on the list remains; whether it opened is nobody's business.
                books.credit(self.link.issuer).close(self.ticket_value());
            }
        } else if let Some(pending) = self.pending_of(id.number) {
            if opens {
                self.evaluate(pending, at, None, books);
            } else {
                self.pending[pending].waiting -= 1;
                self.give_up(books);
            }
            self.release();
        }
        if opens { Ok(()) } else { Err(OpenError::NotOpening) }
    }

    fn pending_of(&self, ticket: u64) -> Option<usize> {
        self.pending.partition_point(|pending| pending.start <= ticket).checked_sub(1)
    }

    fn give_up(&self, books: &mut Books) {
        books.credit(self.link.issuer).close(self.ticket_value());
        books.ledger.with(self.link.issuer).give_up();
    }

    /// A ticket of a signed batch is open: whether it wins. `draw`: if that was drawn already.
    fn evaluate(&mut self, pending: usize, at: usize, draw: Option<Draw>, books: &mut Books) {
        let State::Open(opener) = core::mem::replace(&mut self.tickets[at].state, State::Done) else {
            return;
        };
        let pending = &mut self.pending[pending];
        pending.waiting -= 1;
        let header = pending.batch.header;
        books.credit(self.link.issuer).close(self.link.price.expected_value(1));
        books.ledger.with(self.link.issuer).open();
        let place = (self.base + at as u64).saturating_sub(pending.start);
        let (Ok(k), Some(window)) = (u8::try_from(place), self.windows.get_mut(&header.window)) else {
            return;
        };
        let probability = self.link.price.win_probability;
        // Beyond what a claim holds, which only an issuer reaches that goes on though the next window is open.
        if window.claimed
            || window.winners >= MOST_CLAIMED
            || !draw.map_or_else(
                || wins(&pending.digest, k, &opener, &window.randomness, probability),
                |draw| draw.wins(probability),
            )
        {
            return;
        }
        let from = at - usize::from(k);
        self.scratch.clear();
        let leaves = self.tickets.iter().skip(from).take(header.count.get().into());
        self.scratch.extend(leaves.map(|ticket| ticket.challenge));
        let Ok(path) = merkle::path(&self.scratch, k) else { return };
        let winner = WinnerClaim { k, opener, siblings: path.to_vec() };
        let claim = window.won.entry(header.number).or_insert_with(|| {
            books.journal.put_won(&pending.batch);
            BatchClaim {
                number: header.number,
                count: header.count,
                salt: header.salt,
                signature: pending.batch.signature,
                winners: Vec::new(),
            }
        });
        books.journal.put_winner(&pending.batch, &winner);
        let place = claim.winners.partition_point(|other| other.k < k);
        claim.winners.insert(place, winner);
        window.winners += 1;
        books.credit(self.link.issuer).won(self.link.price.face_value);
        let event = Event::Won { window: header.window, value: self.link.price.face_value };
        self.events.push(&books.journal, event);
    }

    /// Forgets tickets at the front that are done.
    fn release(&mut self) {
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.waiting == 0) {
            let end = pending.start + u64::from(pending.batch.header.count.get());
            while self.base < end && self.tickets.pop_front().is_some() {
                self.base += 1;
            }
        }
    }

    /// The issuer confirms the end of a window.
    pub fn closed(&mut self, window: WindowNumber, batches: u16) {
        if let Some(window) = self.windows.get_mut(&window) {
            // Never fewer than we have, and the first word counts.
            window.closed.get_or_insert(batches.max(window.next));
        }
    }

    /// No window follows: the epoch ends, or we do. Call [`handle_timeout`](Self::handle_timeout) until everything is claimed.
    pub fn finish(&mut self, books: &Books) {
        self.ended = true;
        if let Some(window) = self.current {
            self.events.push(&books.journal, Event::Message(RecipientMessage::End { window }));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called again, as far as that depends on the monotonic clock. Call
    /// it now and then anyway: expiry is by the chain's.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let settled_after = self.limits.settled_after;
        let pending = self.pending.front().map(|pending| pending.since + settled_after);
        let current = self.current.and_then(|current| self.windows.get(&current));
        let life =
            current.filter(|_| !self.ended).and_then(|window| window.first).map(|first| first + WINDOW_LIFE);
        let open = self.windows.values().filter(|window| !window.claimed && window.is_complete());
        let claims = open.map(|window| window.last + settled_after);
        claims.chain(pending).chain(life).min()
    }

    /// The next thing to send, to count or to claim.
    pub fn poll_event(&mut self, books: &mut Books) -> Option<Event> {
        let event = self.events.pop(&books.journal)?;
        let account = books.ledger.with(self.link.issuer);
        match &event {
            Event::Message(RecipientMessage::Resumed { .. }) => self.answered = self.agreed,
            Event::Message(_) => {}
            Event::Won { window, value } => {
                if let Some(window) = self.windows.get_mut(window) {
                    window.counted += 1;
                    account.win(Winners { tickets: 1, value: *value });
                }
            }
            Event::Claim(claim) => {
                let window = self.windows.get_mut(&claim.window);
                if let Some(window) = window.filter(|window| !window.claim_counted) {
                    window.claim_counted = true;
                    account.claim(self.link.winners(window.counted));
                }
            }
        }
        Some(event)
    }
}

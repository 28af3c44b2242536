//! The paying side of one link under one key epoch.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::Address;
use thiserror::Error;
use tombola_mixing::{Rng, Time};

use crate::ack_list::AckList;
use crate::batch::{BatchHeader, Salt, SignedBatch};
use crate::books::{Books, Now};
use crate::class::{ClassNumber, PriceClass};
use crate::credit::MOST_UNSIGNED;
use crate::journal::Gated;
use crate::lottery::{Commitment, WindowNumber};
use crate::merkle::{self, MAX_TICKETS, TicketCount};
use crate::messages::{IssuerMessage, PacketAck, PacketId};
use crate::por::{AckCheck, Challenge};
use crate::records::{IssuedRecord, Restore};
use crate::signature::SignerKey;

/// A batch closes so long after its first ticket at the latest.
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// A packet that is not acknowledged after so long never will be.
const ACK_WITHIN: Duration = Duration::from_secs(30);
/// Signed batches that the recipient has not received.
const MOST_UNRECEIVED: usize = 4;
const _: () = assert!(MOST_UNSIGNED <= MOST_UNRECEIVED * MAX_TICKETS);
/// Batches of a window.
const MOST_BATCHES: u16 = 256;
/// Windows of a link that hold a batch and are neither claimed nor expired.
const MOST_WINDOWS: usize = 4096;
/// What the recipient has to answer is waited for so long at first; then both agree again, because the answer or what it answers was
/// lost. Each time that is of no use it is waited for twice as long, up to the last.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_PATIENCE: Duration = Duration::from_secs(160);
/// So many tickets are set aside of the deposit at a time.
const RESERVE: u64 = 32;

/// Between whom, and what a ticket is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerLink {
    /// Our account on the chain.
    pub issuer: Address,
    /// Who is paid.
    pub recipient: Address,
    /// The class of the packets' key.
    pub class: ClassNumber,
    /// What it says.
    pub price: PriceClass,
}

/// Why no packet may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stop {
    /// The recipient has sent no commitment, or wants the window to end.
    #[error("there is no window")]
    NoWindow,
    /// The list has to be agreed on first, or the link is down.
    #[error("the list is not agreed on")]
    NoAgreement,
    /// As much as the recipient works for on credit is unsigned, packets on their way and batches that were not handed out included.
    #[error("as many tickets are unsigned as the recipient works for on credit")]
    Unsigned,
    /// Four signed batches were not received.
    #[error("four signed batches were not received")]
    Unreceived,
    /// More could win than the deposit is worth.
    #[error("the deposit is used up")]
    Deposit,
    /// Tickets of the class are worth nothing now.
    #[error("the class is not valid now")]
    Class,
    /// Numbers of packets grow.
    #[error("a packet has the number of an earlier one")]
    Number,
}

/// What a recipient did that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IssuerError {
    /// An acknowledgement of a packet that was not sent, or was acknowledged; below the highest number that was given up this cannot
    /// be told from [`IssuerError::Late`].
    #[error("an acknowledgement belongs to no packet")]
    UnknownPacket,
    /// An acknowledgement of a packet that was given up: it was held back, got lost, or its hop is slow. The packet cannot be listed any
    /// more, so that the lists differ.
    ///
    /// Only the highest number that was given up is remembered, and since this issuer was made. So this is said of every number up to
    /// that one which waits for no acknowledgement: also of what was acknowledged before, and of what was never sent. Whoever names
    /// those gains nothing, since nothing is listed; how often it may is for the caller to bound.
    #[error("an acknowledgement came too late")]
    Late,
    /// The acknowledgement of the first hop is not the one that the client told.
    #[error("an acknowledgement does not match its check")]
    WrongAck,
    /// The recipient has acknowledged more than came here: it says so again when both agree again, and the list stands.
    #[error("acknowledgements are missing")]
    Missing,
    /// Count or hash of the list is another one than ours. Nothing is signed until both have agreed again.
    #[error("the lists differ")]
    OtherList,
    /// Acknowledgements came before the list was agreed on: they were on their way. They are repeated, or void.
    #[error("the list is not agreed on")]
    NoAgreement,
    /// A commitment for a window that is not above all earlier ones, or another one for the same window.
    /// [`Issuer::resume`] tells the recipient the highest one, above which it opens another.
    #[error("a commitment to a window that was used")]
    OldWindow,
    /// Too many windows are neither claimed nor expired.
    #[error("more than {MOST_WINDOWS} windows are open")]
    Windows,
    /// It says that it received what was not signed.
    #[error("batches were received that were not signed")]
    UnknownBatch,
}

/// What was said, and is not answered. While it is the same, it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The answer to `resume` of this session.
    Answer(u64),
    /// That this batch was received.
    Received(WindowNumber, u8),
    /// A commitment, without which nothing can be signed.
    Commitment,
}

#[derive(Debug)]
struct Sent {
    packet: PacketId,
    challenge: Challenge,
    check: Option<AckCheck>,
    at: Time,
    listed: bool,
    /// Counted as withheld.
    late: bool,
}

/// The paying side of one link under one key epoch: challenges of packets on their way, the list of those that the
/// recipient acknowledged, and the batches signed of it.
///
/// Drive it so: [`send`](Self::send) before each packet; hand over what the recipient says; call
/// [`sign`](Self::sign) and [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout) and after acknowledgements; then write
/// the journal down, and send what [`poll_message`](Self::poll_message) yields. A batch comes out when it is durable.
///
/// **Bound.** [`MOST_UNSIGNED`] tickets, sent or listed; four batches; a record of each window until it is claimed or expires.
#[derive(Debug)]
pub struct Issuer {
    link: IssuerLink,
    windows: BTreeMap<WindowNumber, IssuedRecord>,
    current: Option<WindowNumber>,
    ending: bool,
    sent: VecDeque<Sent>,
    in_flight: usize,
    last: Option<PacketId>,
    leaves: Vec<Challenge>,
    first: Time,
    list: AckList,
    agreed: bool,
    /// Until both have agreed again.
    down: bool,
    intact: bool,
    reserved: u64,
    unreceived: VecDeque<SignedBatch>,
    messages: Gated<IssuerMessage>,
    session: u64,
    /// The answer to the last `resume` has not come.
    asked: bool,
    /// Since when none has come, also to those before it.
    unanswered: Option<Time>,
    withheld: u64,
    /// The last packet that was given up. Those before were too, or are listed.
    given_up: Option<PacketId>,
    awaited: Option<Awaited>,
    /// Since when.
    since: Time,
    patience: Duration,
}

impl Issuer {
    /// A link that has never been. A new one is agreed on by [`resume`](Self::resume), as after a restart.
    #[must_use]
    pub fn new(link: IssuerLink) -> Self {
        Self {
            link,
            windows: BTreeMap::new(),
            current: None,
            ending: false,
            sent: VecDeque::with_capacity(MOST_UNSIGNED),
            in_flight: 0,
            last: None,
            leaves: Vec::with_capacity(MOST_UNSIGNED),
            first: Time::MAX,
            list: AckList::new(),
            agreed: false,
            down: true,
            intact: false,
            reserved: 0,
            unreceived: VecDeque::with_capacity(MOST_UNRECEIVED),
            messages: Gated::default(),
            session: 0,
            asked: false,
            unanswered: None,
            withheld: 0,
            given_up: None,
            awaited: None,
            since: Time::MAX,
            patience: PATIENCE,
        }
    }

    /// A link after a restart: windows go on behind the last batch that was signed, the unsigned list is void.
    #[must_use]
    pub fn restore(link: IssuerLink, kept: &Restore, books: &mut Books) -> Self {
        let mut issuer = Self::new(link);
        for ((_, number), record) in kept
            .issued
            .iter()
            .filter(|((to, _), record)| *to == link.recipient && record.class == link.class)
            .map(|(place, record)| (*place, *record))
        {
            let place = (link.recipient, number);
            let mut record = record;
            for (_, batch) in kept.signed.range((place, 0)..=(place, u8::MAX)) {
                // The journal may have ended before the window counted it.
                if u16::from(batch.header.number) >= record.batches {
                    record.batches = u16::from(batch.header.number) + 1;
                    record.tickets += u32::from(batch.header.count.get());
                }
                issuer.unreceived.push_back(*batch);
            }
            if kept.issued.get(&place) != Some(&record) {
                // Before the batch can be received and forgotten: its number is used.
                books.journal.put_issued(&link.recipient, number, &record);
            }
            books.solvency.signed(link.recipient, number, link.class, &link.price, record.tickets.into());
            books.ledger.with(link.recipient).issue(record.tickets.into());
            issuer.windows.insert(number, record);
            if !record.closed {
                issuer.current = Some(number);
            }
        }
        issuer
    }

    /// Packets that were not acknowledged within half a minute.
    #[must_use]
    pub const fn withheld(&self) -> u64 {
        self.withheld
    }

    /// The list that the recipient acknowledged and that is not signed yet.
    #[must_use]
    pub fn unsigned(&self) -> &[Challenge] {
        &self.leaves
    }

    /// Packets that are not acknowledged yet.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a packet may be sent.
    ///
    /// # Errors
    ///
    /// See [`Stop`]. Nothing is dropped: what cannot be sent waits.
    pub fn may_send(&mut self, now: Now, books: &mut Books) -> Result<(), Stop> {
        // What was agreed on holds when the link is back: until then whatever is sent goes nowhere.
        if !self.agreed || self.down {
            return Err(Stop::NoAgreement);
        }
        if self.current.is_none() || self.ending {
            return Err(Stop::NoWindow);
        }
        if now.unix < self.link.price.valid_from || now.unix > self.link.price.expiry {
            return Err(Stop::Class);
        }
        if self.unreceived.len() >= MOST_UNRECEIVED {
            return Err(Stop::Unreceived);
        }
        if self.outstanding() >= MOST_UNSIGNED {
            return Err(Stop::Unsigned);
        }
        if (self.open() as u64) < self.reserved {
            return Ok(());
        }
        for tickets in [RESERVE, 1] {
            if books.solvency.reserve(self.link.class, &self.link.price, tickets) {
                self.reserved += tickets;
                return Ok(());
            }
        }
        Err(Stop::Deposit)
    }

    /// Tickets that were sent or listed, and are not signed.
    fn open(&self) -> usize {
        self.in_flight + self.leaves.len()
    }

    /// Tickets for which the recipient has no signature yet: what is signed counts for it only when it has it.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let signed = self.unreceived.iter().map(|batch| usize::from(batch.header.count.get()));
        self.open() + signed.sum::<usize>()
    }

    /// Before a packet is sent. `check` is that of the first link: the acknowledgement must match it.
    ///
    /// # Errors
    ///
    /// See [`Stop`]; then it must not be sent.
    pub fn send(
        &mut self,
        now: Now,
        books: &mut Books,
        packet: PacketId,
        challenge: Challenge,
        check: Option<AckCheck>,
    ) -> Result<(), Stop> {
        self.may_send(now, books)?;
        if self.last.is_some_and(|last| last >= packet) {
            return Err(Stop::Number);
        }
        self.last = Some(packet);
        if self.sent.len() >= 2 * MOST_UNSIGNED {
            // Those that are listed stayed behind one that is waited for.
            self.sent.retain(|sent| !sent.listed);
        }
        self.sent.push_back(Sent { packet, challenge, check, at: now.time, listed: false, late: false });
        self.in_flight += 1;
        Ok(())
    }

    /// An ack frame: what the recipient acknowledges, in its order, and its list behind that. Opening our own tickets with
    /// it is for the caller.
    ///
    /// # Errors
    ///
    /// See [`IssuerError`]. What came before the error is listed; afterwards nothing is signed until both have agreed.
    pub fn acknowledged(&mut self, now: Now, acks: &[PacketAck], list: &AckList) -> Result<(), IssuerError> {
        if !self.agreed {
            return Err(IssuerError::NoAgreement);
        }
        if list.count() > self.list.count().saturating_add(acks.len() as u64) {
            self.agreed = false;
            return Err(IssuerError::Missing);
        }
        let found = acks
            .iter()
            .try_for_each(|ack| self.list(now, ack))
            .and_then(|()| if self.list == *list { Ok(()) } else { Err(IssuerError::OtherList) });
        if found.is_err() {
            self.agreed = false;
            self.intact = false;
        }
        found
    }

    fn list(&mut self, now: Now, ack: &PacketAck) -> Result<(), IssuerError> {
        let at = self.sent.binary_search_by_key(&ack.packet, |sent| sent.packet);
        let sent = at.ok().and_then(|at| self.sent.get_mut(at)).filter(|sent| !sent.listed);
        let late = self.given_up.is_some_and(|last| ack.packet <= last);
        let sent = sent.ok_or(if late { IssuerError::Late } else { IssuerError::UnknownPacket })?;
        if sent.check.is_some_and(|check| ack.ack.verify(&check).is_err()) {
            return Err(IssuerError::WrongAck);
        }
        sent.listed = true;
        self.list.push(&sent.challenge);
        if self.leaves.is_empty() {
            self.first = now.time;
        }
        self.leaves.push(sent.challenge);
        self.in_flight -= 1;
        while self.sent.pop_front_if(|sent| sent.listed).is_some() {}
        Ok(())
    }

    /// Opens a window, and closes the one before.
    ///
    /// # Errors
    ///
    /// [`IssuerError::OldWindow`], [`IssuerError::Windows`].
    pub fn commitment(
        &mut self,
        window: WindowNumber,
        commitment: Commitment,
        books: &mut Books,
    ) -> Result<(), IssuerError> {
        if let Some(known) = self.windows.get(&window) {
            return if known.commitment == commitment { Ok(()) } else { Err(IssuerError::OldWindow) };
        }
        if self.windows.len() >= MOST_WINDOWS {
            return Err(IssuerError::Windows);
        }
        if !books.commit(self.link.recipient, window) {
            return Err(IssuerError::OldWindow);
        }
        let former = self.current;
        self.close(books);
        let record =
            IssuedRecord { class: self.link.class, commitment, batches: 0, tickets: 0, closed: false };
        books.journal.put_issued(&self.link.recipient, window, &record);
        self.windows.insert(window, record);
        self.current = Some(window);
        // Of a window without batches only its number had to be known.
        if let Some(former) =
            former.filter(|former| self.windows.get(former).is_some_and(|record| record.batches == 0))
        {
            self.windows.remove(&former);
            books.journal.delete_issued(&self.link.recipient, former);
        }
        self.ending = false;
        Ok(())
    }

    /// The recipient wants the window to end, and opens no other. What is on its way is waited for. If the last window has ended, it is
    /// told so again.
    pub fn end(&mut self, window: WindowNumber, books: &Books) {
        self.ending |= self.current == Some(window);
        let last = self.windows.last_key_value().filter(|(last, record)| **last == window && record.closed);
        let Some(batches) = last.map(|(_, record)| record.batches) else { return };
        let closed = IssuerMessage::Closed { window, batches };
        if !self.messages.iter().any(|message| *message == closed) {
            self.messages.push(&books.journal, closed);
        }
    }

    /// All batches of the window before `next` were received.
    ///
    /// # Errors
    ///
    /// [`IssuerError::UnknownBatch`].
    pub fn received(
        &mut self,
        window: WindowNumber,
        next: u16,
        books: &mut Books,
    ) -> Result<(), IssuerError> {
        if self.windows.get(&window).is_some_and(|record| record.batches < next) {
            return Err(IssuerError::UnknownBatch);
        }
        let recipient = self.link.recipient;
        self.unreceived.retain(|batch| {
            let header = &batch.header;
            let received = header.window == window && u16::from(header.number) < next;
            if received {
                books.journal.delete_signed(&recipient, window, header.number);
            }
            !received
        });
        Ok(())
    }

    /// Signs a batch if one is full, or ten seconds old, or the last of its window. Says whether one was signed; then
    /// another may be due.
    pub fn sign(&mut self, now: Now, books: &mut Books, key: &SignerKey, rng: &mut Rng) -> bool {
        let Some(window) = self.current.filter(|_| self.is_due(now)) else { return false };
        let Some(record) = self.windows.get_mut(&window) else { return false };
        let tickets = self.leaves.len().min(MAX_TICKETS);
        let (Ok(number), Ok(count), Ok(root)) =
            (u8::try_from(record.batches), TicketCount::new(tickets), merkle::root(&self.leaves[..tickets]))
        else {
            return false;
        };
        let mut salt = [0; Salt::LEN];
        rng.fill(&mut salt);
        let batch = BatchHeader {
            issuer: self.link.issuer,
            recipient: self.link.recipient,
            class: self.link.class,
            window,
            number,
            count,
            commitment: record.commitment,
            root,
            salt: Salt::from_bytes(salt),
        }
        .sign(&books.domain, key);
        record.batches += 1;
        record.tickets += u32::from(count.get());
        books.journal.put_signed(&batch);
        books.journal.put_issued(&self.link.recipient, window, record);
        if count == TicketCount::MAX {
            books.journal.hurry();
        }

        let tickets = u64::from(count.get());
        let promised = self.reserved.min(tickets);
        self.reserved -= promised;
        books.solvency.release(self.link.class, promised);
        books.solvency.signed(self.link.recipient, window, self.link.class, &self.link.price, tickets);
        books.ledger.with(self.link.recipient).issue(tickets);
        self.leaves.drain(..usize::from(count.get()));
        self.first = if self.leaves.is_empty() { Time::MAX } else { now.time };
        self.unreceived.push_back(batch);
        self.messages.push(&books.journal, IssuerMessage::Batch(batch));
        true
    }

    /// Whether the time alone decides when a batch closes.
    fn can_sign(&self) -> bool {
        let batches = self.current.and_then(|window| self.windows.get(&window)).map(|record| record.batches);
        self.agreed
            && batches.is_some_and(|batches| batches < MOST_BATCHES)
            && self.unreceived.len() < MOST_UNRECEIVED
            && !self.leaves.is_empty()
    }

    fn is_due(&self, now: Now) -> bool {
        let last = self.ending && self.in_flight == 0;
        self.can_sign()
            && now.unix <= self.link.price.expiry
            && (self.leaves.len() >= MAX_TICKETS || now.time >= self.first + CLOSE_AFTER || last)
    }

    /// Gives up packets that were not acknowledged, answers the end of a window, forgets what has expired.
    pub fn handle_timeout(&mut self, now: Now, books: &mut Books) {
        self.watch(now);
        self.count_late(now);
        // While the link is down no acknowledgement can come.
        while self.agreed
            && !self.down
            && let Some(sent) = self.sent.pop_front_if(|sent| sent.listed || now.time >= sent.at + ACK_WITHIN)
        {
            if !sent.listed {
                self.withheld += u64::from(!sent.late);
                self.in_flight -= 1;
                self.given_up = Some(sent.packet);
            }
        }
        if self.ending && self.in_flight == 0 && self.leaves.is_empty() {
            self.close(books);
        }
        if now.unix > self.link.price.expiry {
            self.close(books);
            for (window, mut record) in core::mem::take(&mut self.windows) {
                books.ledger.with(self.link.recipient).lapse(record.tickets.into());
                books.keep_over(&self.link.recipient);
                if books.is_highest(&self.link.recipient, window) {
                    // Else its number could be used again after a restart.
                    record.tickets = 0;
                    books.journal.put_issued(&self.link.recipient, window, &record);
                    self.forget_batches(window, books);
                } else {
                    self.forget(window, books);
                }
            }
            books.solvency.expire(now.unix);
            self.leaves.clear();
            self.reserved = 0;
        }
    }

    /// Whoever does not answer either withholds what was sent before it was asked. It is still waited for: should the recipient answer, it
    /// may have it.
    fn count_late(&mut self, now: Now) {
        if !self.asked {
            self.unanswered = None;
            return;
        }
        if now.time < *self.unanswered.get_or_insert(now.time) + ACK_WITHIN {
            return;
        }
        for sent in self.sent.iter_mut().filter(|sent| !sent.listed && !sent.late) {
            sent.late = true;
            self.withheld += 1;
        }
    }

    fn awaited(&self, now: Now) -> Option<Awaited> {
        if self.asked {
            let said = !self.messages.iter().any(|message| matches!(message, IssuerMessage::Resume { .. }));
            return said.then_some(Awaited::Answer(self.session));
        }
        if !self.agreed || self.down || now.unix > self.link.price.expiry {
            return None;
        }
        let unsaid =
            self.messages.iter().filter(|message| matches!(message, IssuerMessage::Batch(_))).count();
        if let Some(batch) = self.unreceived.front().filter(|_| unsaid < self.unreceived.len()) {
            return Some(Awaited::Received(batch.header.window, batch.header.number));
        }
        let window = self.current.and_then(|window| self.windows.get(&window));
        window.is_none_or(|window| window.batches >= MOST_BATCHES).then_some(Awaited::Commitment)
    }

    fn watch(&mut self, now: Now) {
        let awaited = self.awaited(now);
        if awaited == self.awaited {
            return;
        }
        if matches!(self.awaited, Some(Awaited::Received(..))) && now.time < self.since + self.patience / 4 {
            self.patience = (self.patience / 2).max(PATIENCE);
        }
        self.awaited = awaited;
        self.since = now.time;
    }

    /// Whether something was lost on the link, by all that can be known: an answer does not come. Then [`resume`](Self::resume) heals it,
    /// with another session. Ask after [`handle_timeout`](Self::handle_timeout).
    pub fn wants_resume(&mut self, now: Now) -> bool {
        let wants = self.awaited.is_some() && now.time >= self.since + self.patience;
        if wants {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
            self.since = now.time;
        }
        wants
    }

    /// When [`sign`](Self::sign) and [`handle_timeout`](Self::handle_timeout) want to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let close = self.can_sign().then(|| self.first + CLOSE_AFTER);
        let oldest = self.sent.front().filter(|_| self.agreed && !self.down).map(|sent| sent.at + ACK_WITHIN);
        close.into_iter().chain(oldest).min()
    }

    /// The next thing to tell the recipient.
    pub fn poll_message(&mut self, books: &Books) -> Option<IssuerMessage> {
        self.messages.pop(&books.journal)
    }

    /// A window was claimed on the chain, for `spent`. Nothing is signed under it any more.
    pub fn claimed(&mut self, window: WindowNumber, spent: u128, books: &mut Books) {
        if self.current == Some(window) {
            self.close(books);
        }
        let Some(record) = self.windows.get_mut(&window) else { return };
        let tickets = core::mem::take(&mut record.tickets);
        books.solvency.claimed(self.link.recipient, window);
        books.ledger.with(self.link.recipient).redeem(tickets.into(), spent);
        books.keep_over(&self.link.recipient);
        if books.is_highest(&self.link.recipient, window) {
            // Else its number could be used again after a restart.
            books.journal.put_issued(&self.link.recipient, window, record);
            self.forget_batches(window, books);
        } else {
            self.windows.remove(&window);
            self.forget(window, books);
        }
    }

    fn forget(&mut self, window: WindowNumber, books: &mut Books) {
        self.forget_batches(window, books);
        books.journal.delete_issued(&self.link.recipient, window);
    }

    fn forget_batches(&mut self, window: WindowNumber, books: &mut Books) {
        let recipient = self.link.recipient;
        self.unreceived.retain(|batch| {
            let gone = batch.header.window == window;
            if gone {
                books.journal.delete_signed(&recipient, window, batch.header.number);
            }
            !gone
        });
        self.messages.retain(
            |message| !matches!(message, IssuerMessage::Batch(batch) if batch.header.window == window),
        );
    }

    fn close(&mut self, books: &mut Books) {
        self.ending = false;
        let Some(window) = self.current.take() else { return };
        let Some(record) = self.windows.get_mut(&window) else { return };
        record.closed = true;
        books.journal.put_issued(&self.link.recipient, window, record);
        self.messages.push(&books.journal, IssuerMessage::Closed { window, batches: record.batches });
    }

    /// The link is gone. Nothing is given up until both have agreed on the list again: no acknowledgement can come.
    pub const fn disconnected(&mut self) {
        self.down = true;
        self.asked = false;
        self.unanswered = None;
        self.patience = PATIENCE;
    }

    /// The link is new, or new again: signed batches that were not received come again byte for byte, then the ends of
    /// windows, then what we have of the list. `session` is greater than all before.
    pub fn resume(&mut self, session: u64, books: &Books) {
        // What was not sent on the former link comes again too, and in order.
        self.messages = Gated::default();
        for batch in &self.unreceived {
            self.messages.push(&books.journal, IssuerMessage::Batch(*batch));
        }
        for (window, record) in self.windows.iter().filter(|(_, record)| record.closed) {
            let message = IssuerMessage::Closed { window: *window, batches: record.batches };
            self.messages.push(&books.journal, message);
        }
        let highest = books.highest(&self.link.recipient);
        let resume = IssuerMessage::Resume { session, intact: self.intact, list: self.list, highest };
        self.messages.push(&books.journal, resume);
        self.agreed = false;
        self.asked = true;
        self.session = session;
    }

    /// The recipient's answer; one to an earlier session says nothing. If the list is void, so is what is on its way.
    /// The first answer to a session counts.
    pub fn resumed(&mut self, now: Now, session: u64, void: bool, books: &mut Books) {
        if session != self.session || !core::mem::replace(&mut self.asked, false) {
            return;
        }
        // What is on its way has its time from now on.
        self.sent.iter_mut().for_each(|sent| sent.at = now.time);
        if void {
            self.leaves.clear();
            self.sent.clear();
            self.in_flight = 0;
            self.list = AckList::new();
            books.solvency.release(self.link.class, self.reserved);
            self.reserved = 0;
        }
        self.agreed = true;
        self.down = false;
        self.intact = true;
    }
}

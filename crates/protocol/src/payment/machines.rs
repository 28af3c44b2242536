//! The machines of an account: one issuer for each that we pay, one recipient for each that pays us, and price class.

use std::collections::{BTreeMap, VecDeque};

use tombola_mixing::Time;
use tombola_tickets::{
    Address, Books, ClassNumber, Event, Issuer, IssuerLink, IssuerMessage, Limits, MOST_UNSIGNED, Neighbour,
    Now, PacketId, PriceClass, Recipient, RecipientLink, RecipientMessage, Restore, UnixSeconds, WindowClaim,
    WindowNumber,
};

use super::{Account, Owed, PaymentCounts, Side, Signs, Terms};
use crate::control::{ControlWriter, Record};
use crate::frame::Parity;

/// Packets whose acknowledgement is waited for. Twice what an issuer has unsigned.
const SENT_MAX: usize = 2 * MOST_UNSIGNED;
/// An acknowledgement that has not come by then does not open anything: the issuer has given the packet up.
const SENT_LIFE: core::time::Duration = core::time::Duration::from_secs(35);
/// Messages that wait for a control slot. Only a neighbour that repeats itself brings more; those are lost on it.
const MESSAGES_MAX: usize = 256;
/// A class that has expired is forgotten so many seconds later.
const FORGOTTEN_AFTER: u32 = 3600;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Machines {
    pub(super) paying: BTreeMap<Terms, Paying>,
    pub(super) earning: BTreeMap<Terms, Earning>,
}

impl Machines {
    /// The link is gone, or these terms do not hold on it any more.
    pub(super) fn disconnected(&mut self, side: Side, terms: &Terms) {
        match side {
            Side::Paying => {
                if let Some(paying) = self.paying.get_mut(terms) {
                    paying.issuer.disconnected();
                }
            }
            Side::Earning => {
                if let Some(earning) = self.earning.get_mut(terms) {
                    earning.recipient.disconnected();
                    earning.messages.clear();
                    earning.answers = false;
                }
            }
        }
    }

    pub(super) fn paying_to(&mut self, recipient: &Address) -> impl Iterator<Item = &mut Paying> {
        self.paying.iter_mut().filter(|(terms, _)| terms.account == *recipient).map(|(_, paying)| paying)
    }

    pub(super) fn earning_from(&mut self, issuer: &Address) -> impl Iterator<Item = &mut Earning> {
        self.of_account(issuer).map(|(_, earning)| earning)
    }

    pub(super) fn of_account(&mut self, issuer: &Address) -> impl Iterator<Item = (&Terms, &mut Earning)> {
        let of = |class| Terms { account: *issuer, class: ClassNumber(class) };
        self.earning.range_mut(of(0)..=of(u32::MAX))
    }

    /// One that paid us has gone: forgets its machines in which nothing is to be waited for.
    pub(super) fn leave(&mut self, issuer: &Address, books: &mut Books) {
        let idle = |(terms, earning): (&Terms, &mut Earning)| {
            (earning.on_their_way == 0 && earning.recipient.leave(books)).then_some(*terms)
        };
        let idle: Vec<_> = self.of_account(issuer).filter_map(idle).collect();
        idle.iter().for_each(|terms| drop(self.earning.remove(terms)));
    }

    /// Something from one that pays us. Returns whether it is as it must be.
    pub(super) fn hear_issuer(
        &mut self,
        now: Now,
        terms: &Terms,
        message: IssuerMessage,
        books: &mut Books,
        counts: &mut PaymentCounts,
    ) -> bool {
        match message {
            IssuerMessage::Batch(batch) => {
                // A batch names its class: one that is sent again may be of an epoch whose parity is in use anew.
                let terms = Terms { class: batch.header.class, ..*terms };
                let Some(earning) = self.earning.get_mut(&terms) else { return false };
                match earning.recipient.batch(now, &batch, books) {
                    Ok(()) => {
                        counts.batches += 1;
                        true
                    }
                    Err(refused) => !refused.is_fault(),
                }
            }
            IssuerMessage::Closed { window, batches } => {
                if let Some(earning) = self.earning.get_mut(terms) {
                    earning.recipient.closed(window, batches);
                }
                true
            }
            IssuerMessage::Resume { session, intact, list, highest } => {
                if let Some(earning) = self.earning.get_mut(terms) {
                    earning.recipient.resume(now, session, intact, &list, highest, books);
                }
                true
            }
        }
    }

    /// Something from one that we pay. Returns whether it is as it must be.
    pub(super) fn hear_recipient(
        &mut self,
        now: Now,
        terms: &Terms,
        message: RecipientMessage,
        books: &mut Books,
    ) -> bool {
        let Some(paying) = self.paying.get_mut(terms) else { return false };
        let issuer = &mut paying.issuer;
        match message {
            RecipientMessage::Commitment { window, commitment } => {
                issuer.commitment(window, commitment, books).is_ok()
            }
            RecipientMessage::End { window } => {
                issuer.end(window, books);
                true
            }
            RecipientMessage::Received { window, next } => issuer.received(window, next, books).is_ok(),
            RecipientMessage::Resumed { session, void } => {
                issuer.resumed(now, session, void, books);
                true
            }
        }
    }

    /// Forgets machines whose class has long expired, unless they are `used`.
    pub(super) fn forget(&mut self, now: UnixSeconds, used: impl Fn(Side, &Terms) -> bool) {
        let over = |price: &PriceClass| now.0 > price.expiry.0.saturating_add(FORGOTTEN_AFTER);
        self.paying.retain(|terms, paying| !over(&paying.price) || used(Side::Paying, terms));
        self.earning.retain(|terms, earning| !over(&earning.price) || used(Side::Earning, terms));
    }
}

/// What we owe to one account, in one class.
#[derive(Debug)]
pub(super) struct Paying {
    pub(super) issuer: Issuer,
    price: PriceClass,
    /// What packets earn us that wait for their acknowledgement, in the order of their numbers.
    sent: VecDeque<(PacketId, Time, Option<Owed>)>,
}

impl Paying {
    pub(super) fn new(
        account: &Account,
        terms: Terms,
        price: PriceClass,
        kept: &Restore,
        books: &mut Books,
    ) -> Self {
        let link =
            IssuerLink { issuer: account.address, recipient: terms.account, class: terms.class, price };
        Self { issuer: Issuer::restore(link, kept, books), price, sent: VecDeque::new() }
    }

    /// A packet leaves, with what it may earn. Returns what is given up for it.
    pub(super) fn sent(&mut self, packet: PacketId, now: Time, owed: Owed) -> Option<Owed> {
        self.sent.push_back((packet, now, Some(owed)));
        (self.sent.len() > SENT_MAX).then(|| self.sent.pop_front()).flatten()?.2
    }

    /// What a packet earns that is acknowledged; once.
    pub(super) fn take(&mut self, packet: &PacketId) -> Option<Owed> {
        let at = self.sent.binary_search_by_key(packet, |(id, ..)| *id).ok()?;
        let owed = self.sent.get_mut(at)?.2.take();
        while self.sent.pop_front_if(|(.., owed)| owed.is_none()).is_some() {}
        owed
    }

    /// What was waited for too long.
    pub(super) fn take_old(&mut self, now: Time) -> Option<Owed> {
        while let Some((.., owed)) =
            self.sent.pop_front_if(|(_, since, owed)| owed.is_none() || now - *since > SENT_LIFE)
        {
            if owed.is_some() {
                return owed;
            }
        }
        None
    }
}

/// What one account owes us, in one class.
#[derive(Debug)]
pub(super) struct Earning {
    pub(super) recipient: Recipient,
    price: PriceClass,
    /// Of a client: packets that were passed on and that the first hop has not acknowledged.
    pub(super) on_their_way: usize,
    messages: VecDeque<RecipientMessage>,
    finished: bool,
    /// An answer to the issuer has come out that was not said yet.
    answers: bool,
}

impl Earning {
    #[expect(clippy::too_many_arguments, reason = "what it is made of; used once")]
    pub(super) fn new(
        account: &Account,
        terms: Terms,
        price: PriceClass,
        previous: Neighbour,
        limits: Limits,
        kept: &Restore,
        now: Now,
        books: &mut Books,
    ) -> Self {
        let link = RecipientLink {
            issuer: terms.account,
            signer: terms.account,
            recipient: account.address,
            class: terms.class,
            price,
            previous,
        };
        let recipient = Recipient::restore(link, limits, *account.secret, kept, now, books);
        Self { recipient, price, on_their_way: 0, messages: VecDeque::new(), finished: false, answers: false }
    }

    /// These keys sign for the issuer, besides its own.
    pub(super) fn set_signers(&mut self, issuer: Address, signers: &BTreeMap<Address, Signs>) {
        let price = &self.price;
        let others = signers.iter().filter(|(_, signs)| signs.covers(price)).map(|(signer, _)| *signer);
        self.recipient.set_signers([issuer].into_iter().chain(others));
    }

    /// Whether there is an answer to the issuer now; once.
    pub(super) fn take_answers(&mut self) -> bool {
        core::mem::take(&mut self.answers)
    }

    /// How many winners an amount has paid.
    pub(super) fn winners_for(&self, amount: u128) -> u32 {
        let winners = amount.checked_div(self.price.face_value).unwrap_or_default();
        u32::try_from(winners).unwrap_or(u32::MAX)
    }

    /// No window follows the one that is open.
    pub(super) fn finish_once(&mut self, books: &Books) {
        if !core::mem::replace(&mut self.finished, true) {
            self.recipient.finish(books);
        }
    }

    /// Takes what is handed out: messages wait for their slot. Returns the next claim; call until `None`.
    pub(super) fn collect(&mut self, books: &mut Books) -> Option<WindowClaim> {
        while let Some(event) = self.recipient.poll_event(books) {
            match event {
                Event::Message(message) => self.push(message),
                Event::Won { .. } => {}
                Event::Claim(claim) => return Some(claim),
            }
        }
        None
    }

    fn push(&mut self, message: RecipientMessage) {
        if let RecipientMessage::Received { window, .. } = message {
            // The last word counts.
            self.messages.retain(
                |earlier| !matches!(earlier, RecipientMessage::Received { window: of, .. } if *of == window),
            );
        }
        self.answers |= matches!(message, RecipientMessage::Resumed { .. });
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push_back(message);
        }
    }

    /// The first window to which a commitment waits for its slot.
    pub(super) fn first_commitment(&self) -> Option<WindowNumber> {
        self.messages.iter().find_map(|message| match message {
            RecipientMessage::Commitment { window, .. } => Some(*window),
            _ => None,
        })
    }

    /// Writes what there is to say, then acknowledgements: what they rest on goes before.
    pub(super) fn write(&mut self, parity: Parity, writer: &mut ControlWriter) {
        while writer.has_room() {
            let Some(message) = self.messages.pop_front() else { break };
            writer.push(&Record::Recipient(parity, message));
        }
        if !self.messages.is_empty() {
            return;
        }
        let room = writer.room_for_acks();
        if room > 0 {
            let mut acks = Vec::with_capacity(room);
            let list = self.recipient.take_acks(room, &mut acks);
            if !acks.is_empty() {
                writer.push(&Record::Acks(parity, acks, list));
            }
        }
    }
}

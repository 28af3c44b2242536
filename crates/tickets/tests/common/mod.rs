//! A link between an issuer and a recipient, with a store on either side that can be cut off anywhere.
#![allow(dead_code, reason = "each test uses a part of it")]

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use tombola_mixing::{Rng, Time};
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{
    Ack, Address, BatchRefused, Books, Challenge, Change, ClassNumber, Domain, EscrowView, Event, Issuer,
    IssuerError, IssuerLink, IssuerMessage, Limits, Neighbour, Now, Openings, PacketId, PriceClass,
    Recipient, RecipientLink, RecipientMessage, Refused, Restore, Secret, SignedBatch, SignerKey, Stop,
    Table, TicketId, UnixSeconds, WinProbability, WindowClaim, WindowNumber, por,
};

pub(crate) const CLASS: ClassNumber = ClassNumber(7);
pub(crate) const RECIPIENT: Address = Address::repeat_byte(2);
pub(crate) const PREVIOUS: Neighbour = Neighbour(1);
pub(crate) const NEXT: Neighbour = Neighbour(2);
pub(crate) const FACE: u128 = 1000;
pub(crate) const SECRET: [u8; 32] = [8; 32];
pub(crate) const START: u32 = 1_000_000;
pub(crate) const SETTLED: Duration = Duration::from_secs(20);
pub(crate) const LIMITS: Limits = Limits { settled_after: SETTLED, claim_before_expiry: 600 };

pub(crate) fn domain() -> Domain {
    Domain::new(31337, Address::repeat_byte(0xe5))
}

pub(crate) fn key() -> SignerKey {
    SignerKey::from_bytes(&[7; 32]).unwrap()
}

pub(crate) fn issuer() -> Address {
    key().address()
}

pub(crate) fn price() -> PriceClass {
    PriceClass {
        face_value: FACE,
        win_probability: WinProbability::MAX,
        valid_from: UnixSeconds(START - 10),
        expiry: UnixSeconds(START + 86_400),
        epoch: 1,
    }
}

pub(crate) fn issuer_link() -> IssuerLink {
    IssuerLink { issuer: issuer(), recipient: RECIPIENT, class: CLASS, price: price() }
}

pub(crate) fn recipient_link() -> RecipientLink {
    RecipientLink {
        issuer: issuer(),
        signer: issuer(),
        recipient: RECIPIENT,
        class: CLASS,
        price: price(),
        previous: PREVIOUS,
    }
}

/// What is on disk.
#[derive(Clone, Default)]
pub(crate) struct Store(pub(crate) BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Store {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { table, key, value } => {
                self.0.insert((table, key.into()), value.into());
            }
            Change::Delete { table, key } => {
                self.0.remove(&(table, key.into()));
            }
        }
    }

    pub(crate) fn restore(&self) -> Restore {
        let mut restore = Restore::default();
        for ((table, key), value) in &self.0 {
            restore.feed(*table, key, value).unwrap();
        }
        restore
    }
}

/// One process: its books and its disk.
pub(crate) struct Process {
    pub(crate) books: Books,
    pub(crate) store: Store,
    pub(crate) durable: u64,
}

impl Process {
    pub(crate) fn new(store: Store, deposit: u128) -> Self {
        let books = Books::restore(domain(), deposit, &store.restore());
        Self { books, store, durable: 0 }
    }

    /// Writes down up to `most` changes.
    pub(crate) fn commit(&mut self, most: usize) -> usize {
        let mut written = 0;
        while written < most
            && let Some(change) = self.books.journal.poll_change()
        {
            self.store.apply(change);
            self.durable += 1;
            written += 1;
        }
        self.books.journal.set_durable(self.durable);
        written
    }
}

/// An escrow in which issuers sign for themselves.
pub(crate) struct Escrow(pub(crate) Vec<WindowNumber>);

impl EscrowView for Escrow {
    fn class(&self, number: ClassNumber) -> Option<PriceClass> {
        (number == CLASS).then(price)
    }

    fn is_signer(&self, issuer: Address, signer: Address, _: &PriceClass) -> bool {
        issuer == signer
    }

    fn is_claimed(&self, _: Address, _: Address, window: WindowNumber) -> bool {
        self.0.contains(&window)
    }
}

/// A packet as its sender makes it.
pub(crate) fn packet(rng: &mut Rng) -> (RelaySecrets, Ack, Challenge) {
    let mut secret = || *rng.seed().first_chunk::<16>().unwrap();
    let hop = RelaySecrets { own: secret(), ack: secret(), chk: secret() };
    let next = Ack::from_bytes(secret());
    let challenge = por::opener(&hop, &next).challenge();
    (hop, next, challenge)
}

pub(crate) struct Link {
    pub(crate) time: Time,
    pub(crate) unix: UnixSeconds,
    pub(crate) rng: Rng,
    pub(crate) key: SignerKey,
    pub(crate) payer: Process,
    pub(crate) issuer: Issuer,
    pub(crate) payee: Process,
    pub(crate) recipient: Recipient,
    pub(crate) openings: Openings,
    pub(crate) session: u64,
    pub(crate) counter: u64,
    pub(crate) up: bool,
    /// What the next hop will acknowledge.
    pub(crate) forwarded: VecDeque<(TicketId, Ack)>,
    /// Everything that the issuer ever sent, in order.
    pub(crate) batches: Vec<SignedBatch>,
    pub(crate) accepted: Vec<SignedBatch>,
    pub(crate) refused: Vec<BatchRefused>,
    pub(crate) errors: Vec<IssuerError>,
    pub(crate) commitments: Vec<WindowNumber>,
    pub(crate) won: BTreeMap<WindowNumber, u32>,
    pub(crate) claims: Vec<WindowClaim>,
}

pub(crate) const DEPOSIT: u128 = 1_000_000_000;

impl Link {
    pub(crate) fn new(seed: u8) -> Self {
        let mut payee = Process::new(Store::default(), 0);
        payee.books.credit(issuer()).set_guaranteed(DEPOSIT);
        let mut link = Self {
            time: Time::ZERO + Duration::from_secs(1),
            unix: UnixSeconds(START),
            rng: Rng::from_seed([seed; 32]),
            key: key(),
            payer: Process::new(Store::default(), DEPOSIT),
            issuer: Issuer::new(issuer_link()),
            payee,
            recipient: Recipient::new(recipient_link(), LIMITS, SECRET),
            openings: Openings::default(),
            session: 0,
            counter: 0,
            up: false,
            forwarded: VecDeque::new(),
            batches: Vec::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            errors: Vec::new(),
            commitments: Vec::new(),
            won: BTreeMap::new(),
            claims: Vec::new(),
        };
        link.connect();
        link
    }

    pub(crate) fn now(&self) -> Now {
        Now { time: self.time, unix: self.unix }
    }

    pub(crate) fn connect(&mut self) {
        self.begin_connect();
        self.pump();
    }

    pub(crate) fn begin_connect(&mut self) {
        self.session += 1;
        self.up = true;
        self.recipient.disconnected();
        self.issuer.resume(self.session, &self.payer.books);
    }

    pub(crate) fn disconnect(&mut self) {
        self.up = false;
        self.issuer.disconnected();
        self.recipient.disconnected();
    }

    pub(crate) fn wait(&mut self, seconds: u32) {
        self.time += Duration::from_secs(seconds.into());
        self.unix = UnixSeconds(self.unix.0 + seconds);
    }

    /// A packet goes over the link.
    pub(crate) fn send(&mut self) -> Result<Result<TicketId, Refused>, Stop> {
        let (hop, next, challenge) = packet(&mut self.rng);
        let id = PacketId { session: self.session, counter: self.counter };
        let now = self.now();
        self.issuer.send(now, &mut self.payer.books, id, challenge, None)?;
        self.counter += 1;
        if !self.up {
            return Ok(Err(Refused::NoAgreement));
        }
        let secret = Secret::Own(por::OwnSecret::of(&hop), NEXT);
        let ticket = self.recipient.accept(now, &mut self.payee.books, id, challenge, secret, Ack::of(&hop));
        if let Ok(ticket) = ticket {
            self.forwarded.push_back((ticket, next));
        }
        Ok(ticket)
    }

    pub(crate) fn send_many(&mut self, packets: usize) {
        (0..packets).for_each(|_| assert!(matches!(self.send(), Ok(Ok(_)))));
    }

    /// An ack frame.
    pub(crate) fn acks(&mut self, most: usize) {
        let mut acks = Vec::new();
        let list = self.recipient.take_acks(most, &mut acks);
        if self.up && !acks.is_empty() {
            let now = self.now();
            if let Err(error) = self.issuer.acknowledged(now, &acks, &list) {
                self.errors.push(error);
                self.up = false;
            }
        }
    }

    /// The next hop acknowledges.
    pub(crate) fn open(&mut self, most: usize) {
        for _ in 0..most {
            let Some((ticket, ack)) = self.forwarded.pop_front() else { break };
            let _ = self.recipient.opened(ticket, &ack, &mut self.payee.books, &mut self.openings);
        }
    }

    pub(crate) fn tick(&mut self) {
        let now = self.now();
        self.issuer.handle_timeout(now, &mut self.payer.books);
        while self.issuer.sign(now, &mut self.payer.books, &self.key, &mut self.rng) {}
        self.issuer.handle_timeout(now, &mut self.payer.books);
        self.recipient.handle_timeout(now, &mut self.payee.books, &mut self.openings);
    }

    /// Hands over what is durable. Says whether there was anything.
    pub(crate) fn exchange(&mut self) -> bool {
        let mut any = false;
        while let Some(message) = self.issuer.poll_message(&self.payer.books) {
            any = true;
            if let IssuerMessage::Batch(batch) = message {
                self.batches.push(batch);
            }
            if self.up {
                self.hand_to_recipient(message);
            }
        }
        while let Some(event) = self.recipient.poll_event(&mut self.payee.books) {
            any = true;
            match event {
                Event::Message(message) => {
                    if let RecipientMessage::Commitment { window, .. } = message {
                        self.commitments.push(window);
                    }
                    if self.up {
                        self.hand_to_issuer(message);
                    }
                }
                Event::Won { window, .. } => *self.won.entry(window).or_default() += 1,
                Event::Claim(claim) => self.claims.push(claim),
            }
        }
        any
    }

    /// Hands over what the issuer says and is durable.
    pub(crate) fn exchange_one_way(&mut self) {
        while let Some(message) = self.issuer.poll_message(&self.payer.books) {
            if let IssuerMessage::Batch(batch) = message {
                self.batches.push(batch);
            }
            self.hand_to_recipient(message);
        }
    }

    fn hand_to_recipient(&mut self, message: IssuerMessage) {
        let (now, books) = (self.now(), &mut self.payee.books);
        match message {
            IssuerMessage::Batch(batch) => match self.recipient.batch(now, &batch, books) {
                Ok(()) => self.accepted.push(batch),
                Err(refused) => self.refused.push(refused),
            },
            IssuerMessage::Closed { window, batches } => self.recipient.closed(window, batches),
            IssuerMessage::Resume { session, intact, list, highest } => {
                self.recipient.resume(now, session, intact, &list, highest, books);
            }
        }
    }

    fn hand_to_issuer(&mut self, message: RecipientMessage) {
        let (now, books) = (self.now(), &mut self.payer.books);
        let found = match message {
            RecipientMessage::Commitment { window, commitment } => {
                self.issuer.commitment(window, commitment, books)
            }
            RecipientMessage::End { window } => {
                self.issuer.end(window, &self.payer.books);
                Ok(())
            }
            RecipientMessage::Received { window, next } => self.issuer.received(window, next, books),
            RecipientMessage::Resumed { session, void } => {
                self.issuer.resumed(now, session, void, books);
                Ok(())
            }
        };
        self.errors.extend(found.err());
    }

    /// Everything that can happen without time passing.
    pub(crate) fn pump(&mut self) {
        loop {
            self.tick();
            let written = self.payer.commit(usize::MAX) + self.payee.commit(usize::MAX);
            if !self.exchange() && written == 0 {
                break;
            }
        }
    }

    /// So many packets, acknowledged, opened and, as far as batches are full, signed.
    pub(crate) fn work(&mut self, packets: usize) {
        let mut left = packets;
        while left > 0 {
            let now = left.min(256);
            self.send_many(now);
            left -= now;
            self.open(usize::MAX);
            self.acks(usize::MAX);
            self.pump();
        }
    }

    pub(crate) fn crash_issuer(&mut self) {
        self.up = false;
        self.payer = Process::new(self.payer.store.clone(), DEPOSIT);
        self.issuer = Issuer::restore(issuer_link(), &self.payer.store.restore(), &mut self.payer.books);
    }

    pub(crate) fn crash_recipient(&mut self) {
        self.up = false;
        self.payee = Process::new(self.payee.store.clone(), 0);
        self.payee.books.credit(issuer()).set_guaranteed(DEPOSIT);
        let kept = self.payee.store.restore();
        let now = self.now();
        self.recipient =
            Recipient::restore(recipient_link(), LIMITS, SECRET, &kept, now, &mut self.payee.books);
        self.forwarded.clear();
    }

    /// Ends everything in order, and lets it be claimed.
    pub(crate) fn finish(&mut self) {
        self.open(usize::MAX);
        self.acks(usize::MAX);
        self.wait(11);
        self.pump();
        self.recipient.finish(&self.payee.books);
        self.pump();
        self.wait(31);
        self.pump();
        self.wait(60);
        self.pump();
    }

    /// What the escrow says of everything that is to be claimed.
    pub(crate) fn verify_claims(&self) -> u32 {
        self.claims
            .iter()
            .map(|claim| {
                let found = tombola_tickets::verify(
                    &domain(),
                    RECIPIENT,
                    std::slice::from_ref(claim),
                    self.unix,
                    &Escrow(vec![]),
                );
                found.unwrap()[0].winners
            })
            .sum()
    }

    /// A link that begins with what others left on disk.
    pub(crate) fn on(payer: &Store, payee: &Store, like: &Self) -> Self {
        let mut link = Self::new(99);
        (link.time, link.unix, link.session) = (like.time, like.unix, like.session);
        (link.payer.store, link.payee.store) = (payer.clone(), payee.clone());
        (link.batches, link.commitments) = (like.batches.clone(), like.commitments.clone());
        link.accepted.clear();
        link.rng = Rng::from_seed([77; 32]);
        link.crash_issuer();
        link.crash_recipient();
        link
    }

    pub(crate) fn is_conserved(&self) -> bool {
        self.payer.books.ledger.is_conserved() && self.payee.books.ledger.is_conserved()
    }
}

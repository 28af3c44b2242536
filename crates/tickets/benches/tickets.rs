//! What payment costs a hop per packet.
//!
//! `cargo bench -p tombola-tickets`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the benchmark")]

use core::time::Duration;
use std::fs::File;
use std::io::Write as _;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tombola_mixing::{Rng, Time};
use tombola_sphinx::RelaySecrets;
use tombola_tickets::{
    Ack, Address, Books, Challenge, Change, Check, ClassNumber, Domain, Event, Issuer, IssuerLink,
    IssuerMessage, Journal, Limits, Neighbour, Now, Openings, PacketAck, PacketId, PriceClass, Recipient,
    RecipientLink, RecipientMessage, Secret, SignerKey, UnixSeconds, WinProbability, por,
};

fn main() {
    divan::main();
}

/// Batches between two commits. At 4000 packets a second a node signs and receives 16 batches each in a second; stores
/// commit twice in it.
const BATCHES: usize = 8;
const PACKETS: usize = 256 * BATCHES;
const CLASS: ClassNumber = ClassNumber(1);

/// A log as the store's would be: each change with its checksum, one write for a group.
struct Log {
    file: File,
    buffer: Vec<u8>,
    written: u64,
    sync: bool,
}

impl Log {
    fn new(sync: bool) -> Self {
        Self { file: tempfile::tempfile().unwrap(), buffer: Vec::new(), written: 0, sync }
    }

    fn encode(&mut self, journal: &mut Journal) {
        while let Some(change) = journal.poll_change() {
            let (table, key, value) = match &change {
                Change::Put { table, key, value } => (table, key, &value[..]),
                Change::Delete { table, key } => (table, key, &[][..]),
            };
            let at = self.buffer.len();
            self.buffer.push(table.0);
            self.buffer.extend_from_slice(key);
            self.buffer.extend_from_slice(value);
            let checksum = crc32fast::hash(&self.buffer[at..]);
            self.buffer.extend_from_slice(&checksum.to_be_bytes());
            self.written += 1;
        }
    }

    fn commit(&mut self) {
        self.file.write_all(&self.buffer).unwrap();
        if self.sync {
            self.file.sync_data().unwrap();
        }
        self.buffer.clear();
    }
}

/// Both sides of one link in one process. A hop has the earning side of one link and the paying side of the next, so this is
/// its work, once each.
struct Hop {
    now: Now,
    rng: Rng,
    key: SignerKey,
    books: Books,
    issuer: Issuer,
    recipient: Recipient,
    openings: Openings,
    session: u64,
    counter: u64,
    acks: Vec<PacketAck>,
    log: Log,
}

fn price() -> PriceClass {
    PriceClass {
        face_value: 1000,
        win_probability: WinProbability::from_ratio(1, 1000).unwrap(),
        valid_from: UnixSeconds(0),
        expiry: UnixSeconds(u32::MAX),
        epoch: 1,
    }
}

impl Hop {
    fn new(sync: bool) -> Self {
        let key = SignerKey::from_bytes(&[7; 32]).unwrap();
        let (issuer, recipient) = (key.address(), Address::repeat_byte(2));
        let mut books = Books::new(Domain::new(31337, Address::repeat_byte(0xe5)), u128::MAX / 2);
        books.credit(issuer).set_guaranteed(u128::MAX / 2);
        let link = IssuerLink { issuer, recipient, class: CLASS, price: price() };
        let earns = RecipientLink {
            issuer,
            signer: issuer,
            recipient,
            class: CLASS,
            price: price(),
            previous: Neighbour(1),
        };
        let limits = Limits { settled_after: Duration::from_secs(20), claim_before_expiry: 600 };
        let mut hop = Self {
            now: Now { time: Time::ZERO + Duration::from_secs(1), unix: UnixSeconds(1) },
            rng: Rng::from_seed([1; 32]),
            key,
            books,
            issuer: Issuer::new(link),
            recipient: Recipient::new(earns, limits, [8; 32]),
            openings: Openings::default(),
            session: 1,
            counter: 0,
            acks: Vec::with_capacity(64),
            log: Log::new(sync),
        };
        hop.issuer.resume(1, &hop.books);
        hop.settle();
        hop
    }

    /// Everything that is asked for becomes durable, and what waited for it goes over.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.recipient.handle_timeout(self.now, &mut self.books, &mut self.openings);
            self.log.encode(&mut self.books.journal);
            self.books.journal.set_durable(self.log.written);
            self.exchange();
        }
    }

    fn exchange(&mut self) {
        while let Some(message) = self.issuer.poll_message(&self.books) {
            match message {
                IssuerMessage::Batch(batch) => {
                    self.recipient.batch(self.now, &batch, &mut self.books).unwrap();
                }
                IssuerMessage::Closed { window, batches } => self.recipient.closed(window, batches),
                IssuerMessage::Resume { session, intact, list, highest } => {
                    self.recipient.resume(self.now, session, intact, &list, highest, &mut self.books);
                }
            }
        }
        while let Some(event) = self.recipient.poll_event(&mut self.books) {
            let Event::Message(message) = event else { continue };
            match message {
                RecipientMessage::Commitment { window, commitment } => {
                    self.issuer.commitment(window, commitment, &mut self.books).unwrap();
                }
                RecipientMessage::End { window } => self.issuer.end(window, &self.books),
                RecipientMessage::Received { window, next } => {
                    self.issuer.received(window, next, &mut self.books).unwrap();
                }
                RecipientMessage::Resumed { session, void } => {
                    self.issuer.resumed(self.now, session, void, &mut self.books);
                }
            }
        }
    }

    /// A group of batches, from the packets' arrival to the disk.
    fn work(&mut self, packets: &[Packet]) {
        for batch in packets.chunks(256) {
            for frame in batch.chunks(32) {
                for Packet { hop, next, challenge, check } in frame {
                    por::verify_check(hop, challenge, check).unwrap();
                    let packet = PacketId { session: self.session, counter: self.counter };
                    self.counter += 1;
                    self.issuer.send(self.now, &mut self.books, packet, *challenge, None).unwrap();
                    let secret = Secret::Own(por::OwnSecret::of(hop), Neighbour(2));
                    let (now, ack) = (self.now, Ack::of(hop));
                    let ticket =
                        self.recipient.accept(now, &mut self.books, packet, *challenge, secret, ack).unwrap();
                    self.recipient.opened(ticket, next, &mut self.books, &mut self.openings).unwrap();
                }
                self.acks.clear();
                let list = self.recipient.take_acks(32, &mut self.acks);
                self.issuer.acknowledged(self.now, &self.acks, &list).unwrap();
            }
            assert!(self.issuer.sign(self.now, &mut self.books, &self.key, &mut self.rng));
            self.settle();
        }
        self.log.commit();
        self.now.time += Duration::from_millis(500);
    }
}

/// What a hop has of a packet when its header is open, and what the next one will acknowledge.
struct Packet {
    hop: RelaySecrets,
    next: Ack,
    challenge: Challenge,
    check: Check,
}

fn packets() -> Vec<Packet> {
    let mut rng = Rng::from_seed([2; 32]);
    let mut secret = || *rng.seed().first_chunk::<16>().unwrap();
    let mut packet = || {
        let hop = RelaySecrets { own: secret(), ack: secret(), chk: secret() };
        let next = Ack::from_bytes(secret());
        let challenge = por::opener(&hop, &next).challenge();
        Packet { check: por::check(&hop, &challenge), hop, next, challenge }
    };
    (0..PACKETS).map(|_| packet()).collect()
}

/// Both machines, a file, and no waiting for the medium.
#[divan::bench]
fn cpu_per_packet(bencher: Bencher<'_, '_>) {
    let packets = packets();
    let mut hop = Hop::new(false);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| hop.work(black_box(&packets)));
}

/// The same, with the medium.
#[divan::bench]
fn synced(bencher: Bencher<'_, '_>) {
    let packets = packets();
    let mut hop = Hop::new(true);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| hop.work(black_box(&packets)));
}

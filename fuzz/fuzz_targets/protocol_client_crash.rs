//! Two clients that send each other messages and answers, over a network that loses, repeats and reorders, with strangers in
//! between, and whose processes end at any moment with any part of what was asked for on disk. They never panic; a message is
//! handed over once, and again only as what comes again, until the application has taken it; and an acknowledgement means that
//! the other has the message on disk.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{ClientDisk, GATEWAY, NOW, carry, identity, view};
use tombola_mixing::Time;
use tombola_protocol::client::{Client, ClientEvent, ClientKeys, FinalState, SendOptions};
use tombola_protocol::fragment::{FRAGMENT_DATA, MessageId};
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder};
use tombola_protocol::payload::payload_type;
use tombola_protocol::records::{Restore, tables};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::{EpochView, Recipient};
use tombola_sphinx::{PLAINTEXT_MAX, SecretKey};
use tombola_topology::{IdentityKey, MailboxId};

#[derive(Arbitrary, Debug)]
enum Event {
    Pass {
        milliseconds: u16,
    },
    /// Builds, sends, and carries what is sent to the mailboxes.
    Run {
        who: bool,
    },
    Send {
        who: bool,
        length: u16,
        replies: u8,
        seconds: u16,
    },
    Reply {
        who: bool,
        message: u8,
        length: u16,
    },
    Ping {
        who: bool,
    },
    Cancel {
        who: bool,
        message: u8,
    },
    Accept {
        who: bool,
        message: u8,
    },
    /// Hands a mail down; it stays for another time if it is repeated.
    Deliver {
        who: bool,
        mail: u8,
        repeat: bool,
    },
    DeliverAll {
        who: bool,
    },
    Lose {
        who: bool,
        mail: u8,
    },
    Commit {
        who: bool,
        groups: u8,
    },
    CommitAll,
    Crash {
        who: bool,
    },
    Link {
        who: bool,
        connected: bool,
    },
    Stranger {
        who: bool,
        plaintext: Vec<u8>,
    },
    Views {
        who: bool,
    },
}

const MAILS_MAX: usize = 256;

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);

struct Side {
    seed: u8,
    lives: u8,
    client: Client,
    disk: ClientDisk,
    /// In its mailbox.
    mails: Vec<Frame>,
    number: u64,
    /// Of this process.
    previous: u64,
    /// Handed over for the first time.
    fresh: BTreeSet<MessageId>,
    /// Handed over in this process, in order.
    shown: Vec<MessageId>,
    /// Accepted, and the group that says so.
    taken: BTreeMap<MessageId, u64>,
    sent: Vec<MessageId>,
}

fn keys(seed: u8) -> ClientKeys {
    ClientKeys {
        sphinx: SecretKey::from_bytes([seed; 32]),
        identity: IdentityKey::of_seed(&[seed; 32]),
        gateway: identity(GATEWAY),
    }
}

fn mailbox(seed: u8) -> MailboxId {
    MailboxId::of(&keys(seed).identity)
}

fn client(now: Time, seed: u8, lives: u8, stored: Restore) -> Client {
    let zero = Time::from_nanos(1 << 40);
    let wall = WallClock::new(zero, UnixNanos(NOW.0 * 1_000_000_000));
    let mut random = [seed; 32];
    random[0] = lives;
    let client = Client::new(now, wall, Arc::clone(&VIEW), keys(seed), stored, random);
    let mut client = client.expect("what a client has left behind is sound");
    client.handle_link(now, true);
    client
}

impl Side {
    fn new(now: Time, seed: u8) -> Self {
        Self {
            seed,
            lives: 0,
            client: client(now, seed, 0, Restore::default()),
            disk: ClientDisk::default(),
            mails: Vec::new(),
            number: 0,
            previous: 0,
            fresh: BTreeSet::new(),
            shown: Vec::new(),
            taken: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    fn fresh_id(&mut self) -> MessageId {
        let mut id = [0x5c ^ self.seed; 16];
        id[..4].copy_from_slice(&(self.sent.len() as u32).to_be_bytes());
        self.sent.push(MessageId(id));
        MessageId(id)
    }

    fn deliver(&mut self, now: Time, mut frame: Frame) {
        self.number += 1;
        frame.set_mail(VIEW.parity(), Duration::ZERO, self.number);
        frame.set_mail_previous(self.previous);
        self.previous = self.number;
        self.client.handle_frame(now, frame);
    }

    fn commit(&mut self, groups: usize) {
        let durable = self.disk.commit(groups);
        self.client.handle_durable(durable);
    }

    fn crash(&mut self, now: Time) {
        self.lives = self.lives.wrapping_add(1);
        let restore = self.disk.crash();
        self.taken.retain(|_, group| self.disk.has(*group));
        self.client = client(now, self.seed, self.lives, restore);
        self.previous = 0;
        self.shown.clear();
    }

    /// What one call asked for is a group.
    fn store(&mut self) -> u64 {
        self.disk.submit(core::iter::from_fn(|| self.client.poll_store()))
    }

    fn work(&mut self, now: Time) -> bool {
        let worked = self.client.work(now);
        self.store();
        worked
    }

    /// What has to hold after each call.
    fn settle(&mut self, other: &ClientDisk) -> u64 {
        let group = self.store();
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Queued(id) => {
                    assert!(self.disk.contains(tables::OUTBOX, &id.0) || !self.outbox(id))
                }
                ClientEvent::Received(got) => {
                    let id = got.message;
                    assert!(self.disk.contains(tables::INBOX, &id.0), "shown before it is durable");
                    assert!(got.again || self.fresh.insert(id), "handed over twice as if it were new");
                    assert!(!self.taken.contains_key(&id), "it was taken, and comes again");
                    self.shown.push(id);
                }
                ClientEvent::Ended(id, state) => {
                    let safe =
                        [tables::INBOX, tables::DONE].iter().any(|table| other.contains(*table, &id.0));
                    assert!(state != FinalState::Acknowledged || safe, "acknowledged, and not safe");
                    self.client.handle_noted(id);
                }
                _ => {}
            }
        }
        group
    }

    fn outbox(&self, id: MessageId) -> bool {
        self.client.outbox().any(|other| other == id)
    }
}

fuzz_target!(|events: Vec<Event>| {
    let mut now = Time::from_nanos(1 << 40);
    let mut sides = [Side::new(now, 81), Side::new(now, 82)];
    let addresses =
        [0, 1].map(|side: usize| Recipient::new(&sides[side].client.address()).expect("sound keys"));
    let mut strangers = PacketBuilder::new(tombola_mixing::Rng::from_seed([9; 32]));
    for event in events.into_iter().take(48) {
        let mut accepted = None;
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Run { who } => {
                let mut frames = Vec::new();
                let side = &mut sides[usize::from(who)];
                while side.work(now) {}
                while let Some(frame) = side.client.poll_transmit(now) {
                    side.store();
                    frames.push(frame);
                    while side.work(now) {}
                }
                for frame in frames {
                    if frame.kind() != Ok(FrameKind::Packet) {
                        continue;
                    }
                    let Some((to, mail)) = carry(frame) else { continue };
                    let side =
                        sides.iter_mut().find(|side| mailbox(side.seed) == to).expect("nobody else is there");
                    if side.mails.len() < MAILS_MAX {
                        side.mails.push(mail);
                    }
                }
            }
            Event::Send { who, length, replies, seconds } => {
                let to = addresses[usize::from(!who)].clone();
                let side = &mut sides[usize::from(who)];
                let id = side.fresh_id();
                let options =
                    SendOptions { replies: replies.into(), lifetime: Duration::from_secs(seconds.into()) };
                let body = vec![1; usize::from(length) % (6 * FRAGMENT_DATA)];
                side.client.handle_send(now, id, to, body, options).expect("there is room");
            }
            Event::Reply { who, message, length } => {
                let side = &mut sides[usize::from(who)];
                let id = side.fresh_id();
                if !side.shown.is_empty() {
                    let to = side.shown[usize::from(message) % side.shown.len()];
                    let body = vec![2; usize::from(length) % (6 * FRAGMENT_DATA)];
                    let _ = side.client.handle_reply(now, id, to, body, SendOptions::default());
                }
            }
            Event::Ping { who } => {
                let to = addresses[usize::from(!who)].clone();
                let side = &mut sides[usize::from(who)];
                let id = side.fresh_id();
                assert!(side.client.handle_ping(id, to), "there is room");
            }
            Event::Cancel { who, message } => {
                let side = &mut sides[usize::from(who)];
                if !side.sent.is_empty() {
                    let id = side.sent[usize::from(message) % side.sent.len()];
                    let there = side.outbox(id);
                    assert_eq!(side.client.handle_cancel(id), there);
                    assert!(!side.outbox(id));
                }
            }
            Event::Accept { who, message } => {
                let side = &mut sides[usize::from(who)];
                if !side.shown.is_empty() {
                    let id = side.shown.swap_remove(usize::from(message) % side.shown.len());
                    assert!(side.client.handle_accept(now, id), "it was shown and not taken");
                    accepted = Some((who, id));
                }
            }
            Event::Deliver { who, mail, repeat } => {
                let side = &mut sides[usize::from(who)];
                if !side.mails.is_empty() {
                    let at = usize::from(mail) % side.mails.len();
                    let frame = if repeat { side.mails[at].clone() } else { side.mails.swap_remove(at) };
                    side.deliver(now, frame);
                }
            }
            Event::DeliverAll { who } => {
                let side = &mut sides[usize::from(who)];
                for frame in core::mem::take(&mut side.mails) {
                    side.deliver(now, frame);
                }
            }
            Event::Lose { who, mail } => {
                let side = &mut sides[usize::from(who)];
                if !side.mails.is_empty() {
                    side.mails.swap_remove(usize::from(mail) % side.mails.len());
                }
            }
            Event::Commit { who, groups } => sides[usize::from(who)].commit(groups.into()),
            Event::CommitAll => sides.iter_mut().for_each(|side| side.commit(usize::MAX)),
            Event::Crash { who } => sides[usize::from(who)].crash(now),
            Event::Link { who, connected } => sides[usize::from(who)].client.handle_link(now, connected),
            Event::Stranger { who, mut plaintext } => {
                plaintext.truncate(PLAINTEXT_MAX);
                // Who does not know an id cannot report on the message.
                if plaintext.first() != Some(&payload_type::REPORT) {
                    let to = &addresses[usize::from(who)];
                    let end = End::Client { gateway: GATEWAY, mailbox: to.address.mailbox, key: to.key };
                    let identifier = strangers.identifier();
                    let mixes = VIEW.draw_route(strangers.rng());
                    let packet =
                        strangers.build(&VIEW, FirstLink::FromClient, &mixes, &end, identifier, &plaintext);
                    let (_, frame) = carry(packet.frame).expect("a mailbox at its end");
                    sides[usize::from(who)].deliver(now, frame);
                }
            }
            Event::Views { who } => {
                assert!(sides[usize::from(who)].client.handle_views(now, Arc::clone(&VIEW)));
            }
        }
        let [one, other] = &mut sides;
        let groups = [one.settle(&other.disk), other.settle(&one.disk)];
        if let Some((who, id)) = accepted {
            sides[usize::from(who)].taken.insert(id, groups[usize::from(who)]);
        }
    }
    // Nothing is left undone that could be: both have what the other has heard of.
    for side in &mut sides {
        side.commit(usize::MAX);
        side.crash(now);
    }
    let [one, other] = &mut sides;
    one.settle(&other.disk);
    other.settle(&one.disk);
});

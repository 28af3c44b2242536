//! Whatever a client's store holds, the client either says what is wrong with it, or starts with it; then it works, and what
//! it writes can be read again.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, NOW, carry, identity, view};
use tombola_mixing::{Rng, Time};
use tombola_protocol::client::{Client, ClientEvent, ClientKeys, SendOptions};
use tombola_protocol::fragment::{FRAGMENT_DATA, MessageId};
use tombola_protocol::packet::{End, PacketBuilder};
use tombola_protocol::records::{Restore, tables};
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::EpochView;
use tombola_sphinx::{ReplyKeys, SURB_LEN, SecretKey};
use tombola_topology::{ClientAddress, IdentityKey, MailboxId, SphinxKey};

/// Records that are what they seem to be, as far as their layout goes; and anything.
#[derive(Arbitrary, Debug)]
enum Record {
    Raw {
        table: u8,
        message: Option<u8>,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Outbox {
        message: u8,
        answers: Option<u8>,
        length: u16,
        replies: u16,
        queued: u64,
        expires: u64,
        sent: bool,
        cursor: u32,
        extra: u32,
    },
    Body {
        message: u8,
        segment: u8,
        length: u16,
    },
    Final {
        message: u8,
        state: u8,
    },
    Keys {
        message: u8,
        epoch: u8,
    },
    Conversation {
        message: u8,
        left: u16,
    },
    Block {
        message: u8,
        number: u64,
        epoch: u8,
    },
    Partial {
        message: u8,
        length: u32,
        via: Option<u8>,
    },
    Fragment {
        message: u8,
        segment: u8,
        position: u8,
    },
    Segment {
        message: u8,
        segment: u8,
        length: u32,
    },
    Inbox {
        message: u8,
        length: u16,
        via: Option<u8>,
        answerable: bool,
        received: u64,
    },
    Done {
        message: u8,
        at: u64,
    },
    Tag {
        day: u32,
        fingerprint: u64,
    },
}

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);
static BLOCK: LazyLock<([u8; SURB_LEN], ReplyKeys)> = LazyLock::new(|| {
    let mut builder = PacketBuilder::new(Rng::from_seed([1; 32]));
    let end = End::Client { gateway: GATEWAY, mailbox: address().mailbox, key: secret().public_key() };
    builder.build_block(&VIEW, &[MIX], &end)
});

fn secret() -> SecretKey {
    SecretKey::from_bytes([77; 32])
}

fn address() -> ClientAddress {
    ClientAddress {
        sphinx_key: SphinxKey::from_bytes(secret().public_key().to_bytes()),
        gateway: identity(GATEWAY),
        mailbox: MailboxId::of(&IdentityKey::of_seed(&[78; 32])),
    }
}

fn address_bytes() -> Vec<u8> {
    let address = address();
    [&address.sphinx_key.as_bytes()[..], address.gateway.as_bytes(), address.mailbox.as_bytes()].concat()
}

fn id(message: u8) -> [u8; 16] {
    [message % 4; 16]
}

fn via(message: Option<u8>) -> Vec<u8> {
    [&[u8::from(message.is_some())][..], &message.map(id).unwrap_or_default()].concat()
}

impl Record {
    fn parts(self) -> (Table, Vec<u8>, Vec<u8>) {
        let part = |message, segment: u8| [&id(message)[..], &[0, segment % 3]].concat();
        match self {
            Self::Raw { table, message, key, value } => {
                let front = message.map(|message| id(message).to_vec()).unwrap_or_default();
                (Table(table), [front, key].concat(), value)
            }
            Self::Outbox { message, answers, length, replies, queued, expires, sent, cursor, extra } => {
                let target = match answers {
                    None => [vec![0], address_bytes()].concat(),
                    Some(message) => [&[1][..], &id(message)].concat(),
                };
                let value = [
                    &[1][..],
                    &target,
                    &u32::from(length).to_be_bytes(),
                    &replies.to_be_bytes(),
                    &queued.to_be_bytes(),
                    &expires.to_be_bytes(),
                    &[u8::from(sent)],
                    &cursor.to_be_bytes(),
                    &extra.to_be_bytes(),
                ];
                (tables::OUTBOX, id(message).to_vec(), value.concat())
            }
            Self::Body { message, segment, length } => {
                (tables::BODIES, part(message, segment), vec![message; length.into()])
            }
            Self::Final { message, state } => (tables::FINAL, id(message).to_vec(), vec![1, state % 4]),
            Self::Keys { message, epoch } => {
                let keys = &BLOCK.1;
                let value =
                    [&[1][..], &id(message), &u64::from(epoch).to_be_bytes(), &keys.to_bytes()].concat();
                (tables::KEYS, keys.identifier().to_vec(), value)
            }
            Self::Conversation { message, left } => {
                let value = [&[1][..], &address_bytes(), &left.to_be_bytes()].concat();
                (tables::CONVERSATIONS, id(message).to_vec(), value)
            }
            Self::Block { message, number, epoch } => {
                let value = [&[1][..], &u64::from(epoch % 4).to_be_bytes(), &BLOCK.0].concat();
                (tables::BLOCKS, [&id(message)[..], &number.to_be_bytes()].concat(), value)
            }
            Self::Partial { message, length, via: own } => {
                let value = [&[1][..], &length.to_be_bytes(), &via(own)].concat();
                (tables::PARTIAL, id(message).to_vec(), value)
            }
            Self::Fragment { message, segment, position } => {
                let key = [&part(message, segment)[..], &[position]].concat();
                (tables::FRAGMENTS, key, vec![message; FRAGMENT_DATA])
            }
            Self::Segment { message, segment, length } => {
                let length = length as usize % (200 * FRAGMENT_DATA);
                (tables::SEGMENTS, part(message, segment), vec![message; length])
            }
            Self::Inbox { message, length, via: own, answerable, received } => {
                let value = [
                    &[1][..],
                    &u32::from(length).to_be_bytes(),
                    &via(own),
                    &[u8::from(answerable)],
                    &received.to_be_bytes(),
                    &[0; 8],
                    &1u32.to_be_bytes(),
                ];
                (tables::INBOX, id(message).to_vec(), value.concat())
            }
            Self::Done { message, at } => {
                (tables::DONE, id(message).to_vec(), [&[1][..], &at.to_be_bytes()].concat())
            }
            Self::Tag { day, fingerprint } => {
                (tables::TAGS, [&day.to_be_bytes()[..], &fingerprint.to_be_bytes()].concat(), vec![])
            }
        }
    }
}

fuzz_target!(|input: (Vec<Record>, Vec<u16>)| {
    let (records, passes) = input;
    let mut restore = Restore::default();
    for record in records.into_iter().take(24) {
        let (table, key, value) = record.parts();
        if let Err(error) = restore.feed(table, &key, &value) {
            assert!(!error.to_string().is_empty());
            return;
        }
    }
    let listed = restore.outbox().len();
    let mut now = Time::from_nanos(1 << 40);
    let wall = WallClock::new(now, UnixNanos(NOW.0 * 1_000_000_000));
    let keys = ClientKeys {
        sphinx: secret(),
        identity: IdentityKey::of_seed(&[78; 32]),
        gateway: identity(GATEWAY),
    };
    let Ok(mut client) = Client::new(now, wall, Arc::clone(&VIEW), keys, restore, [1; 32]) else { return };
    assert_eq!(client.outbox().count(), listed);
    client.handle_link(now, true);
    let mut asked = 0;
    for (number, pass) in (0..).zip(passes.into_iter().take(6)) {
        now += Duration::from_millis(pass.into());
        while client.work(now) {}
        while let Some(frame) = client.poll_transmit(now) {
            // What it sends to itself comes back: answers through its own blocks among it.
            if let Some((_, mut mail)) = carry(frame) {
                mail.set_mail(VIEW.parity(), Duration::ZERO, 1);
                client.handle_frame(now, mail);
            }
        }
        while let Some(op) = client.poll_store() {
            asked += 1;
            if let StoreOp::Put { table, key, value } = op {
                Restore::default().feed(table, &key, &value).expect("what it writes can be read");
            }
        }
        client.handle_durable(asked);
        let mut received = None;
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Received(message) => received = Some(message.message),
                ClientEvent::Ended(message, _) => client.handle_noted(message),
                _ => {}
            }
        }
        if let Some(message) = received {
            let answer = MessageId([0xf0 + number; 16]);
            let _ = client.handle_reply(now, answer, message, vec![1; 3000], SendOptions::default());
            client.handle_accept(now, message);
        }
        client.handle_cancel(MessageId(id(number)));
    }
});

//! Whatever a disk holds, a gateway either says which table is wrong, or starts with it; and then it serves whoever has a
//! mailbox there, and what it writes can be read again.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, any_ticket, identity, view};
use tombola_mixing::Time;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayMail, GatewayOutput};
use tombola_protocol::mailbox::record::MAIL_LEN;
use tombola_protocol::mailbox::{Restore, StoredMail};
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::{EpochView, Seat};
use tombola_topology::{IdentityKey, MailboxId};

#[derive(Arbitrary, Debug)]
struct Record {
    table: u8,
    /// In place of a random beginning, so that records find each other.
    client: Option<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Filled up to the length of a mail.
    full: bool,
}

#[derive(Arbitrary, Debug)]
struct Visit {
    client: u8,
    wants: bool,
    acknowledged: u64,
    low: u16,
    mails: u8,
    slots: u8,
}

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);

fn client(number: u8) -> IdentityKey {
    IdentityKey::of_seed(&[100 + number % 4; 32])
}

fuzz_target!(|input: (Vec<Record>, Vec<Visit>)| {
    let (records, visits) = input;
    let mut restore = Restore::default();
    for record in records {
        let mut key =
            record.client.map(|n| MailboxId::of(&client(n)).as_bytes().to_vec()).unwrap_or_default();
        key.extend(&record.key);
        let mut value = record.value;
        if record.full {
            value.resize(MAIL_LEN, 0);
        }
        if let Err(error) = restore.record(Table(record.table), &key, &value) {
            assert!(error.to_string().starts_with("a record of table "));
            return;
        }
    }
    let Ok(stored) = restore.finish() else { return };
    let mail = GatewayMail { packets: 16, clock: WallClock { at_zero: UnixNanos(1 << 60) }, stored };
    let occupancy = Occupancy::new(8);
    let mut now = Time::from_nanos(1 << 40);
    let seat = Seat::new(Arc::clone(&VIEW), GATEWAY).expect("node 1 is in the list");
    let (parameters, places) = (VIEW.parameters(), occupancy.clone());
    let mut gateway = Gateway::new(now, parameters, seat.into(), mail, places, Arc::default(), [1; 32]);
    let mut durable = 0;
    for visit in visits {
        let client = client(visit.client);
        gateway.handle(now, GatewayInput::ClientConnected(client));
        gateway
            .handle(now, GatewayInput::ClientFrame(client, Frame::collect(visit.wants, visit.acknowledged)));
        for _ in 0..visit.mails {
            assert!(occupancy.take());
            let order = Order::Store(MailboxId::of(&client));
            gateway.handle(
                now,
                GatewayInput::Opened(Opened {
                    arrived: now,
                    frame: Frame::zeroed(),
                    order,
                    tag: TagPlace::default(),
                    from: identity(MIX),
                    ticket: any_ticket(),
                }),
            );
        }
        for _ in 0..visit.slots {
            now += Duration::from_millis(40);
            while let Some(output) = gateway.poll_output(now) {
                let GatewayOutput::Deliver { frame, .. } = output else { continue };
                assert!(frame.kind() != Ok(FrameKind::Mail) || frame.mail_number() > frame.mail_previous());
            }
            while let Some(op) = gateway.poll_store() {
                durable += 1;
                if let StoreOp::Put { table, key, value } = op {
                    Restore::default().record(table, &key, &value).expect("what is written can be read");
                }
            }
            gateway.handle(now, GatewayInput::Durable(durable));
            while let Some(fetch) = gateway.poll_fetch() {
                let (from, to) = fetch.keys();
                assert!(from <= to && fetch.limit > 0);
                let mut value = vec![0; MAIL_LEN];
                value[0] = 1;
                let mail = StoredMail::decode(&from, &value).expect("a key of a mail");
                gateway.handle(now, GatewayInput::Fetched { mailbox: fetch.mailbox, mails: vec![mail] });
            }
        }
        let mut packet = Frame::zeroed();
        packet.as_bytes_mut()[0] = FrameKind::Packet as u8;
        packet.set_acknowledged(visit.low);
        gateway.handle(now, GatewayInput::ClientFrame(client, packet));
        gateway.expire(now);
    }
    gateway.close(now);
    while let Some(op) = gateway.poll_store() {
        if let StoreOp::Put { table, key, value } = op {
            Restore::default().record(table, &key, &value).expect("what is written can be read");
        }
    }
});

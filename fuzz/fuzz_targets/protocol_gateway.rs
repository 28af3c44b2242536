//! Whatever clients do and whatever mail comes, at whatever times, and whenever the process or its disk fails: a gateway
//! stays within the bounds of its mailboxes and of memory, forwards only to layer 1, and hands frames only to clients that
//! are connected, none of them faster than the pace.

#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_fuzz::{GATEWAY, MIX, any_ticket, identity, view};
use tombola_mixing::Time;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{FRAME_LEN, Frame};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayMail, GatewayOutput};
use tombola_protocol::mailbox::record::MAIL;
use tombola_protocol::mailbox::{Fetch, Restore, StoredMail};
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::{EpochView, Seat};
use tombola_topology::{IdentityKey, MailboxId};

#[derive(Arbitrary, Debug)]
enum Event {
    Pass { milliseconds: u8 },
    Connect { client: u8 },
    Disconnect { client: u8 },
    Frame { client: u8, head: Vec<u8> },
    Collect { client: u8, wanted: bool, acknowledged: u16 },
    Commit { count: u8 },
    Read,
    Trouble { trouble: bool },
    Crash,
    Restart,
    Mail { client: u8 },
    Poll,
    Undelivered { client: u8 },
    Expire,
}

const PLACES: usize = 8;
const MEMORY_PACKETS: usize = 16;

static VIEW: LazyLock<Arc<EpochView>> = LazyLock::new(view);
static CLIENTS: LazyLock<Vec<IdentityKey>> =
    LazyLock::new(|| (100..108).map(|seed| IdentityKey::of_seed(&[seed; 32])).collect());

/// What is on disk, and what is not yet.
#[derive(Default)]
struct Disk {
    records: BTreeMap<(Table, Box<[u8]>), Box<[u8]>>,
    pending: VecDeque<StoreOp>,
    durable: u64,
}

impl Disk {
    fn commit(&mut self, count: usize) -> u64 {
        for op in self.pending.drain(..count.min(self.pending.len())) {
            self.durable += 1;
            match op {
                StoreOp::Put { table, key, value } => drop(self.records.insert((table, key), value)),
                StoreOp::Delete { table, key } => drop(self.records.remove(&(table, key))),
                StoreOp::DeleteRange { table, from, to } => {
                    self.records.retain(|(t, key), _| *t != table || *key < from || *key > to);
                }
            }
        }
        self.durable
    }

    fn read(&self, fetch: &Fetch) -> Vec<StoredMail> {
        let (from, to) = fetch.keys();
        let range = self.records.range((MAIL, from)..=(MAIL, to)).take(fetch.limit);
        range.map(|((_, key), value)| StoredMail::decode(key, value).expect("a gateway wrote it")).collect()
    }

    /// A new process.
    fn start(&mut self, now: Time, occupancy: &Occupancy) -> Gateway {
        self.pending.clear();
        self.durable = 0;
        let mut restore = Restore::default();
        for ((table, key), value) in &self.records {
            restore.record(*table, key, value).expect("a gateway wrote it");
        }
        let mail = GatewayMail {
            packets: MEMORY_PACKETS,
            clock: WallClock { at_zero: UnixNanos(1 << 60) },
            stored: restore.finish().expect("mail has a mailbox at any time"),
        };
        let seat = Seat::new(Arc::clone(&VIEW), GATEWAY).expect("node 1 is in the list");
        let (parameters, places) = (VIEW.parameters(), occupancy.clone());
        Gateway::new(now, parameters, seat.into(), mail, places, Arc::default(), [1; 32])
    }
}

fuzz_target!(|events: Vec<Event>| {
    let occupancy = Occupancy::new(PLACES);
    let mut disk = Disk::default();
    let client = |number: u8| CLIENTS[usize::from(number) % CLIENTS.len()];
    let mut now = Time::from_nanos(1 << 40);
    let mut gateway = disk.start(now, &occupancy);
    let mut connected = BTreeSet::new();
    let mut delivered = Vec::new();
    let mut reads = Vec::new();
    for event in events {
        match event {
            Event::Pass { milliseconds } => now += Duration::from_millis(milliseconds.into()),
            Event::Connect { client: number } => {
                connected.insert(client(number));
                gateway.handle(now, GatewayInput::ClientConnected(client(number)));
            }
            Event::Disconnect { client: number } => {
                connected.remove(&client(number));
                gateway.handle(now, GatewayInput::ClientDisconnected(client(number)));
            }
            Event::Frame { client: number, head } => {
                let mut frame = Frame::zeroed();
                let len = head.len().min(FRAME_LEN);
                frame.as_bytes_mut()[..len].copy_from_slice(&head[..len]);
                gateway.handle(now, GatewayInput::ClientFrame(client(number), frame));
            }
            Event::Collect { client: number, wanted, acknowledged } => {
                let frame = Frame::collect(wanted, acknowledged.into());
                gateway.handle(now, GatewayInput::ClientFrame(client(number), frame));
            }
            Event::Commit { count } => {
                gateway.handle(now, GatewayInput::Durable(disk.commit(count.into())));
            }
            Event::Read => {
                for fetch in core::mem::take(&mut reads) {
                    let mails = disk.read(&fetch);
                    gateway.handle(now, GatewayInput::Fetched { mailbox: fetch.mailbox, mails });
                }
            }
            Event::Trouble { trouble } => gateway.handle(now, GatewayInput::StorageTrouble(trouble)),
            Event::Crash | Event::Restart => {
                if matches!(event, Event::Restart) {
                    gateway.close(now);
                    disk.pending.extend(core::iter::from_fn(|| gateway.poll_store()));
                    disk.commit(usize::MAX);
                }
                gateway = disk.start(now, &occupancy);
                (connected, delivered, reads) = Default::default();
            }
            Event::Mail { client: number } => {
                if occupancy.take() {
                    let order = Order::Store(MailboxId::of(&client(number)));
                    let (frame, tag) = (Frame::zeroed(), TagPlace::default());
                    let (from, ticket) = (identity(MIX), any_ticket());
                    let opened = Opened { arrived: now, from, frame, order, tag, ticket };
                    gateway.handle(now, GatewayInput::Opened(opened));
                }
            }
            Event::Poll => match gateway.poll_output(now) {
                Some(GatewayOutput::Forward { to, .. }) => assert_eq!(to, identity(MIX)),
                Some(
                    GatewayOutput::Claim(_)
                    | GatewayOutput::Watch { .. }
                    | GatewayOutput::Forget { .. }
                    | GatewayOutput::Settled(_),
                ) => {
                    panic!("nobody pays")
                }
                Some(GatewayOutput::Deliver { to, frame }) => {
                    assert!(connected.contains(&to), "a frame for a client that is not there");
                    delivered.push((to, frame));
                }
                None => assert!(gateway.poll_timeout().is_none_or(|due| due > now), "something was due"),
            },
            Event::Undelivered { client: number } => {
                if let Some(at) = delivered.iter().position(|(to, _)| *to == client(number)) {
                    let (to, frame) = delivered.swap_remove(at);
                    gateway.handle(now, GatewayInput::Undelivered(to, frame));
                }
            }
            Event::Expire => gateway.expire(now),
        }
        disk.pending.extend(core::iter::from_fn(|| gateway.poll_store()));
        reads.extend(core::iter::from_fn(|| gateway.poll_fetch()));
        let counts = gateway.counts();
        assert!(counts.mail.mailboxes <= VIEW.parameters().clients_per_gateway as usize);
        assert!(counts.mail.packets <= MEMORY_PACKETS, "{} packets in mailboxes", counts.mail.packets);
        assert!(
            counts.mail.in_memory <= counts.mail.packets && counts.mail.unwritten <= counts.mail.in_memory
        );
        assert_eq!(counts.clients, connected.len());
        assert_eq!(occupancy.taken(), 0, "a place was not given back");
    }
});

//! A disk that knows what is durable and what a crash would take.

use std::collections::{BTreeMap, VecDeque};

use tombola_mixing::Time;
use tombola_protocol::gateway::{Gateway, GatewayInput};
use tombola_protocol::mailbox::record::MAIL;
use tombola_protocol::mailbox::{Fetch, Restore, Stored, StoredMail};
use tombola_protocol::store::{StoreOp, Table};

type Key = (Table, Box<[u8]>);

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    records: BTreeMap<Key, Box<[u8]>>,
    pending: VecDeque<StoreOp>,
    durable: u64,
}

impl Disk {
    /// Does whatever a gateway wants of its disk, at once.
    pub(crate) fn serve(&mut self, now: Time, gateway: &mut Gateway) {
        loop {
            while let Some(op) = gateway.poll_store() {
                self.submit(op);
            }
            let (written, fetches) = (self.pending() > 0, core::iter::from_fn(|| gateway.poll_fetch()));
            let fetches: Vec<_> = fetches.collect();
            if !written && fetches.is_empty() {
                return;
            }
            gateway.handle(now, GatewayInput::Durable(self.commit(usize::MAX)));
            for fetch in fetches {
                let mails = self.read(&fetch);
                gateway.handle(now, GatewayInput::Fetched { mailbox: fetch.mailbox, mails });
            }
        }
    }

    /// Takes a change, which is not durable yet.
    pub(crate) fn submit(&mut self, op: StoreOp) {
        self.pending.push_back(op);
    }

    /// Makes the next `count` changes durable; returns how many that are in all.
    pub(crate) fn commit(&mut self, count: usize) -> u64 {
        for op in self.pending.drain(..count.min(self.pending.len())) {
            self.durable += 1;
            match op {
                StoreOp::Put { table, key, value } => {
                    self.records.insert((table, key), value);
                }
                StoreOp::Delete { table, key } => {
                    self.records.remove(&(table, key));
                }
                StoreOp::DeleteRange { table, from, to } => {
                    assert!(from <= to);
                    self.records.retain(|(t, key), _| *t != table || *key < from || *key > to);
                }
            }
        }
        self.durable
    }

    /// Changes that are not durable.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power fails: what is not durable is gone, and a new process counts its changes anew.
    pub(crate) fn crash(&mut self) {
        self.pending.clear();
        self.durable = 0;
    }

    /// What is durable.
    pub(crate) fn read(&self, fetch: &Fetch) -> Vec<StoredMail> {
        let (from, to) = fetch.keys();
        let range = self.records.range((MAIL, from)..=(MAIL, to)).take(fetch.limit);
        range.map(|((_, key), value)| StoredMail::decode(key, value).unwrap()).collect()
    }

    /// Everything that is durable, for a start.
    pub(crate) fn stored(&self) -> Stored {
        let mut restore = Restore::default();
        for ((table, key), value) in &self.records {
            restore.record(*table, key, value).unwrap();
        }
        restore.finish().unwrap()
    }

    /// The first two bytes of every packet that is durable.
    pub(crate) fn marks(&self) -> impl Iterator<Item = u16> {
        self.records.iter().filter(|((table, _), _)| *table == MAIL).map(|((_, key), value)| {
            let mail = StoredMail::decode(key, value).unwrap();
            u16::from_be_bytes(*mail.frame.packet().first_chunk().unwrap())
        })
    }

    /// Packets that are durable.
    pub(crate) fn mails(&self) -> usize {
        self.records.keys().filter(|(table, _)| *table == MAIL).count()
    }
}

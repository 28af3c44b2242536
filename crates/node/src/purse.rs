//! The disk behind payment: what an account has signed, won and claimed, in a file of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tombola_protocol::payment::Payments;
use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{Backlog, Format, Store, Writer};
use tombola_tickets::{Change, Domain, Restore, records::tables};

use crate::cursor::{FactMarks, FactsKept};
use crate::earnings::Earnings;

/// The file in the data folder.
pub const FILE: &str = "tickets.redb";
const FORMAT: Format = Format { name: "tombola tickets", version: 1 };
/// How long what is to be written waits for more. A batch leaves when it is durable: this is part of how long it takes.
const LINGER: Duration = Duration::from_millis(50);
/// How long if packets wait for it: with 1024 tickets on their way at most, a link stands still for the rest of the time that
/// both disks, one after the other, take for a batch. Long enough for what comes of one round of control frames.
const SHORT_LINGER: Duration = Duration::from_millis(3);

/// What is in the file `path` can be claimed with this secret of windows, which follows from the link key.
///
/// # Errors
/// It was won with another link key.
pub(crate) fn check_secret(path: &Path, kept: &Restore, secret: &[u8; 32], domain: &Domain) -> Result<()> {
    ensure!(
        kept.is_claimable_with(secret, domain),
        "{}: holds winners that can be claimed only with the link key with which they were won: put that key back until they are \
         claimed (`tombola account redeem`); or move this file away, which gives them up",
        path.display()
    );
    Ok(())
}

/// The store, before anything is written.
#[derive(Debug)]
pub struct PurseFile {
    store: Arc<Store>,
    earnings: Earnings,
    facts: FactsKept,
}

impl PurseFile {
    /// Opens the file, or makes it, and reads what is in it.
    ///
    /// # Errors
    /// The file is damaged, holds something else, is in use, or the disk fails; each error names the file.
    pub fn open(path: &Path) -> Result<(Self, Restore)> {
        let store = Store::open(path, FORMAT)?;
        let mut kept = Restore::default();
        for table in tables::ALL {
            store.for_each(Table(table.0), |key, value| {
                kept.feed(table, key, value).map_err(|error| error.to_string())
            })?;
        }
        let earnings = Earnings::new(&kept);
        Ok((Self { store: Arc::new(store), earnings, facts: FactsKept::default() }, kept))
    }

    /// Writes changes at once: for whoever earns nothing meanwhile.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write(&self, changes: Vec<Change>) -> Result<()> {
        Ok(self.store.commit(changes.into_iter().map(StoreOp::from).collect())?)
    }

    /// What was won and is not settled; goes on with what the purse writes.
    #[must_use]
    pub fn earnings(&self) -> Earnings {
        self.earnings.clone()
    }

    /// How much of what the machine is told has been kept, once it runs.
    #[must_use]
    pub fn facts_kept(&self) -> FactsKept {
        self.facts.clone()
    }

    /// Starts the thread that writes. `wake` is called from it, and must not wait: something is durable.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(self, wake: impl Fn(u64) + Send + 'static) -> Result<Purse> {
        let durable = Arc::new(AtomicU64::new(0));
        let latest = Arc::clone(&durable);
        let writer = self.store.start_writer(LINGER, move |count| {
            latest.store(count, Ordering::Release);
            wake(count);
        });
        let writer = writer.context("the thread that writes tickets")?;
        let facts = FactMarks::new(self.facts);
        Ok(Purse {
            writer,
            durable,
            asked: 0,
            facts,
            refused: Vec::new(),
            in_trouble: false,
            earnings: self.earnings,
        })
    }
}

/// The disk, as a driver sees it: it never makes the driver wait.
#[derive(Debug)]
pub struct Purse {
    writer: Writer,
    durable: Arc<AtomicU64>,
    /// Changes that the machine has asked for.
    asked: u64,
    facts: FactMarks,
    /// Changes that the writer had no room for: they go before all others.
    refused: Vec<StoreOp>,
    /// What was said of it last.
    in_trouble: bool,
    earnings: Earnings,
}

impl Purse {
    /// Passes on what is to be written, and what is durable. Called after everything that happens to `payments`.
    pub fn serve(&mut self, payments: &mut Payments) {
        let durable = self.durable.load(Ordering::Acquire);
        payments.set_durable(durable);
        let mut changes = std::mem::take(&mut self.refused);
        let new: Vec<Change> = std::iter::from_fn(|| payments.poll_change()).collect();
        self.asked += new.len() as u64;
        self.facts.set_durable(durable);
        self.earnings.follow(&new);
        changes.extend(new.into_iter().map(StoreOp::from));
        if !changes.is_empty()
            && let Err(Backlog(changes)) = self.writer.submit(changes)
        {
            self.refused = changes;
        }
        if payments.take_urgent() {
            self.writer.hurry(SHORT_LINGER);
        }
    }

    /// The machine was told what the chain says, and [`Self::serve`] was called since.
    pub fn note_fact(&mut self) {
        self.facts.note(self.asked);
        self.facts.set_durable(self.durable.load(Ordering::Acquire));
    }

    /// Why the disk does not take what is to be kept, if it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.writer
            .trouble()
            .or_else(|| (!self.refused.is_empty()).then(|| "the disk is too slow".to_owned()))
    }

    /// Says in the log, when that changes, whether the disk takes what is to be kept. Called once a second.
    pub fn look(&mut self) -> bool {
        let trouble = self.trouble();
        if trouble.is_some() != self.in_trouble {
            self.in_trouble = trouble.is_some();
            match trouble {
                Some(trouble) => tracing::error!(
                    trouble,
                    "tickets cannot be written down: nothing is signed, won or claimed until they are"
                ),
                None => tracing::info!("tickets are written down again"),
            }
        }
        self.in_trouble
    }

    /// Writes everything that is left, and ends the thread. Waits for the disk.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn close(mut self, payments: &mut Payments) -> Result<()> {
        self.serve(payments);
        self.writer.close()?;
        if !self.refused.is_empty() {
            bail!("the disk did not take {} changes of tickets", self.refused.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tombola_tickets::{
        Address, BatchHeader, ClassNumber, Randomness, Root, Salt, SignedBatch, SignerKey, TicketCount,
        WindowNumber,
    };

    use super::*;

    #[test]
    fn winners_of_another_link_key_are_not_taken_for_ones_own() {
        let domain = Domain::new(1, Address::repeat_byte(1));
        let (issuer, window) = (Address::repeat_byte(2), WindowNumber(5));
        let key = SignerKey::from_bytes(&[3; 32]).unwrap();
        let header = BatchHeader {
            issuer,
            recipient: Address::repeat_byte(4),
            class: ClassNumber(0),
            window,
            number: 0,
            count: TicketCount::MAX,
            commitment: Randomness::derive(&[7; 32], &domain, &issuer, window).commitment(),
            root: Root::from_bytes([0; 20]),
            salt: Salt::from_bytes([0; 16]),
        };
        let batch = SignedBatch { signature: key.sign(&header.digest(&domain)), header };
        let place = [issuer.as_slice(), &window.0.to_be_bytes()].concat();
        let number = [place.as_slice(), &[0]].concat();
        let value = [[1].as_slice(), &batch.to_bytes()].concat();
        let put =
            |table, key: Vec<u8>, value: Vec<u8>| Change::Put { table, key: key.into(), value: value.into() };

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (file, kept) = PurseFile::open(&path).unwrap();
        check_secret(&path, &kept, &[8; 32], &domain).unwrap();
        let windows = put(tables::WINDOWS, place, vec![1, 0, 0, 0, 0, 0]);
        file.write(vec![windows, put(tables::WON, number, value)]).unwrap();
        drop(file);
        let (_, kept) = PurseFile::open(&path).unwrap();
        check_secret(&path, &kept, &[7; 32], &domain).unwrap();
        let error = check_secret(&path, &kept, &[8; 32], &domain).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("put that key back"), "{error}");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_seen_and_is_well_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = PurseFile::open(&folder.path().join(FILE)).unwrap();
        let mut purse = file.start(|_| {}).unwrap();
        assert!(!purse.look());
        purse.refused.push(StoreOp::Delete { table: Table(1), key: [0; 4].into() });
        assert!(purse.trouble().is_some() && purse.look());
        purse.refused.clear();
        assert!(!purse.look());
    }
}

//! The disk behind the mailboxes: what is there at the start, a thread that writes, and one that reads.
//!
//! Neither ever makes the driver wait. What the gateway wants written goes to the store's writer, and how far that is comes
//! back as an input; what it wants read goes to the thread here, and the mail comes back as an input too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use metrics::{counter, gauge};
use tombola_mixing::Time;
use tombola_node::driver::Inputs;
use tombola_node::metrics as names;
use tombola_protocol::gateway::{Gateway, GatewayInput};
use tombola_protocol::mailbox::record::MAIL;
use tombola_protocol::mailbox::{Fetch, Restore, Stored, StoredMail};
use tombola_protocol::store::StoreOp;
use tombola_storage::{Backlog, Format, Store, StoreError, Writer};

/// The mail's file in the data folder.
const FILE: &str = "mail.redb";
const FORMAT: Format = Format { name: "tombola gateway mail", version: 1 };
/// How long what is to be written waits for more. A client that is connected has collected its mail by then: it never
/// touches the disk. What a crash takes is the mail of this time.
const LINGER: Duration = Duration::from_millis(500);
/// Reads that may wait for the thread. More wait in the gateway, one for each mailbox at most.
const READS: usize = 64;
/// Interval at which the size of the file is looked at.
const SIZE_INTERVAL: Duration = Duration::from_secs(5);

/// The store, before anything is written.
#[derive(Debug)]
pub(crate) struct MailFile {
    store: Arc<Store>,
}

impl MailFile {
    /// Opens the file in the data folder, or makes it, and reads what a gateway has to know of it.
    ///
    /// # Errors
    /// The file is damaged, is not one of mail, is in use, or the disk fails; each error names the file.
    pub(crate) fn open(data: &Path) -> Result<(Self, Stored)> {
        let path = data.join(FILE);
        let store = Store::open(&path, FORMAT)?;
        let mut restore = Restore::default();
        for table in Restore::TABLES {
            store.for_each(table, |key, value| {
                restore.record(table, key, value).map_err(|error| error.reason.to_string())
            })?;
        }
        let stored = restore.finish().map_err(|error| StoreError::Record {
            path,
            table: error.table.0,
            reason: error.reason.to_string(),
        })?;
        Ok((Self { store: Arc::new(store) }, stored))
    }

    /// Starts both threads.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub(crate) fn start(self, inputs: &Inputs<GatewayInput>) -> Result<Disk> {
        let durable = Arc::new(AtomicU64::new(0));
        let (latest, wake) = (Arc::clone(&durable), inputs.clone());
        let writer = self.store.start_writer(LINGER, move |count| {
            latest.store(count, Ordering::Release);
            // Only to wake the driver: if there is no room, it is awake, and looks itself.
            let _ = wake.try_send(GatewayInput::Durable(count));
        });
        let writer = writer.context("the thread that writes mail")?;
        let (reads, received) = bounded(READS);
        let path = self.store.path().to_owned();
        let reader = Reader { store: self.store, path, inputs: inputs.clone(), failing: false };
        let reader =
            std::thread::Builder::new().name("mail-read".into()).spawn(move || reader.run(&received));
        let reader = Some(reader.context("the thread that reads mail")?);
        Ok(Disk { writer, durable, told: 0, refused: Vec::new(), reads: Some(reads), unsent: None, reader })
    }
}

/// The gateway's disk, as its driver sees it.
pub(crate) struct Disk {
    writer: Writer,
    /// How many changes are durable.
    durable: Arc<AtomicU64>,
    /// How many of them the gateway knows about.
    told: u64,
    /// Changes that the writer had no room for: they go before all others.
    refused: Vec<StoreOp>,
    reads: Option<Sender<Fetch>>,
    /// A read for which there was no room.
    unsent: Option<Fetch>,
    reader: Option<JoinHandle<()>>,
}

impl Disk {
    /// Passes on what the gateway wants written and read, and what is durable. Called after everything that happens to it.
    pub(crate) fn serve(&mut self, now: Time, gateway: &mut Gateway) {
        let durable = self.durable.load(Ordering::Acquire);
        if durable > self.told {
            self.told = durable;
            gateway.handle(now, GatewayInput::Durable(durable));
        }
        self.write(gateway);
        while let Some(fetch) = self.unsent.take().or_else(|| gateway.poll_fetch()) {
            let sent = self.reads.as_ref().map(|reads| reads.try_send(fetch));
            if let Some(Err(TrySendError::Full(fetch))) = sent {
                self.unsent = Some(fetch);
                break;
            }
        }
    }

    /// What is done once a second: says whether the disk fails, and publishes how it does.
    pub(crate) fn publish(&mut self, now: Time, gateway: &mut Gateway) {
        let trouble = self.writer.trouble().is_some() || !self.refused.is_empty();
        gateway.handle(now, GatewayInput::StorageTrouble(trouble));
        gauge!(names::STORAGE_TROUBLE).set(f64::from(u8::from(trouble)));
        gauge!(names::STORAGE_BACKLOG_BYTES).set(self.writer.backlog_bytes() as f64);
    }

    /// Writes everything that is left, and ends both threads. Waits for the disk.
    ///
    /// # Errors
    /// Something could not be written.
    pub(crate) fn close(mut self, now: Time, mut gateway: Gateway) -> Result<()> {
        gateway.close(now);
        self.write(&mut gateway);
        drop(self.reads.take());
        let written =
            self.writer.close().context("mail that came last, or what was collected last, is not written");
        if let Some(reader) = self.reader.take() {
            // It has ended in order, or its panic has been printed.
            let _ = reader.join();
        }
        written
    }

    fn write(&mut self, gateway: &mut Gateway) {
        let mut changes = std::mem::take(&mut self.refused);
        if changes.is_empty() {
            changes.extend(std::iter::from_fn(|| gateway.poll_store()));
        }
        if let Err(Backlog(refused)) = self.writer.submit(changes) {
            self.refused = refused;
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("durable", &self.durable).finish_non_exhaustive()
    }
}

/// The thread that reads.
struct Reader {
    store: Arc<Store>,
    path: PathBuf,
    inputs: Inputs<GatewayInput>,
    /// The last read failed: said once, not for each.
    failing: bool,
}

impl Reader {
    fn run(mut self, reads: &Receiver<Fetch>) {
        self.publish_size();
        loop {
            match reads.recv_timeout(SIZE_INTERVAL) {
                Ok(fetch) => {
                    let mails = self.read(&fetch);
                    // Fails only when the driver has ended, and then nobody waits for mail any more.
                    let _ = self.inputs.send(GatewayInput::Fetched { mailbox: fetch.mailbox, mails });
                }
                Err(RecvTimeoutError::Timeout) => self.publish_size(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Nothing, if the disk does not give it: the gateway asks again.
    fn read(&mut self, fetch: &Fetch) -> Vec<StoredMail> {
        let (from, to) = fetch.keys();
        let read = self.store.range(MAIL, &from, &to, fetch.limit).and_then(|records| {
            let decode = |(key, value): &(Box<[u8]>, Box<[u8]>)| {
                StoredMail::decode(key, value).map_err(|error| StoreError::Record {
                    path: self.path.clone(),
                    table: error.table.0,
                    reason: error.reason.to_string(),
                })
            };
            records.iter().map(decode).collect()
        });
        match read {
            Ok(mails) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(path = %self.path.display(), "mail can be read again");
                }
                mails
            }
            Err(error) => {
                counter!(names::MAIL_READ_FAILURES_TOTAL).increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "mail cannot be read; its client gets padding, and it is tried again");
                }
                Vec::new()
            }
        }
    }

    fn publish_size(&self) {
        if let Ok(file) = std::fs::metadata(&self.path) {
            gauge!(names::MAIL_FILE_BYTES).set(file.len() as f64);
        }
    }
}

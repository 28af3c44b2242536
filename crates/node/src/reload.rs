//! The network document while a process runs: read again when its file changes, and put in force only if it may follow the
//! one before.
//!
//! What may follow is said by [`Network::succeeds`]; what was in force before a restart is remembered by its serial number
//! and digest, so that a restart takes no older document and no second one with the same number.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tombola_topology::{AuthorityKey, Network, Refusal, UnixTime};

use crate::clock::unix_now;
use crate::config::{self, ConfigError};
use crate::files;
use crate::membership::{MembershipError, load_network};
use crate::metrics;
use crate::shutdown::Shutdown;

/// How often the file is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a document is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It cannot be read, or is not valid.
    #[error(transparent)]
    Unusable(#[from] MembershipError),
    /// It must not follow the one that is in force.
    #[error("{}: this document is refused: {source}", path.display())]
    Refused {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        source: Refusal,
    },
    /// The record of what was in force is unusable.
    #[error(
        "the record of the last network document: {0}; it guards against old documents: repair or restore it"
    )]
    Record(#[from] ConfigError),
    /// The record cannot be written.
    #[error("{}: the record of the last network document cannot be written: {source}", path.display())]
    Unrecorded {
        /// The record.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl ReloadError {
    /// Whether the authority, or somebody with its key, has signed two documents with one serial number.
    #[must_use]
    pub fn is_equivocation(&self) -> bool {
        matches!(self, Self::Refused { source: Refusal::Equivocation { .. }, .. })
    }
}

/// Which document was in force last: a small file.
#[derive(Clone, Debug)]
pub struct Lineage {
    path: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    authority: String,
    name: String,
    serial: u64,
    digest: String,
}

impl Record {
    fn of(network: &Network) -> Self {
        Self {
            authority: network.authority().to_string(),
            name: network.name().to_owned(),
            serial: network.serial(),
            digest: hex::encode(network.digest()),
        }
    }
}

impl Lineage {
    /// The record `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Whether a document may be used after what was in force last.
    ///
    /// # Errors
    /// It may not, or the record is unusable.
    pub fn admits(&self, network: &Network, document: &Path) -> Result<(), ReloadError> {
        if !self.path.exists() {
            return Ok(());
        }
        let last: Record = config::load(&self.path)?;
        let here = Record::of(network);
        let refusal = if last.authority != here.authority {
            // Whoever configures another authority means another network.
            None
        } else if last.name != here.name {
            Some(Refusal::OtherName { expected: last.name, found: here.name })
        } else if last.serial > here.serial {
            Some(Refusal::Older { expected: last.serial, found: here.serial })
        } else if last.serial == here.serial && last.digest != here.digest {
            let (expected, found) = (last.digest, here.digest);
            Some(Refusal::Equivocation { serial: here.serial, expected, found })
        } else {
            None
        };
        match refusal {
            Some(source) => Err(ReloadError::Refused { path: document.to_owned(), source }),
            None => Ok(()),
        }
    }

    /// Remembers a document, durably.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn record(&self, network: &Network) -> Result<(), ReloadError> {
        let failed = |source| ReloadError::Unrecorded { path: self.path.clone(), source };
        let text = toml::to_string(&Record::of(network)).map_err(std::io::Error::other).map_err(failed)?;
        if fs::read_to_string(&self.path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        files::replace(&self.path, text.as_bytes(), 0o600).map_err(failed)
    }
}

/// What shows that a file was changed or exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { inode: metadata.ino(), length: metadata.len(), modified })
    }
}

/// The document's file, and what is in force.
#[derive(Debug)]
pub struct Documents {
    path: PathBuf,
    authority: AuthorityKey,
    lineage: Lineage,
    stamp: Option<Stamp>,
    current: Arc<Network>,
}

impl Documents {
    /// Reads the document for the first time in this process. Once it is in force, call [`record`](Self::record).
    ///
    /// # Errors
    /// It is unusable, or must not follow what the record says was in force last.
    pub fn open(path: PathBuf, authority: AuthorityKey, lineage: Lineage) -> Result<Self, ReloadError> {
        // Before it is read: a change in between is seen at the next look.
        let stamp = Stamp::of(&path);
        let network = load_network(&path, &authority)?;
        lineage.admits(&network, &path)?;
        Ok(Self { path, authority, lineage, stamp, current: Arc::new(network) })
    }

    /// Remembers that the document is in force: from now on no older one is taken, also after a restart.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn record(&self) -> Result<(), ReloadError> {
        self.lineage.record(&self.current)
    }

    /// The document in force.
    #[must_use]
    pub fn current(&self) -> &Arc<Network> {
        &self.current
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether the file has changed since the last look. `None`: it has not, or the change changes nothing. What is
    /// refused is said once, and looked at again when the file changes again.
    pub fn look(&mut self, now: UnixTime) -> Option<Result<Arc<Network>, ReloadError>> {
        let stamp = Stamp::of(&self.path);
        // A file that is gone may be about to be replaced; what is in force stays.
        if stamp.is_none() || stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        self.read(now)
    }

    /// Reads the file whether or not it seems to have changed.
    pub fn read(&mut self, now: UnixTime) -> Option<Result<Arc<Network>, ReloadError>> {
        match self.try_read(now) {
            Ok(None) => None,
            Ok(Some(network)) => Some(Ok(network)),
            Err(error) => Some(Err(error)),
        }
    }

    fn try_read(&mut self, now: UnixTime) -> Result<Option<Arc<Network>>, ReloadError> {
        let network = load_network(&self.path, &self.authority)?;
        let refused = |source| ReloadError::Refused { path: self.path.clone(), source };
        network.succeeds(&self.current, now).map_err(refused)?;
        if network.digest() == self.current.digest() {
            return Ok(None);
        }
        self.lineage.record(&network)?;
        self.current = Arc::new(network);
        Ok(Some(Arc::clone(&self.current)))
    }
}

/// Looks at the document's file every two seconds, and at once on SIGHUP, until `stop` is triggered. What is put in force
/// appears in the receiver; what is refused is logged, counted, and given to `refused`.
///
/// # Errors
/// The operating system gave no handler for the signal.
pub fn watch(
    mut documents: Documents,
    stop: Shutdown,
    refused: impl Fn(&ReloadError) + Send + 'static,
) -> std::io::Result<watch::Receiver<Arc<Network>>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(Arc::clone(documents.current()));
    publish(documents.current());
    // There from the start, so that nobody takes their absence for zero.
    for counter in [metrics::DOCUMENTS_REFUSED_TOTAL, metrics::KEYS_ERASED_TOTAL] {
        ::metrics::counter!(counter).increment(0);
    }
    tokio::spawn(async move {
        loop {
            let asked = tokio::select! {
                _ = stop.triggered() => return,
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            // Reading and checking a large document takes a while.
            let looked = tokio::task::spawn_blocking(move || {
                let now = UnixTime(unix_now());
                let result = if asked { documents.read(now) } else { documents.look(now) };
                (documents, result)
            });
            let Ok((back, result)) = looked.await else { return };
            documents = back;
            match result {
                None if asked => tracing::info!("the network document has not changed"),
                None => {}
                Some(Ok(network)) => {
                    tracing::info!(serial = network.serial(), "a new network document is in force");
                    publish(&network);
                    sender.send_replace(network);
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "the network document is not put in force; the one before stays");
                    ::metrics::counter!(metrics::DOCUMENTS_REFUSED_TOTAL).increment(1);
                    refused(&error);
                }
            }
        }
    });
    Ok(receiver)
}

fn publish(network: &Network) {
    // The gauge takes a float; serial numbers below 2^53 are exact.
    ::metrics::gauge!(metrics::DOCUMENT_SERIAL).set(network.serial() as f64);
}

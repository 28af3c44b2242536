//! redb's database, which has to be opened again after each failure, and is not trusted not to panic.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use redb::Database;

use crate::error::StoreError;
use crate::group::{self, Meta};
use crate::mark::Marker;
use crate::medium::Medium;
use crate::pending::Pending;
use crate::volume::Volume;

/// Memory for pages of the file. The kernel keeps what it read as well, so a small one costs little.
const CACHE_BYTES: usize = 16 << 20;
/// To open it means to read the whole file. After a failure, readers don't try again for so many times what that took.
const PAUSE: u32 = 10;

/// A database on a medium.
#[derive(Debug)]
pub(crate) struct Reopened {
    path: PathBuf,
    /// Keeps the lock on the file, too.
    medium: Arc<dyn Medium>,
    handle: RwLock<Handle>,
    durable: Mutex<Durable>,
}

#[derive(Debug)]
struct Handle {
    /// Tells one opening from the next, so that a failure closes only the one that failed.
    generation: u64,
    /// `None` between a failure and the next use.
    database: Option<Database>,
    /// Why it could not be opened, and until when readers don't try again.
    failed: Option<(String, Instant)>,
}

/// What is known to be durable.
#[derive(Debug)]
struct Durable {
    groups: u64,
    marker: Marker,
}

/// Why work on the database failed.
pub(crate) enum Failure {
    /// By the database.
    Redb(redb::Error),
    /// By a panic of the caller's.
    Callers(Box<dyn Any + Send>),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Redb(error.into())
    }
}

impl Reopened {
    /// Opens the database, and verifies all of it.
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        path: &Path,
        marker: Marker,
    ) -> Result<(Reopened, Meta), StoreError> {
        let (database, meta) = open(&medium, path, marker.number())?;
        let handle = RwLock::new(Handle { generation: 0, database: Some(database), failed: None });
        let durable = Mutex::new(Durable { groups: meta.groups, marker });
        Ok((Reopened { path: path.to_owned(), medium, handle, durable }, meta))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a group, and returns when it is durable.
    pub(crate) fn write(&self, pending: &Pending, version: Option<u16>) -> Result<(), StoreError> {
        // Held all the time, which keeps the marks in the order of the groups, too.
        let mut durable = self.durable();
        let guard = match self.if_open() {
            Some(guard) => guard,
            None => self.open_again(&mut durable, true)?,
        };
        let written = self.run("write", guard, |database| Ok(group::write(database, pending, version)?))?;
        if let Some(group) = written {
            durable.groups = group;
            durable.marker.set(&*self.medium, group);
        }
        Ok(())
    }

    /// Runs `work` on the database, which must not use it in another way at the same time.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let guard = match self.if_open() {
            Some(guard) => guard,
            None => self.open_again(&mut self.durable(), false)?,
        };
        self.run("read", guard, work)
    }

    fn run<T>(
        &self,
        action: &'static str,
        guard: RwLockReadGuard<'_, Handle>,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let Handle { generation, database: Some(database), .. } = &*guard else {
            return Err(StoreError::io(&self.path, action, io::Error::other("it has just failed")));
        };
        let generation = *generation;
        // redb checks what it reads, but not everything. A panic must not take the process along.
        let result = catch_unwind(AssertUnwindSafe(|| work(database)));
        drop(guard);
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Failure::Callers(panic))) => resume_unwind(panic),
            Ok(Err(Failure::Redb(error))) => StoreError::redb(&self.path, action, error),
            Err(_) => stumbled(&self.path),
        };
        // After most errors redb refuses everything until it is opened again.
        let mut handle = self.exclusive();
        if handle.generation == generation {
            close(handle.database.take());
        }
        Err(error)
    }

    fn if_open(&self) -> Option<RwLockReadGuard<'_, Handle>> {
        Some(self.handle.read().unwrap_or_else(PoisonError::into_inner))
            .filter(|handle| handle.database.is_some())
    }

    /// Opens it again, unless somebody was faster.
    fn open_again(
        &self,
        durable: &mut Durable,
        at_once: bool,
    ) -> Result<RwLockReadGuard<'_, Handle>, StoreError> {
        let mut handle = self.exclusive();
        if handle.database.is_none() {
            let begun = Instant::now();
            if let Some((why, until)) = &handle.failed
                && !at_once
                && begun < *until
            {
                let why = io::Error::other(format!("it cannot be opened again after a failure: {why}"));
                return Err(StoreError::io(&self.path, "read", why));
            }
            // A sync has failed, or may fail now.
            durable.marker.lose();
            match open(&self.medium, &self.path, durable.groups) {
                Ok((database, _)) => {
                    handle.database = Some(database);
                    handle.generation += 1;
                    handle.failed = None;
                }
                Err(error) => {
                    handle.failed = Some((error.to_string(), Instant::now() + PAUSE * begun.elapsed()));
                    return Err(error);
                }
            }
        }
        Ok(RwLockWriteGuard::downgrade(handle))
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Handle> {
        self.handle.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reopened {
    fn drop(&mut self) {
        close(self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).database.take());
    }
}

fn stumbled(path: &Path) -> StoreError {
    StoreError::damaged(path, "the database stumbled over it")
}

pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens the database and verifies the checksums of all its pages, once: redb does so itself if it was not closed in order.
/// Checks that at least `durable` groups are in it.
fn open(medium: &Arc<dyn Medium>, path: &Path, durable: u64) -> Result<(Database, Meta), StoreError> {
    let volume = Volume(medium.clone());
    let open = || {
        let mut builder = builder();
        let repaired = Arc::new(AtomicBool::new(false));
        let flag = repaired.clone();
        builder.set_repair_callback(move |_| flag.store(true, Ordering::Relaxed));
        let mut database = builder.create_with_backend(volume)?;
        if !repaired.load(Ordering::Relaxed) && !database.check_integrity()? {
            tracing::warn!(path = %path.display(), "the store's list of free pages was damaged, and is mended");
        }
        let meta = group::meta(&database)?;
        Ok::<_, redb::Error>((database, meta))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok((_, None))) => Err(StoreError::damaged(path, "it does not know its version")),
        Ok(Ok((_, Some(Meta { groups, .. })))) if groups < durable => {
            let what = format!(
                "its newest state is lost: it holds {groups} groups of changes, and {durable} had been written"
            );
            Err(StoreError::damaged(path, what))
        }
        Ok(Ok((database, Some(meta)))) => Ok((database, meta)),
        Ok(Err(error)) => Err(StoreError::redb(path, "open", error)),
        Err(_) => Err(stumbled(path)),
    }
}

/// Closing writes, so it can stumble, too.
fn close(database: Option<Database>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

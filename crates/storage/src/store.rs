//! A store: tables of records in one file.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};
use tombola_protocol::store::{StoreOp, Table};

use crate::error::StoreError;
use crate::mark::Marker;
use crate::medium::{LockedFile, Medium};
use crate::pending::Pending;
use crate::volume::{self, Image, Volume};
use crate::{files, record};

type Bytes = &'static [u8];
/// A key and its value.
pub type Pair = (Box<[u8]>, Box<[u8]>);

/// Whether to go on.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, String> + 'a;

/// Memory for pages of the file. The kernel keeps what it read as well, so a small one costs little.
const CACHE_BYTES: usize = 16 << 20;

/// What the store knows about itself.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const META_VERSION: &str = "version";
const META_GROUPS: &str = "groups";

/// What a store holds, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Whose state it is; at most 32 bytes.
    pub name: &'static str,
    /// Raised by each change that older programs, or newer ones, would misunderstand.
    pub version: u16,
}

/// One step from an older version of a format to the next one.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The version that it begins with; it ends with the next one.
    pub from: u16,
    /// Reads the old store and says what to change. The changes and the new version are written together.
    pub run: fn(&Store) -> Result<Vec<StoreOp>, StoreError>,
}

/// A store on a file. See the [crate's documentation](crate).
///
/// All methods may be called from several threads. They wait for the disk; [`start_writer`](Self::start_writer) is there for
/// those who must not.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Keeps the lock, too.
    medium: Arc<dyn Medium>,
    marker: Mutex<Marker>,
    /// Set after each failure, when it is unknown whether the last mark is there.
    marks_lost: AtomicBool,
    handle: RwLock<Handle>,
}

/// The database, which has to be opened again after each failure.
#[derive(Debug)]
struct Handle {
    /// Tells one opening from the next, so that a failure closes only the one that failed.
    generation: u64,
    /// `None` between a failure and the next use.
    database: Option<Database>,
}

impl Store {
    /// Opens a store, or creates it with mode 0600; its directory is created with mode 0700 if there is none. Reads the whole
    /// file once, to find damage.
    ///
    /// # Errors
    /// Any of [`StoreError`]. What is there is never replaced.
    pub fn open(path: &Path, format: Format) -> Result<Store, StoreError> {
        Store::open_with(path, format, &[])
    }

    /// [`open`](Self::open), and brings an older version up to date.
    ///
    /// # Errors
    /// The same; [`StoreError::Version`] if there is no step from the version that was found, or if it is newer.
    pub fn open_with(path: &Path, format: Format, migrations: &[Migration]) -> Result<Store, StoreError> {
        let medium = match LockedFile::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, format)?;
                LockedFile::open(path)
            }
            result => result,
        };
        let medium = medium.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Locked(path.to_owned()),
            _ => StoreError::io(path, "open", error),
        })?;
        Store::on(Arc::new(medium), path, format, migrations)
    }

    /// A store on any medium that holds one; `path` is what errors call it. For tests, which begin with
    /// [`new_image`](Self::new_image).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(
        medium: Arc<dyn Medium>,
        path: &Path,
        format: Format,
        migrations: &[Migration],
    ) -> Result<Store, StoreError> {
        let marker = volume::check(&*medium, path, format.name)?;
        let database = open_database(&medium, path)?;
        let handle = RwLock::new(Handle { generation: 0, database: Some(database) });
        let durable = marker.number();
        let store = Store {
            path: path.to_owned(),
            medium,
            marker: Mutex::new(marker),
            marks_lost: AtomicBool::new(false),
            handle,
        };
        let (version, groups) = store.with_database("open", |database| {
            let meta = database.begin_read()?.open_table(META)?;
            let get = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value()));
            Ok((get(META_VERSION)?, get(META_GROUPS)?))
        })?;
        let (Some(version), Some(groups)) = (version.and_then(|version| u16::try_from(version).ok()), groups)
        else {
            return Err(StoreError::damaged(path, "it does not know its version"));
        };
        if groups < durable {
            let what = format!(
                "its newest state is lost: it holds {groups} groups of changes, and {durable} had been written"
            );
            return Err(StoreError::damaged(path, what));
        }
        store.migrate(version, format.version, migrations)?;
        Ok(store)
    }

    /// The content of the file of a new store.
    ///
    /// # Errors
    /// The format's name is too long.
    pub fn new_image(format: Format) -> io::Result<Vec<u8>> {
        let image = Arc::new(Image::new(volume::header(format.name)?));
        let database = builder().create_with_backend(Volume(image.clone())).map_err(io::Error::other)?;
        let fill = || {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_VERSION, u64::from(format.version))?;
            meta.insert(META_GROUPS, 0)?;
            drop(meta);
            transaction.commit()?;
            Ok::<_, redb::Error>(())
        };
        fill().map_err(io::Error::other)?;
        drop(database);
        Ok(image.take())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All records of a table in the order of their keys.
    ///
    /// # Errors
    /// Damage, or the disk fails.
    pub fn load(&self, table: Table) -> Result<Vec<Pair>, StoreError> {
        self.collect(table, None, usize::MAX)
    }

    /// Calls `visit` with each key and value of a table, in the order of the keys, without holding all of them in memory.
    ///
    /// # Errors
    /// Damage, or the disk fails. What `visit` returns as an error ends it and becomes [`StoreError::Record`].
    pub fn for_each(
        &self,
        table: Table,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        self.scan(table, None, &mut |key, value| visit(key, value).map(|()| true))
    }

    /// The first records, at most `limit`, from key `from` to key `to`, both included.
    ///
    /// # Errors
    /// Damage, or the disk fails.
    pub fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        self.collect(table, Some((from, to)), limit)
    }

    /// Writes one group, and returns when it is durable.
    ///
    /// # Errors
    /// The disk fails. The group may then have been written or not, but not in part.
    pub fn commit(&self, operations: Vec<StoreOp>) -> Result<(), StoreError> {
        let mut pending = Pending::default();
        pending.extend(operations);
        self.apply(&pending)
    }

    /// As [`commit`](Self::commit).
    pub(crate) fn apply(&self, pending: &Pending) -> Result<(), StoreError> {
        if pending.is_empty() {
            return Ok(());
        }
        self.write(pending, None)
    }

    fn write(&self, pending: &Pending, version: Option<u16>) -> Result<(), StoreError> {
        // Also keeps the marks in the order of the groups.
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        let group = self.with_database("write", |database| write_group(database, pending, version))?;
        if self.marks_lost.swap(false, Ordering::Relaxed) {
            marker.lose();
        }
        if let Some(group) = group {
            marker.set(&*self.medium, group);
        }
        Ok(())
    }

    fn migrate(&self, found: u16, supported: u16, migrations: &[Migration]) -> Result<(), StoreError> {
        let refused = || StoreError::Version { path: self.path.clone(), found, supported };
        if found > supported {
            return Err(refused());
        }
        for version in found..supported {
            let step = migrations.iter().find(|step| step.from == version).ok_or_else(refused)?;
            let mut pending = Pending::default();
            pending.extend((step.run)(self)?);
            self.write(&pending, Some(version + 1))?;
            tracing::info!(path = %self.path.display(), version = version + 1, "store brought up to date");
        }
        Ok(())
    }

    fn collect(
        &self,
        table: Table,
        keys: Option<(&[u8], &[u8])>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        if limit > 0 {
            self.scan(table, keys, &mut |key, value| {
                pairs.push((key.into(), value.into()));
                Ok(pairs.len() < limit)
            })?;
        }
        Ok(pairs)
    }

    /// Calls `visit` until it returns false.
    fn scan(
        &self,
        table: Table,
        keys: Option<(&[u8], &[u8])>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let refused = |reason| StoreError::Record { path: self.path.clone(), table: table.0, reason };
        self.with_database("read", |database| {
            let transaction = database.begin_read()?;
            let name = table_name(table);
            let opened: ReadOnlyTable<Bytes, Bytes> =
                match transaction.open_table(TableDefinition::new(&name)) {
                    Err(TableError::TableDoesNotExist(_)) => return Ok(Ok(())),
                    result => result?,
                };
            let records = match keys {
                Some((from, to)) => opened.range::<&[u8]>(from..=to)?,
                None => opened.iter()?,
            };
            let mut count = 0;
            for entry in records {
                let (key, stored) = entry?;
                count += 1;
                let Some(value) = record::decode(table, key.value(), stored.value()) else {
                    return Ok(Err("a record is not what was written".into()));
                };
                // The caller's panics are its own.
                match catch_unwind(AssertUnwindSafe(|| visit(key.value(), value))) {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return Ok(Ok(())),
                    Ok(Err(reason)) => return Ok(Err(reason)),
                    Err(panic) => return Err(Failure::Callers(panic)),
                }
            }
            // What was never seen has no checksum that could be wrong.
            if keys.is_none() && count != opened.len()? {
                return Ok(Err(format!("{} records were written, and {count} are there", opened.len()?)));
            }
            Ok(Ok(()))
        })?
        .map_err(refused)
    }

    /// Runs `work` on the database, which is opened again first if something failed before.
    fn with_database<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let guard = self.opened()?;
        let Handle { generation, database: Some(database) } = &*guard else {
            return Err(StoreError::io(
                &self.path,
                action,
                io::Error::other("it was closed after a failure"),
            ));
        };
        let generation = *generation;
        // redb checks what it reads, but not everything. A panic must not take the process along.
        let result = catch_unwind(AssertUnwindSafe(|| work(database)));
        drop(guard);
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(Failure::Callers(panic))) => resume_unwind(panic),
            Ok(Err(Failure::Redb(error))) => StoreError::redb(&self.path, action, error),
            Err(_) => StoreError::damaged(&self.path, "the database stumbled over it"),
        };
        self.discard(generation);
        Err(error)
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Handle>, StoreError> {
        let guard = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        if guard.database.is_some() {
            return Ok(guard);
        }
        drop(guard);
        let mut guard = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if guard.database.is_none() {
            // It syncs, and that may fail.
            self.marks_lost.store(true, Ordering::Relaxed);
            guard.database = Some(open_database(&self.medium, &self.path)?);
            guard.generation += 1;
        }
        drop(guard);
        Ok(self.handle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// After an error redb refuses everything until it is opened again.
    fn discard(&self, generation: u64) {
        let mut guard = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if guard.generation == generation {
            close_database(guard.database.take());
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        close_database(self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).database.take());
    }
}

/// Why work on the database failed.
enum Failure {
    Redb(redb::Error),
    /// A function of the caller panicked.
    Callers(Box<dyn Any + Send>),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Redb(error.into())
    }
}

/// Returns the number of the group, if there was anything to change.
fn write_group(database: &Database, pending: &Pending, version: Option<u16>) -> Result<Option<u64>, Failure> {
    let mut transaction = database.begin_write()?;
    // With one sync instead of two redb would have to guess after a crash which of its two roots counts, and would take the
    // older one if the newer one was damaged. This way that is an error. (It also matters that others choose what is stored:
    // see redb's design, "Security of 1PC+C".)
    transaction.set_two_phase_commit(true);
    if !change(&transaction, pending)? && version.is_none() {
        transaction.abort()?;
        return Ok(None);
    }
    let mut meta = transaction.open_table(META)?;
    let group = meta.get(META_GROUPS)?.map_or(0, |groups| groups.value()) + 1;
    meta.insert(META_GROUPS, group)?;
    if let Some(version) = version {
        meta.insert(META_VERSION, u64::from(version))?;
    }
    drop(meta);
    transaction.commit()?;
    Ok(Some(group))
}

/// Whether anything changed. What removes only what is not there needs no sync.
fn change(transaction: &WriteTransaction, pending: &Pending) -> Result<bool, Failure> {
    let mut changed = false;
    for (table, from, to) in pending.ranges() {
        let mut opened = open_table(transaction, table)?;
        if opened.range::<&[u8]>(from..=to)?.next().transpose()?.is_some() {
            opened.retain_in::<&[u8], _>(from..=to, |_, _| false)?;
            changed = true;
        }
    }
    let mut current: Option<(Table, redb::Table<'_, Bytes, Bytes>)> = None;
    for (table, key, value) in pending.keys() {
        if current.as_ref().is_none_or(|(opened, _)| *opened != table) {
            // A table cannot be open twice.
            drop(current.take());
            current = Some((table, open_table(transaction, table)?));
        }
        let Some((_, opened)) = &mut current else { continue };
        match value {
            Some(value) => {
                opened.insert(key, &*record::encode(table, key, value))?;
                changed = true;
            }
            None => changed |= opened.remove(key)?.is_some(),
        }
    }
    Ok(changed)
}

fn table_name(table: Table) -> String {
    format!("table {}", table.0)
}

fn open_table(
    transaction: &WriteTransaction,
    table: Table,
) -> Result<redb::Table<'_, Bytes, Bytes>, TableError> {
    transaction.open_table(TableDefinition::new(&table_name(table)))
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens the database and verifies the checksums of all its pages, once: redb does so itself if it was not closed in order.
fn open_database(medium: &Arc<dyn Medium>, path: &Path) -> Result<Database, StoreError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let volume = Volume(medium.clone());
    let open = || {
        let mut builder = builder();
        let flag = repaired.clone();
        builder.set_repair_callback(move |_| flag.store(true, Ordering::Relaxed));
        let mut database = builder.create_with_backend(volume)?;
        if !repaired.load(Ordering::Relaxed) && !database.check_integrity()? {
            tracing::warn!(path = %path.display(), "the store's list of free pages was damaged, and is mended");
        }
        Ok::<_, redb::Error>(database)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(StoreError::redb(path, "open", error)),
        Err(_) => Err(StoreError::damaged(path, "the database stumbled over it")),
    }
}

/// Closing writes, so it can stumble, too.
fn close_database(database: Option<Database>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

/// Makes the file, complete or not at all.
fn create(path: &Path, format: Format) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(path, "create", error);
    files::create_directory(files::directory_of(path)).map_err(failed)?;
    let image = Store::new_image(format).map_err(failed)?;
    match files::create_new(path, &image, 0o600) {
        // Another process was faster: then it has it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed),
    }
}

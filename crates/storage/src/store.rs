//! A store: tables of records in one file.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{
    ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
};
use tombola_protocol::store::{StoreOp, Table};

use crate::database::{self, Failure, Reopened};
use crate::error::StoreError;
use crate::group::{self, Bytes, table_name};
use crate::medium::{LockedFile, Medium, Memory};
use crate::pending::Pending;
use crate::volume::{self, Volume};
use crate::{files, record};

/// A key and its value.
pub type Pair = (Box<[u8]>, Box<[u8]>);
/// Whether to go on.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, String> + 'a;

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
    database: Reopened,
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
        let (database, meta) = Reopened::new(medium, path, marker)?;
        let store = Store { database };
        store.migrate(meta.version, format.version, migrations)?;
        Ok(store)
    }

    /// The content of the file of a new store.
    ///
    /// # Errors
    /// The format's name is too long.
    pub fn new_image(format: Format) -> io::Result<Vec<u8>> {
        let image = Arc::new(Memory::new(volume::header(format.name)?));
        let database =
            database::builder().create_with_backend(Volume(image.clone())).map_err(io::Error::other)?;
        group::write_first(&database, format.version).map_err(io::Error::other)?;
        drop(database);
        Ok(image.content())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.database.path()
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
    /// Damage, or the disk fails. What `visit` returns as an error ends it and becomes [`StoreError::Record`]. It must not use
    /// the store, which could wait for it.
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
        self.database.write(pending, None)
    }

    fn migrate(&self, found: u16, supported: u16, migrations: &[Migration]) -> Result<(), StoreError> {
        let refused = || StoreError::Version { path: self.path().to_owned(), found, supported };
        if found > supported {
            return Err(refused());
        }
        for version in found..supported {
            let step = migrations.iter().find(|step| step.from == version).ok_or_else(refused)?;
            let mut pending = Pending::default();
            pending.extend((step.run)(self)?);
            self.database.write(&pending, Some(version + 1))?;
            tracing::info!(path = %self.path().display(), version = version + 1, "store brought up to date");
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
        let refused = |reason| StoreError::Record { path: self.path().to_owned(), table: table.0, reason };
        self.database
            .read(|database| {
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

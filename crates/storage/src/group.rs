//! Groups of changes in redb's terms.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use tombola_protocol::store::Table;

use crate::pending::Pending;
use crate::record;

pub(crate) type Bytes = &'static [u8];

/// What a store knows about itself.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";
const GROUPS: &str = "groups";

/// What a store knows about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    /// Version of its format.
    pub(crate) version: u16,
    /// Number of groups that were written.
    pub(crate) groups: u64,
}

/// Reads what the store knows about itself; `None` if that is not there.
pub(crate) fn meta(database: &Database) -> Result<Option<Meta>, redb::Error> {
    let table = database.begin_read()?.open_table(META)?;
    let get = |key| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value()));
    let version = get(VERSION)?.and_then(|version| u16::try_from(version).ok());
    Ok(version.zip(get(GROUPS)?).map(|(version, groups)| Meta { version, groups }))
}

/// Writes the group of a new store, which has the number 0.
pub(crate) fn write_first(database: &Database, version: u16) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    let mut meta = transaction.open_table(META)?;
    meta.insert(VERSION, u64::from(version))?;
    meta.insert(GROUPS, 0)?;
    drop(meta);
    transaction.commit()?;
    Ok(())
}

/// Writes a group durably; returns its number, if there was anything to change.
pub(crate) fn write(
    database: &Database,
    pending: &Pending,
    version: Option<u16>,
) -> Result<Option<u64>, redb::Error> {
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
    let group = meta.get(GROUPS)?.map_or(0, |groups| groups.value()).saturating_add(1);
    meta.insert(GROUPS, group)?;
    if let Some(version) = version {
        meta.insert(VERSION, u64::from(version))?;
    }
    drop(meta);
    transaction.commit()?;
    Ok(Some(group))
}

/// Whether anything changed. What removes only what is not there needs no sync.
fn change(transaction: &WriteTransaction, pending: &Pending) -> Result<bool, redb::Error> {
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

/// What redb calls a table.
pub(crate) fn table_name(table: Table) -> String {
    format!("table {}", table.0)
}

fn open_table(
    transaction: &WriteTransaction,
    table: Table,
) -> Result<redb::Table<'_, Bytes, Bytes>, TableError> {
    transaction.open_table(TableDefinition::new(&table_name(table)))
}

//! How far the chain was read, kept when everything that followed from it is.
//!
//! A later start goes on behind the cursor, so whatever the chain said before it must be on disk by then. Facts go to a driver,
//! whose machine asks for changes; a disk takes them when it can. So each cursor waits for its facts, however long that takes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tombola_chain::watcher::Cursor;
use tombola_storage::files;

/// How many facts a machine has been told, and what followed from them is durable. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct FactsKept(Arc<AtomicU64>);

impl FactsKept {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What followed from facts, as far as it is not durable: who writes down what a machine asks for keeps this beside it.
#[derive(Debug, Default)]
pub(crate) struct FactMarks {
    told: u64,
    /// So many facts were told by the time that so many changes had been asked for.
    waiting: VecDeque<(u64, u64)>,
    kept: FactsKept,
}

impl FactMarks {
    pub(crate) fn new(kept: FactsKept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The machine was told one more, and has asked for so many changes.
    pub(crate) fn note(&mut self, asked: u64) {
        self.told += 1;
        match self.waiting.back_mut() {
            Some((told, before)) if *before == asked => *told = self.told,
            _ => self.waiting.push_back((self.told, asked)),
        }
    }

    /// So many changes are durable.
    pub(crate) fn set_durable(&mut self, durable: u64) {
        while let Some((told, _)) = self.waiting.pop_front_if(|(_, asked)| *asked <= durable) {
            self.kept.0.store(told, Ordering::Release);
        }
    }
}

/// The file of a cursor, and those that wait for their facts.
#[derive(Debug)]
pub(crate) struct CursorFile {
    path: PathBuf,
    waiting: VecDeque<(u64, Cursor)>,
    kept: FactsKept,
}

impl CursorFile {
    /// Reads the file, if it is there.
    pub(crate) fn open(path: &Path, kept: FactsKept) -> Result<(Self, Cursor)> {
        let named = || path.display().to_string();
        let cursor = match std::fs::read(path) {
            Ok(bytes) => Cursor::from_bytes(&bytes).with_context(named)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Cursor::default(),
            Err(error) => return Err(error).with_context(named),
        };
        Ok((Self { path: path.to_owned(), waiting: VecDeque::new(), kept }, cursor))
    }

    /// So far the chain was read when so many facts had been told.
    pub(crate) fn push(&mut self, told: u64, cursor: Cursor) {
        match self.waiting.back_mut() {
            Some((before, last)) if *before == told => *last = cursor,
            _ => self.waiting.push_back((told, cursor)),
        }
    }

    /// Keeps the last one whose facts are kept.
    pub(crate) fn keep(&mut self) {
        let (kept, mut last) = (self.kept.get(), None);
        while let Some((_, cursor)) = self.waiting.pop_front_if(|(told, _)| *told <= kept) {
            last = Some(cursor);
        }
        if let Some(cursor) = last
            && let Err(error) = files::replace(&self.path, &cursor.to_bytes(), 0o600)
        {
            tracing::warn!(%error, path = %self.path.display(), "how far the chain was read could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cursors differ by their last places, which only a watcher makes.
    fn cursor(number: u64) -> Cursor {
        let place: [&[u8]; 3] = [&[1], &number.to_be_bytes(), &[7; 32]];
        Cursor::from_bytes(&place.concat()).unwrap()
    }

    #[test]
    fn a_cursor_waits_until_what_followed_from_its_facts_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.cursor");
        let kept = FactsKept::default();
        let mut marks = FactMarks::new(kept.clone());
        let (mut file, first) = CursorFile::open(&path, kept.clone()).unwrap();
        assert_eq!(first, Cursor::default());
        let read = || CursorFile::open(&path, FactsKept::default()).unwrap().1;

        // Two facts, after which three changes are asked for, and a third from which nothing follows.
        file.push(2, cursor(5));
        file.push(3, cursor(6));
        file.keep();
        assert_eq!(read(), Cursor::default(), "the machine was told nothing yet");
        marks.note(0);
        marks.note(3);
        marks.note(3);
        marks.set_durable(2);
        file.keep();
        assert_eq!(read(), Cursor::default(), "a slow disk: one change is missing");
        marks.set_durable(3);
        file.keep();
        assert_eq!(read(), cursor(6));
        file.push(3, cursor(9));
        file.keep();
        assert_eq!(read(), cursor(9), "nothing has happened in between");
    }
}

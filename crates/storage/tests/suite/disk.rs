//! A disk that fails when it is told to, and that knows what a power cut could have left of it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tombola_storage::Medium;

/// Deterministic numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What happened, in order.
#[derive(Clone)]
enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLen(usize),
    Sync,
    /// A sync that failed: part of what was not synced is there, and the kernel won't write the rest any more.
    FailedSync,
    /// What the test noted.
    Note(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The number of the first change or sync that fails, from 0.
    pub(crate) from: u64,
    /// How many in a row fail.
    pub(crate) count: u64,
    /// With which error of the system.
    pub(crate) errno: i32,
}

pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EIO: i32 = 5;

struct State {
    content: Vec<u8>,
    start: Vec<u8>,
    history: Vec<Event>,
    /// Changes and syncs so far.
    calls: u64,
    fault: Option<Fault>,
}

/// Shared by those who have a copy.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub(crate) fn new(content: Vec<u8>) -> Disk {
        let start = content.clone();
        Disk(Arc::new(Mutex::new(State { content, start, history: Vec::new(), calls: 0, fault: None })))
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().content.clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// Notes a number between two changes; [`Crash::notes`] has those before a crash.
    pub(crate) fn note(&self, note: u64) {
        self.0.lock().unwrap().history.push(Event::Note(note));
    }

    pub(crate) fn fail(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().fault = fault;
    }

    /// What power cuts before each change could have left.
    pub(crate) fn crashes(&self) -> Crashes {
        let state = self.0.lock().unwrap();
        Crashes {
            history: state.history.clone(),
            next: 0,
            synced: state.start.clone(),
            unsynced: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl State {
    /// Counts a call; `Err` if it has to fail.
    fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        match self.fault {
            Some(Fault { from, count, errno }) if (from..from.saturating_add(count)).contains(&number) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(bytes);
        self.history.push(Event::Write { offset, bytes: bytes.to_vec() });
    }
}

fn index(number: u64) -> io::Result<usize> {
    // What is read may be damaged; no test needs more.
    usize::try_from(number).ok().filter(|number| *number < 1 << 30).ok_or(io::ErrorKind::InvalidInput.into())
}

impl Medium for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let range = index(offset).ok().and_then(|start| state.content.get(start..start + buffer.len()));
        buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let offset = index(offset)?;
        let result = state.call();
        if result.is_ok() {
            state.write(offset, bytes);
        } else {
            // The first part is written.
            state.write(offset, &bytes[..bytes.len() / 2]);
        }
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let len = index(len)?;
        state.call()?;
        state.content.resize(len, 0);
        state.history.push(Event::SetLen(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let result = state.call();
        state.history.push(if result.is_ok() { Event::Sync } else { Event::FailedSync });
        result
    }
}

/// Goes through a history, one change after the other.
pub(crate) struct Crashes {
    history: Vec<Event>,
    next: usize,
    synced: Vec<u8>,
    unsynced: Vec<Event>,
    notes: Vec<u64>,
}

impl Crashes {
    /// Goes on to the next moment in which there is something that is not synced, or something new is.
    pub(crate) fn advance(&mut self, random: &mut Random) -> bool {
        let Some(event) = self.history.get(self.next) else { return false };
        self.next += 1;
        match event {
            Event::Write { .. } | Event::SetLen(_) => self.unsynced.push(event.clone()),
            Event::Sync => {
                let all = self.unsynced.len();
                self.synced = apply(&self.synced, &self.unsynced, 1 << 20, all, &mut || all);
                self.unsynced.clear();
            }
            Event::FailedSync => {
                self.synced = self.image(random);
                self.unsynced.clear();
            }
            Event::Note(note) => self.notes.push(*note),
        }
        true
    }

    /// What was noted before.
    pub(crate) fn notes(&self) -> &[u64] {
        &self.notes
    }

    /// One of the images that a power cut now can leave: of each part of what is not synced it has the state after any
    /// number of the changes.
    pub(crate) fn image(&self, random: &mut Random) -> Vec<u8> {
        let granularity = [1, 16, 512, 512, 4096, 4096][random.below(6)];
        let events = self.unsynced.len();
        let len_after = random.below(events + 1);
        apply(&self.synced, &self.unsynced, granularity, len_after, &mut || random.below(events + 1))
    }

    /// What is left if only the process dies.
    pub(crate) fn killed(&self) -> Vec<u8> {
        let all = self.unsynced.len();
        apply(&self.synced, &self.unsynced, 1 << 20, all, &mut || all)
    }
}

/// Of each chunk of `granularity` bytes the state after `after()` of the events, and the length after `len_after`.
fn apply(
    start: &[u8],
    events: &[Event],
    granularity: usize,
    len_after: usize,
    after: &mut dyn FnMut() -> usize,
) -> Vec<u8> {
    let mut len = start.len();
    let mut longest = len;
    let mut final_len = len;
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Write { offset, bytes } => len = len.max(offset + bytes.len()),
            Event::SetLen(new) => len = *new,
            _ => {}
        }
        longest = longest.max(len);
        if number < len_after {
            final_len = len;
        }
    }
    let mut content = start.to_vec();
    content.resize(longest, 0);
    let mut chosen: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let (range, bytes): (Range<usize>, Option<&[u8]>) = match event {
            Event::Write { offset, bytes } => (*offset..offset + bytes.len(), Some(bytes)),
            Event::SetLen(len) => (*len..longest, None),
            _ => continue,
        };
        let mut at = range.start;
        while at < range.end {
            let chunk = at / granularity;
            let end = ((chunk + 1) * granularity).min(range.end);
            let cut = *chosen.entry(chunk).or_insert_with(&mut *after);
            if number < cut {
                match bytes {
                    Some(bytes) => {
                        content[at..end].copy_from_slice(&bytes[at - range.start..end - range.start]);
                    }
                    None => content[at..end].fill(0),
                }
            }
            at = end;
        }
    }
    content.truncate(final_len);
    content
}

#[test]
fn a_cut_leaves_what_was_synced_and_any_part_of_the_rest() {
    let disk = Disk::new(vec![0; 8]);
    disk.write_at(0, &[1; 8]).unwrap();
    disk.sync().unwrap();
    disk.note(1);
    disk.write_at(4, &[2; 8]).unwrap();
    disk.write_at(6, &[3; 2]).unwrap();
    let mut random = Random(1);
    let mut crashes = disk.crashes();
    let mut seen = std::collections::BTreeSet::new();
    while crashes.advance(&mut random) {
        for _ in 0..200 {
            let image = crashes.image(&mut random);
            if crashes.notes().is_empty() {
                assert!(image.len() == 8 && image.iter().all(|byte| [0, 1].contains(byte)));
            } else {
                assert_eq!(image[..4], [1; 4]);
                seen.insert(image);
            }
        }
    }
    assert!(seen.contains(&vec![1; 8]) && seen.contains(&vec![1, 1, 1, 1, 2, 2, 3, 3, 2, 2, 2, 2]));
    assert!(seen.contains(&vec![1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]));
    assert!(seen.iter().any(|image| image[4..6] == [1, 2]), "torn anywhere");
    assert_eq!(crashes.killed(), disk.content());
}

//! Tag logs after power cuts, on disks that fail, and damaged.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tombola_protocol::taglog::{LogRefused, TagLog};
use tombola_storage::Medium;
use tombola_storage::taglog::{self, BACKLOG, FileTagLog, TagLogError, new_image};

use crate::disk::{Disk, EIO, ENOSPC, Fault, Random};

const KEY: [u8; 32] = [3; 32];

fn tag(number: u64) -> u64 {
    Random(number).next()
}

fn tags(from: u64, count: u64) -> Vec<u64> {
    (from..from + count).map(tag).collect()
}

fn new_disk() -> Disk {
    Disk::new(new_image(&KEY))
}

/// Opens a log, checks that each tag is the one that was appended there, and returns how many there are.
fn open(disk: &Disk) -> Result<(FileTagLog, u64), TagLogError> {
    let mut position = 0;
    let load = |chunk: &[u64]| {
        assert_eq!(chunk, tags(position, chunk.len() as u64));
        position += chunk.len() as u64;
    };
    let notes = disk.clone();
    let log = FileTagLog::on(Arc::new(disk.clone()), Path::new("tags"), KEY, load, move |durable| {
        notes.note(durable);
    })?;
    assert_eq!(log.durable(), position);
    Ok((log, position))
}

/// Appends in groups of many sizes, each until it is taken, and waits until each is durable.
fn append(log: &FileTagLog, mut position: u64, groups: u64) -> u64 {
    for group in 0..groups {
        let count = [1, 2, 7, 300, 9000][group as usize % 5];
        let fingerprints = tags(position, count);
        position += count;
        loop {
            match log.append(&fingerprints) {
                Ok(after) => {
                    assert_eq!(after, position);
                    break;
                }
                Err(refused) => assert_eq!(refused, LogRefused::Failing),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        log.need(position, Duration::ZERO);
        while log.durable() < position {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    position
}

/// What a power cut left: everything that was reported, and nothing that was never appended. Goes on from there.
fn check(image: Vec<u8>, reported: u64) {
    let disk = Disk::new(image);
    let (log, found) = open(&disk).unwrap();
    assert!(found >= reported, "{found} are there, and {reported} were reported");
    log.append(&tags(found, 3)).unwrap();
    log.close().unwrap();
    assert_eq!(open(&disk).unwrap().1, found + 3);
}

#[test]
fn power_cuts_lose_nothing_that_was_durable() {
    let disk = new_disk();
    let (log, _) = open(&disk).unwrap();
    append(&log, 0, 12);
    log.close().unwrap();
    let mut random = Random(1);
    let mut crashes = disk.crashes();
    while crashes.advance(&mut random) {
        let reported = crashes.notes().last().copied().unwrap_or_default();
        check(crashes.killed(), reported);
        for _ in 0..30 {
            check(crashes.image(&mut random), reported);
        }
    }
    assert_eq!(crashes.notes().len(), 12);
}

#[test]
fn each_failing_call_is_survived() {
    let calls = {
        let disk = new_disk();
        append(&open(&disk).unwrap().0, 0, 6);
        disk.calls()
    };
    assert!(calls > 15);
    for from in 0..calls {
        for errno in [ENOSPC, EIO] {
            let disk = new_disk();
            disk.fail(Some(Fault { from, count: 1 + from % 2, errno }));
            let log = match open(&disk) {
                Ok((log, _)) => log,
                Err(TagLogError::Full { .. }) if errno == ENOSPC => continue,
                Err(TagLogError::Io { .. }) if errno == EIO => continue,
                Err(error) => panic!("{error}"),
            };
            let position = append(&log, 0, 6);
            assert_eq!(log.trouble(), None);
            disk.fail(None);
            log.close().unwrap();
            assert_eq!(open(&disk).unwrap().1, position);

            let mut random = Random(from);
            let mut crashes = disk.crashes();
            while crashes.advance(&mut random) {
                let reported = crashes.notes().last().copied().unwrap_or_default();
                check(crashes.image(&mut random), reported);
            }
        }
    }
}

#[test]
fn while_the_disk_fails_packets_are_refused_and_those_that_wait_are_kept() {
    let disk = new_disk();
    let (log, _) = open(&disk).unwrap();
    disk.fail(Some(Fault { from: 0, count: u64::MAX, errno: ENOSPC }));
    assert_eq!(log.append(&tags(0, 5)), Ok(5));
    log.need(5, Duration::ZERO);
    while log.trouble().is_none() {
        std::thread::yield_now();
    }
    assert!(log.trouble().unwrap().starts_with("tags: the disk is full: make room; packets are refused"));
    assert_eq!(log.append(&[1]), Err(LogRefused::Failing));
    assert_eq!((log.durable(), log.backlog()), (0, 5));
    disk.fail(None);
    assert_eq!(append(&log, 5, 1), 6);
    assert_eq!((log.trouble(), log.backlog()), (None, 0));
    disk.fail(Some(Fault { from: 0, count: u64::MAX, errno: EIO }));
    log.append(&tags(6, 1)).unwrap();
    assert!(
        matches!(log.close(), Err(TagLogError::Io { .. })),
        "closing does not wait for the disk to recover"
    );
    disk.fail(None);
    assert_eq!(open(&disk).unwrap().1, 6);
}

/// A disk on which a sync takes until it is allowed.
#[derive(Debug)]
struct Slow {
    disk: Disk,
    open: Mutex<bool>,
    changed: Condvar,
}

impl Slow {
    fn set_open(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.changed.notify_all();
    }
}

impl Medium for Slow {
    fn len(&self) -> std::io::Result<u64> {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.disk.set_len(len)
    }
    fn sync(&self) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.changed.wait(open).unwrap();
        }
        self.disk.sync()
    }
}

#[test]
fn on_a_slow_disk_the_backlog_is_bounded_and_nobody_waits() {
    let disk = new_disk();
    let slow = Arc::new(Slow { disk: disk.clone(), open: Mutex::new(true), changed: Condvar::new() });
    let log = FileTagLog::on(slow.clone(), Path::new("tags"), KEY, |_| (), |_| ()).unwrap();
    slow.set_open(false);
    let mut position = 0;
    let refused = loop {
        match log.append(&tags(position, 1000)) {
            Ok(after) => position = after,
            Err(refused) => break refused,
        }
        log.need(position, Duration::ZERO);
        assert_eq!(log.durable(), 0);
    };
    assert_eq!(refused, LogRefused::Full);
    assert!(position <= BACKLOG as u64 && position + 1000 > BACKLOG as u64);
    slow.set_open(true);
    log.close().unwrap();
    assert_eq!(log.durable(), position);
    drop(log);
    assert_eq!(open(&disk).unwrap().1, position);
}

fn closed() -> (Vec<u8>, u64) {
    let disk = new_disk();
    let (log, _) = open(&disk).unwrap();
    let position = append(&log, 0, 9);
    log.close().unwrap();
    (disk.content(), position)
}

fn is_found(error: &TagLogError) -> bool {
    matches!(error, TagLogError::Damaged { .. })
}

#[test]
fn flipped_bits_are_found() {
    let (image, position) = closed();
    let mut random = Random(4);
    let first_page = (0..64 * 8).chain(512 * 8..524 * 8).chain(1024 * 8..1036 * 8);
    let record_headers = 4096 * 8..4160 * 8;
    let others: Vec<_> = (0..4000).map(|_| 4096 * 8 + random.below((image.len() - 4096) * 8)).collect();
    for bit in first_page.chain(record_headers).chain(others) {
        let mut damaged = image.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let in_a_mark = (512..4096).contains(&(bit / 8));
        match open(&Disk::new(damaged)) {
            // One mark is left, or the other.
            Ok((_, found)) => assert!(in_a_mark && found == position, "bit {bit}"),
            Err(error) => assert!(is_found(&error) && !in_a_mark, "bit {bit}: {error}"),
        }
    }
}

#[test]
fn files_that_are_cut_off_are_found() {
    let (image, position) = closed();
    let mut random = Random(5);
    let lengths =
        (0..4200).chain((0..2000).map(|_| random.below(image.len()))).chain(image.len() - 20..image.len());
    for len in lengths {
        let error = open(&Disk::new(image[..len].to_vec())).map(|(_, found)| found).unwrap_err();
        assert!(is_found(&error), "cut off at {len}: {error}");
    }
    // At the end of a record, too.
    let last = image.len() - (16 + 8 * 300);
    let error = open(&Disk::new(image[..last].to_vec())).map(drop).unwrap_err();
    let expected = format!(
        "tags: damaged: at byte {last} of {last}: {} tags are readable, and {position} had",
        position - 300
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn what_follows_the_last_record_is_cut_off() {
    let (image, position) = closed();
    let mut random = Random(6);
    for round in 0..300 {
        let mut longer = image.clone();
        let more = 1 + random.below(5000);
        match round % 3 {
            0 => longer.resize(image.len() + more, 0),
            1 => longer.extend((0..more).map(|_| random.next() as u8)),
            // An old record is none at another place.
            _ => longer.extend_from_slice(&image[4096..4096 + more]),
        }
        check(longer, position);
    }
}

#[test]
fn records_of_another_key_are_none() {
    let (image, _) = closed();
    let mut other = new_image(&[4; 32]);
    other.extend_from_slice(&image[4096..]);
    let disk = Disk::new(other.clone());
    let mut count = 0;
    let log =
        FileTagLog::on(Arc::new(disk), Path::new("tags"), [4; 32], |chunk| count += chunk.len(), |_| ());
    drop(log.unwrap());
    assert_eq!(count, 0);
    let error = open(&Disk::new(other)).map(drop).unwrap_err();
    assert!(matches!(error, TagLogError::OtherKey(_)), "{error}");
}

#[test]
fn other_versions_are_refused() {
    let mut image = new_image(&KEY);
    image[16] = 2;
    let sum = crc32fast::hash(&image[..60]).to_le_bytes();
    image[60..64].copy_from_slice(&sum);
    let error = open(&Disk::new(image)).map(drop).unwrap_err();
    assert!(matches!(error, TagLogError::Version { found: 2, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "tags: version 2 of its format, and this program reads 1: use the program that wrote it"
    );
}

#[test]
fn reading_takes_little_memory() {
    let disk = new_disk();
    let (log, _) = open(&disk).unwrap();
    let mut position = 0;
    for _ in 0..3 {
        position = log.append(&tags(position, 50_000)).unwrap();
    }
    log.close().unwrap();
    let mut chunks = 0;
    let found = taglog::scan(&disk, &KEY, |chunk| {
        chunks += 1;
        assert!(chunk.len() <= 8192);
    });
    assert_eq!(found.unwrap().fingerprints, position);
    assert!(chunks >= 18);
}

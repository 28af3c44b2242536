//! What a tag log is for, on a disk that works.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tombola_protocol::taglog::{LogRefused, TagLog};
use tombola_storage::taglog::{self, FileTagLog, TagLogError};

const KEY: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(60);

struct Opened {
    log: FileTagLog,
    loaded: Vec<u64>,
    durable: Receiver<u64>,
}

fn open(path: &Path) -> Result<Opened, TagLogError> {
    let mut loaded = Vec::new();
    let (sender, durable) = mpsc::channel();
    let log = FileTagLog::open(
        path,
        KEY,
        |chunk| loaded.extend_from_slice(chunk),
        move |position| _ = sender.send(position),
    )?;
    Ok(Opened { log, loaded, durable })
}

#[test]
fn what_is_appended_is_there_next_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("tags");
    let mut expected: Vec<u64> = Vec::new();
    for round in 0..4_u64 {
        let Opened { log, loaded, durable } = open(&path).unwrap();
        assert_eq!(loaded, expected);
        assert_eq!(log.durable(), expected.len() as u64);
        // More than a record holds, too.
        for count in [1, 3, 20_000 * (round % 2)] {
            let tags: Vec<u64> =
                (0..count).map(|tag| tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round).collect();
            expected.extend(&tags);
            assert_eq!(log.append(&tags), Ok(expected.len() as u64));
        }
        while durable.recv_timeout(PATIENCE).unwrap() < expected.len() as u64 {}
        assert_eq!(log.durable(), expected.len() as u64);
        expected.push(round);
        log.append(&[round]).unwrap();
        log.close().unwrap();
        log.close().unwrap();
        assert_eq!(log.durable(), expected.len() as u64, "closing makes durable what waits");
        assert_eq!(log.append(&[1]), Err(LogRefused::Closed));
    }
}

#[test]
fn one_sync_covers_what_comes_together() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { log, durable, .. } = open(&directory.path().join("tags")).unwrap();
    let begun = Instant::now();
    for tag in 0..100 {
        assert_eq!(log.append(&[tag]), Ok(tag + 1));
    }
    let first = durable.recv_timeout(PATIENCE).unwrap();
    // Without being needed, a tag waits for others; a machine that is so slow that it takes longer shows nothing.
    if begun.elapsed() < Duration::from_millis(240) {
        panic!("durable after {:?}, up to {first}: nobody needed it", begun.elapsed());
    }
}

#[test]
fn what_is_needed_is_durable_sooner() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { log, durable, .. } = open(&directory.path().join("tags")).unwrap();
    // One of many attempts: the machine, or its disk, may be busy.
    let mut times = (0..200).map(|tag| {
        let position = log.append(&[tag]).unwrap();
        log.need(position, Duration::from_millis(20));
        let begun = Instant::now();
        while durable.recv_timeout(PATIENCE).unwrap() < position {}
        begun.elapsed()
    });
    assert!(times.any(|time| time < taglog::LINGER / 2), "it is never durable sooner");
}

#[test]
fn two_cannot_have_it_and_no_other_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tags");
    let opened = open(&path).unwrap();
    assert!(matches!(open(&path).map(drop), Err(TagLogError::Locked(_))));
    drop(opened);
    open(&path).map(drop).unwrap();
    let other = FileTagLog::open(&path, [8; 32], |_| (), |_| ()).map(drop).unwrap_err();
    assert!(matches!(other, TagLogError::OtherKey(_)), "{other}");
    std::fs::write(&path, b"something else").unwrap();
    assert!(matches!(open(&path).map(drop), Err(TagLogError::Damaged { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"something else");
}

#[test]
fn files_are_private_and_can_be_erased() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("tags");
    drop(open(&path).unwrap());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    taglog::erase(&path).unwrap();
    assert!(!path.exists());
    taglog::erase(&path).unwrap();
}

//! A store on a disk that fails.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{BACKLOG_BYTES, Store, StoreError};

use crate::disk::{Disk, EIO, ENOSPC, Fault, Random};
use crate::store_crash::{Model, apply, check, content, group, new_disk, open, write_groups};

const PATIENCE: Duration = Duration::from_secs(60);
const GROUPS: u64 = 6;

/// Writes groups, each until it is written; returns what should be there after each, and the errors.
fn write_stubbornly(disk: &Disk) -> (Vec<Model>, Vec<StoreError>) {
    let mut random = Random(7);
    let mut errors = Vec::new();
    let store = open(disk).unwrap();
    let mut states = vec![Model::new()];
    for number in 1..=GROUPS {
        let operations = group(number, &mut random);
        let mut model = states[states.len() - 1].clone();
        apply(&mut model, &operations);
        states.push(model);
        while let Err(error) = store.commit(operations.clone()) {
            errors.push(error);
            assert!(errors.len() < 100, "it does not recover: {errors:?}");
            // Reading fails clearly or gives what is there.
            if let Ok(found) = content(&store) {
                assert!(states[states.len() - 2..].contains(&found));
            }
        }
        disk.note(number);
        assert_eq!(content_soon(&store), states[states.len() - 1]);
    }
    (states, errors)
}

/// After a failure it takes a moment until readers try again.
fn content_soon(store: &Store) -> Model {
    loop {
        match content(store) {
            Ok(found) => return found,
            Err(error) => {
                assert!(error.to_string().contains("it cannot be opened again after a failure"), "{error}");
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The numbers of the changes and syncs that writing consists of, after opening.
fn calls() -> std::ops::Range<u64> {
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let opening = disk.calls();
    drop(store);
    let disk = new_disk();
    write_stubbornly(&disk);
    opening..disk.calls()
}

#[test]
fn each_failing_call_is_survived() {
    let (mut full, mut other) = (0, 0);
    for from in calls() {
        let errno = if from % 2 == 0 { ENOSPC } else { EIO };
        let disk = new_disk();
        disk.fail(Some(Fault { from, count: 1 + from % 5, errno }));
        let (states, errors) = write_stubbornly(&disk);
        for error in &errors {
            match error {
                StoreError::Full { .. } => full += 1,
                StoreError::Io { .. } => other += 1,
                unexpected => panic!("{unexpected}"),
            }
            let full = "disk: the disk is full: make room; nothing is lost";
            let wanted = if errno == ENOSPC { full } else { "disk: cannot" };
            assert!(error.to_string().starts_with(wanted), "{error}");
        }
        disk.fail(None);
        assert_eq!(content(&open(&disk).unwrap()).unwrap(), states[states.len() - 1]);

        // And what a power cut leaves of that, syncs that failed included.
        let mut random = Random(from);
        let mut crashes = disk.crashes();
        while crashes.advance(&mut random) && crashes.notes().len() < GROUPS as usize {
            if random.below(16) == 0 {
                check(crashes.image(&mut random), &crashes, &states);
            }
        }
    }
    assert!(full > 20 && other > 20, "{full} {other}");
}

#[test]
fn a_disk_that_fails_while_opening_is_an_error() {
    let disk = new_disk();
    write_groups(&disk, &open(&disk).unwrap(), 3, &mut Random(1));
    // Not closed in order, so that there is something to repair.
    let mut crashes = disk.crashes();
    while crashes.notes().len() < 3 && crashes.advance(&mut Random(1)) {}
    let image = crashes.killed();
    let disk = Disk::new(image.clone());
    let expected = content(&open(&disk).unwrap()).unwrap();
    let mut failed = 0;
    for from in 0..disk.calls() {
        let disk = Disk::new(image.clone());
        disk.fail(Some(Fault { from, count: u64::MAX, errno: EIO }));
        match open(&disk) {
            Err(StoreError::Io { .. }) => failed += 1,
            Err(unexpected) => panic!("{unexpected}"),
            Ok(store) => assert_eq!(content(&store).unwrap(), expected),
        }
        disk.fail(None);
        assert_eq!(content(&open(&disk).unwrap()).unwrap(), expected);
    }
    assert!(failed > 3, "{failed}");
}

#[test]
fn the_writer_keeps_what_it_has_until_there_is_room() {
    let disk = new_disk();
    let store = Arc::new(open(&disk).unwrap());
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(Duration::ZERO, move |count| sender.send(count).unwrap()).unwrap();
    let mut random = Random(3);
    let mut model = Model::new();
    let mut submitted = 0;
    for round in 0..3 {
        disk.fail(Some(Fault { from: 0, count: u64::MAX, errno: ENOSPC }));
        for number in 0..10 {
            let operations = group(round * 10 + number, &mut random);
            submitted += operations.len() as u64;
            apply(&mut model, &operations);
            writer.submit(operations).unwrap();
        }
        while writer.trouble().is_none() {
            std::thread::yield_now();
        }
        assert!(writer.trouble().unwrap().contains("the disk is full"), "{:?}", writer.trouble());
        assert!(writer.backlog_bytes() > 0);
        assert_eq!(counts.try_recv(), Err(mpsc::TryRecvError::Empty));
        disk.fail(None);
        while counts.recv_timeout(PATIENCE).unwrap() < submitted {}
        assert_eq!(writer.trouble(), None);
        assert_eq!(writer.backlog_bytes(), 0);
        assert_eq!(content(&store).unwrap(), model);
    }
    disk.fail(Some(Fault { from: 0, count: u64::MAX, errno: EIO }));
    writer
        .submit(vec![StoreOp::Put { table: Table(1), key: b"lost".as_slice().into(), value: [].into() }])
        .unwrap();
    assert!(
        matches!(writer.close(), Err(StoreError::Io { .. })),
        "closing does not wait for the disk to recover"
    );
    disk.fail(None);
    assert_eq!(content_soon(&store), model);
}

#[test]
fn the_backlog_is_bounded_and_what_is_refused_comes_back() {
    let disk = new_disk();
    let store = Arc::new(open(&disk).unwrap());
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(Duration::ZERO, move |count| sender.send(count).unwrap()).unwrap();
    disk.fail(Some(Fault { from: 0, count: u64::MAX, errno: EIO }));
    let large =
        |key: u8| StoreOp::Put { table: Table(1), key: [key].into(), value: vec![key; 10 << 20].into() };
    for key in 0..6 {
        writer.submit(vec![large(key)]).unwrap();
    }
    let refused = writer.submit(vec![large(6), large(7)]).unwrap_err();
    assert_eq!(refused.0, [large(6), large(7)]);
    assert!(writer.backlog_bytes() <= BACKLOG_BYTES);
    // What removes fits, and makes room.
    writer.submit(vec![StoreOp::DeleteRange { table: Table(1), from: [0].into(), to: [4].into() }]).unwrap();
    disk.fail(None);
    while counts.recv_timeout(PATIENCE).unwrap() < 7 {}
    writer.submit(refused.0).unwrap();
    writer.close().unwrap();
    let keys: Vec<_> = store.load(Table(1)).unwrap().into_iter().map(|(key, _)| key[0]).collect();
    assert_eq!(keys, [5, 6, 7]);
}

#[test]
fn what_is_overtaken_never_touches_the_disk() {
    let disk = new_disk();
    let store = Arc::new(open(&disk).unwrap());
    store.commit(vec![StoreOp::Put { table: Table(1), key: [0].into(), value: [].into() }]).unwrap();
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(PATIENCE, move |count| sender.send(count).unwrap()).unwrap();
    let before = disk.calls();
    for key in 1..=9 {
        let secret = b"a letter that nobody may find on the disk";
        let put = StoreOp::Put { table: Table(1), key: [key].into(), value: secret.as_slice().into() };
        writer.submit(vec![put]).unwrap();
    }
    writer.submit(vec![StoreOp::DeleteRange { table: Table(1), from: [1].into(), to: [8].into() }]).unwrap();
    writer.submit(vec![StoreOp::Delete { table: Table(1), key: [9].into() }]).unwrap();
    writer.close().unwrap();
    assert_eq!(counts.try_recv(), Ok(11));
    assert_eq!(disk.calls(), before, "there was nothing to change");
}

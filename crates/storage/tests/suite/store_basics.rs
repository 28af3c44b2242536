//! What a store is for, on a disk that works.

use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{Format, Migration, Pair, Store, StoreError};

const FORMAT: Format = Format { name: "test", version: 1 };
const LINGER: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

fn put(table: u8, key: &str, value: &str) -> StoreOp {
    StoreOp::Put { table: Table(table), key: key.as_bytes().into(), value: value.as_bytes().into() }
}

fn delete(table: u8, key: &str) -> StoreOp {
    StoreOp::Delete { table: Table(table), key: key.as_bytes().into() }
}

fn delete_range(table: u8, from: &str, to: &str) -> StoreOp {
    StoreOp::DeleteRange { table: Table(table), from: from.as_bytes().into(), to: to.as_bytes().into() }
}

fn texts(pairs: Vec<Pair>) -> Vec<String> {
    pairs
        .iter()
        .map(|(key, value)| [&key[..], b"=", value].concat())
        .map(|text| text.escape_ascii().to_string())
        .collect()
}

#[test]
fn what_is_written_is_there_next_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("store");
    let store = Store::open(&path, FORMAT).unwrap();
    assert_eq!(texts(store.load(Table(1)).unwrap()), [""; 0]);
    store.commit(vec![put(1, "b", "2"), put(1, "a", "1"), put(2, "a", "other")]).unwrap();
    store.commit(vec![put(1, "c", "3"), put(1, "d", "4"), put(1, "e", "5")]).unwrap();
    drop(store);
    let store = Store::open(&path, FORMAT).unwrap();
    assert_eq!(texts(store.load(Table(1)).unwrap()), ["a=1", "b=2", "c=3", "d=4", "e=5"]);
    assert_eq!(texts(store.load(Table(2)).unwrap()), ["a=other"]);
    assert_eq!(texts(store.range(Table(1), b"b", b"d", 10).unwrap()), ["b=2", "c=3", "d=4"]);
    assert_eq!(texts(store.range(Table(1), b"b", b"d", 2).unwrap()), ["b=2", "c=3"]);
    assert_eq!(texts(store.range(Table(1), b"b", b"d", 0).unwrap()), [""; 0]);
    assert_eq!(texts(store.range(Table(1), b"d", b"b", 9).unwrap()), [""; 0]);
    store.commit(vec![delete_range(1, "bb", "d"), delete(1, "a"), put(1, "c", "again")]).unwrap();
    assert_eq!(texts(store.load(Table(1)).unwrap()), ["b=2", "c=again", "e=5"]);
    assert_eq!(texts(store.load(Table(2)).unwrap()), ["a=other"]);
}

#[test]
fn the_owner_of_a_record_may_refuse_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, FORMAT).unwrap();
    store.commit(vec![put(9, "a", "1"), put(9, "b", "2")]).unwrap();
    let mut seen = Vec::new();
    let error = store.for_each(Table(9), |key, _| {
        seen.push(key.to_vec());
        if key == b"b" { Err("a letter has no address".into()) } else { Ok(()) }
    });
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with(&format!("{}: table 9: a letter has no address; ", path.display())), "{text}");
    assert_eq!(seen, [b"a", b"b"]);
    assert_eq!(store.load(Table(9)).unwrap().len(), 2, "the store works on");
}

#[test]
fn a_panic_of_the_visitor_is_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), FORMAT).unwrap();
    store.commit(vec![put(1, "a", "1")]).unwrap();
    let visit = || store.for_each(Table(1), |_, _| panic!("mine"));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(visit)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"mine"));
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("store");
    drop(Store::open(&path, FORMAT).unwrap());
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn two_cannot_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, FORMAT).unwrap();
    let error = Store::open(&path, FORMAT).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(store);
    Store::open(&path, FORMAT).unwrap();
}

#[test]
fn only_one_of_many_creators_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let barrier = Barrier::new(4);
    let opened: Vec<_> = std::thread::scope(|scope| {
        let open = || {
            barrier.wait();
            Store::open(&path, FORMAT)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(opened.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::Locked(_)))));
}

#[test]
fn other_files_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for content in [&b""[..], b"tombola", b"hello world, this is a text"] {
        std::fs::write(&path, content).unwrap();
        let error = Store::open(&path, FORMAT).unwrap_err();
        assert!(matches!(error, StoreError::OtherFormat { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::remove_file(&path).unwrap();
    drop(Store::open(&path, FORMAT).unwrap());
    let error = Store::open(&path, Format { name: "tests", version: 1 }).unwrap_err();
    assert!(error.to_string().contains("not a store of \"tests\": it is a store of \"test\""), "{error}");
    let directory_error = Store::open(directory.path(), FORMAT).unwrap_err();
    assert!(matches!(directory_error, StoreError::Io { .. }), "{directory_error}");
}

#[test]
fn versions_are_checked_and_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let version = |version| Format { version, ..FORMAT };
    Store::open(&path, version(2)).unwrap().commit(vec![put(1, "a", "old")]).unwrap();
    let error = Store::open(&path, version(1)).unwrap_err();
    assert!(
        error.to_string().contains("version 2 of its format, and this program reads 1: use a newer"),
        "{error}"
    );
    let error = Store::open(&path, version(3)).unwrap_err();
    assert!(matches!(error, StoreError::Version { found: 2, supported: 3, .. }), "{error}");

    let failing = Migration { from: 3, run: |_| Err(StoreError::Locked("never".into())) };
    let rename = Migration {
        from: 2,
        run: |store| {
            let records = store.load(Table(1))?;
            Ok(records
                .into_iter()
                .map(|(key, value)| StoreOp::Put { table: Table(2), key, value })
                .chain([delete_range(1, "", "~")])
                .collect())
        },
    };
    assert!(Store::open_with(&path, version(4), &[failing, rename]).is_err());
    // The step that succeeded is not repeated, and what it did was written with the version.
    assert!(matches!(Store::open(&path, version(2)), Err(StoreError::Version { found: 3, .. })));
    let store =
        Store::open_with(&path, version(4), &[Migration { from: 3, run: |_| Ok(Vec::new()) }]).unwrap();
    assert_eq!(texts(store.load(Table(2)).unwrap()), ["a=old"]);
    assert_eq!(texts(store.load(Table(1)).unwrap()), [""; 0]);
    drop(store);
    Store::open(&path, version(4)).unwrap();
}

#[test]
fn the_writer_reports_what_is_durable_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Arc::new(Store::open(&path, FORMAT).unwrap());
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(LINGER, move |count| sender.send(count).unwrap()).unwrap();
    for number in 0..100 {
        writer
            .submit(vec![put(1, &format!("{number:03}"), "x"), put(2, "last", &number.to_string())])
            .unwrap();
    }
    let mut last = 0;
    while last < 200 {
        let count = counts.recv_timeout(PATIENCE).unwrap();
        assert!(count > last && count % 2 == 0, "what is submitted together is durable together");
        last = count;
        assert!(store.load(Table(1)).unwrap().len() as u64 >= count / 2);
    }
    writer.submit(vec![put(1, "more", "x")]).unwrap();
    writer.close().unwrap();
    assert_eq!(counts.recv_timeout(PATIENCE).unwrap(), 201, "closing writes what waits");
    assert_eq!(writer.submit(vec![delete(1, "more")]).unwrap_err().0, [delete(1, "more")]);
    writer.close().unwrap();
    drop((writer, store));
    let store = Store::open(&path, FORMAT).unwrap();
    assert_eq!(store.load(Table(1)).unwrap().len(), 101);
    assert_eq!(texts(store.load(Table(2)).unwrap()), ["last=99"]);
}

#[test]
fn the_thread_ends_with_the_last_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Arc::new(Store::open(&path, FORMAT).unwrap());
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(PATIENCE, move |count| sender.send(count).unwrap()).unwrap();
    writer.clone().submit(vec![put(1, "a", "1")]).unwrap();
    drop(writer);
    assert_eq!(counts.recv_timeout(PATIENCE).unwrap(), 1, "what waits is written");
    assert_eq!(counts.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn a_large_group_does_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&directory.path().join("store"), FORMAT).unwrap());
    let (sender, counts) = mpsc::channel();
    let writer = store.start_writer(100 * PATIENCE, move |count| sender.send(count).unwrap()).unwrap();
    let value: Box<[u8]> = vec![7; 1 << 20].into();
    for key in 0..4 {
        writer
            .submit(vec![StoreOp::Put { table: Table(1), key: [key].into(), value: value.clone() }])
            .unwrap();
    }
    assert_eq!(counts.recv_timeout(PATIENCE).unwrap(), 4);
    let many = (0..10_000_u32).map(|key| StoreOp::Delete { table: Table(1), key: key.to_be_bytes().into() });
    writer.submit(many.collect()).unwrap();
    assert_eq!(counts.recv_timeout(PATIENCE).unwrap(), 10_004);
}

//! Processes that are killed, and processes on a disk that is really full.
//!
//! The tests start this very program again; the child says on its standard output what is durable.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::taglog::{LogRefused, TagLog};
use tombola_storage::taglog::FileTagLog;
use tombola_storage::{Format, Store};

use crate::disk::Random;

const ROLE: &str = "TOMBOLA_STORAGE_TEST_ROLE";
const FILE: &str = "TOMBOLA_STORAGE_TEST_FILE";
const FORMAT: Format = Format { name: "processes", version: 1 };
const NUMBERS: Table = Table(1);
const LAST: Table = Table(2);
const KEY_ID: [u8; 32] = [5; 32];

fn say(text: &str) {
    // The parent may be gone.
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("\n{text}\n").as_bytes()).and_then(|()| out.flush());
}

#[test]
#[ignore = "what the other tests start"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os(FILE).unwrap());
    match &*role {
        "store" => write_store(&path, None),
        "full store" => write_store(&path, Some(2000)),
        "log" => write_log(&path, None),
        "full log" => write_log(&path, Some(300_000)),
        other => panic!("{other}"),
    }
}

fn start(role: &str, path: &Path, blocks: Option<u32>) -> std::process::Child {
    let limit = blocks.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -S -f {blocks}; "));
    Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Makes room, as somebody would who deletes files.
fn lift_limit() {
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Writes numbers, one more in each group, together with which was the last one.
fn write_store(path: &Path, until: Option<u64>) {
    let store = Arc::new(Store::open(path, FORMAT).unwrap());
    let begin = last(&store);
    let report = move |count: u64| say(&format!("durable {}", begin + count / 2));
    let writer = store.start_writer(Duration::from_millis(2), report).unwrap();
    let mut was_full = false;
    let mut number = begin;
    while until.is_none_or(|until| number < until) {
        number += 1;
        let value = number.to_be_bytes().repeat(200).into();
        let mut operations = vec![
            StoreOp::Put { table: NUMBERS, key: number.to_be_bytes().into(), value },
            StoreOp::Put { table: LAST, key: [].into(), value: number.to_be_bytes().into() },
        ];
        while let Err(refused) = writer.submit(operations) {
            operations = refused.0;
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_micros(200));
        if let Some(trouble) = writer.trouble()
            && !was_full
        {
            assert!(trouble.contains("the disk is full: make room; nothing is lost meanwhile"), "{trouble}");
            was_full = true;
            say("full");
            // Some wait.
            std::thread::sleep(Duration::from_millis(300));
            lift_limit();
        }
    }
    writer.close().unwrap();
    assert!(was_full);
    say("closed");
}

fn last(store: &Store) -> u64 {
    let records = store.load(LAST).unwrap();
    records.first().map_or(0, |(_, value)| u64::from_be_bytes((**value).try_into().unwrap()))
}

fn check_store(path: &Path) -> u64 {
    let store = Store::open(path, FORMAT).unwrap();
    let mut expected = 0_u64;
    let check = |key: &[u8], value: &[u8]| {
        expected += 1;
        assert_eq!(key, expected.to_be_bytes());
        assert_eq!(value, expected.to_be_bytes().repeat(200));
        Ok(())
    };
    store.for_each(NUMBERS, check).unwrap();
    assert_eq!(last(&store), expected, "a group is there wholly or not at all");
    expected
}

fn tag(number: u64) -> u64 {
    Random(number).next()
}

/// Appends tags that can be told from their positions.
fn write_log(path: &Path, until: Option<u64>) {
    let mut number = 0;
    let load = |tags: &[u64]| number += tags.len() as u64;
    let log = FileTagLog::open(path, KEY_ID, load, |position| say(&format!("durable {position}"))).unwrap();
    let mut was_full = false;
    while until.is_none_or(|until| number < until) {
        let tags: Vec<u64> = (number..number + 1 + number % 300).map(tag).collect();
        match log.append(&tags) {
            Ok(position) => {
                assert_eq!(position, number + tags.len() as u64);
                number = position;
                log.need(position, Duration::from_millis(5));
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(LogRefused::Failing) if !was_full => {
                let trouble = log.trouble().unwrap_or_default();
                assert!(trouble.contains("the disk is full: make room; packets are refused"), "{trouble}");
                was_full = true;
                say("full");
                lift_limit();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    log.close().unwrap();
    assert!(was_full);
    say("closed");
}

fn check_log(path: &Path) -> u64 {
    let mut position = 0;
    let check = |tags: &[u64]| {
        for found in tags {
            assert_eq!(*found, tag(position));
            position += 1;
        }
    };
    FileTagLog::open(path, KEY_ID, check, |_| ()).unwrap().close().unwrap();
    position
}

fn kill_again_and_again(role: &str, check: impl Fn(&Path) -> u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let mut random = Random(1);
    let mut durable = 0;
    for _ in 0..20 {
        let mut child = start(role, &path, None);
        let mut reports = 0;
        let enough = 1 + random.below(20);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(number) = line.unwrap().strip_prefix("durable ") {
                durable = number.parse().unwrap();
                reports += 1;
                if reports == enough {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(reports >= enough, "the child ended by itself");
        let found = check(&path);
        assert!(found >= durable, "{found} are there, and {durable} were reported");
    }
    assert!(durable >= 20);
}

fn fill(role: &str, blocks: u32, check: impl Fn(&Path) -> u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let mut child = start(role, &path, Some(blocks));
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let at = |wanted: &str| lines.iter().position(|line| line == wanted);
    assert!(at("full").unwrap() < at("closed").unwrap());
    let durable = lines.iter().filter_map(|line| line.strip_prefix("durable ")).next_back();
    let found = check(&path);
    assert_eq!(durable, Some(&*found.to_string()));
    found
}

#[test]
fn a_killed_process_loses_nothing_of_its_store() {
    kill_again_and_again("store", check_store);
}

#[test]
fn a_killed_process_loses_nothing_of_its_tag_log() {
    kill_again_and_again("log", check_log);
}

#[test]
fn a_store_on_a_full_disk_goes_on_when_there_is_room() {
    // 512 or 1024 bytes each, as the shell likes.
    assert_eq!(fill("full store", 4000, check_store), 2000);
}

#[test]
fn a_tag_log_on_a_full_disk_goes_on_when_there_is_room() {
    assert!(fill("full log", 1000, check_log) >= 300_000);
}

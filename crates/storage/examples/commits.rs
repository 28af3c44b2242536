//! What it costs to make tags and mail durable, on the disk that a directory is on.
//!
//! ```text
//! cargo run --release -p tombola-storage --example commits -- [directory, default .]
//! ```
//!
//! A sync takes what the disk needs; processor time, bytes written and syncs are what the code adds. Tags: appended one by one,
//! each needed at once; at 124 a second, as packets of a small network come, each needed after an exponential delay of 50 ms;
//! as fast as it goes, in batches of 32. Mail: values of 2446 bytes, put in groups, and removed again in groups.

#![allow(clippy::print_stdout, reason = "it reports to whoever started it")]

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tombola_protocol::store::{StoreOp, Table};
use tombola_protocol::taglog::TagLog;
use tombola_storage::taglog::{FileTagLog, new_image};
use tombola_storage::{Format, LockedFile, Medium, Store, files};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FORMAT: Format = Format { name: "cost", version: 1 };
const KEY_ID: [u8; 32] = [0; 32];
const MAIL: Table = Table(1);
const MAIL_LEN: usize = 2446;

/// A file that counts what it is asked to do.
#[derive(Debug)]
struct Counted {
    file: LockedFile,
    written: AtomicU64,
    syncs: AtomicU64,
}

impl Counted {
    /// Creates the file.
    fn new(path: &Path, image: &[u8]) -> Result<Arc<Counted>> {
        files::create_new(path, image, 0o600)?;
        Ok(Arc::new(Counted { file: LockedFile::open(path)?, written: 0.into(), syncs: 0.into() }))
    }
}

impl Medium for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.written.fetch_add(bytes.len() as u64, Relaxed);
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Relaxed);
        self.file.sync()
    }
}

/// Time, processor time, and what a file is asked to do.
struct Meter<'a> {
    file: &'a Counted,
    begun: Instant,
    cpu: Duration,
    written: u64,
    syncs: u64,
}

impl Meter<'_> {
    fn start(file: &Counted) -> Meter<'_> {
        let [written, syncs] = [&file.written, &file.syncs].map(|count| count.load(Relaxed));
        Meter { file, begun: Instant::now(), cpu: cpu(), written, syncs }
    }

    fn report(&self, what: &str, count: u64) {
        let count = count as f64;
        let per = |duration: Duration| duration.as_secs_f64() * 1e6 / count;
        let elapsed = self.begun.elapsed();
        println!(
            "{what:42} {count:>8}: {:>8.2} us each, {:>7.2} us of a processor, {:>6.0} bytes written; {:>4.0} syncs a second",
            per(elapsed),
            per(cpu() - self.cpu),
            (self.file.written.load(Relaxed) - self.written) as f64 / count,
            (self.file.syncs.load(Relaxed) - self.syncs) as f64 / elapsed.as_secs_f64(),
        );
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn open_log(file: &Arc<Counted>) -> Result<(FileTagLog, mpsc::Receiver<u64>)> {
    let (sender, durable) = mpsc::channel();
    let mut loaded = 0;
    let meter = Meter::start(file);
    let load = |tags: &[u64]| loaded += tags.len() as u64;
    let notify = move |position| _ = sender.send(position);
    let log = FileTagLog::on(file.clone(), Path::new("tags"), KEY_ID, load, notify)?;
    if loaded > 0 {
        meter.report("tags: opening a log", loaded);
    }
    Ok((log, durable))
}

fn wait(durable: &mpsc::Receiver<u64>, position: u64) -> Result<()> {
    while durable.recv()? < position {}
    Ok(())
}

fn tags(path: &Path) -> Result<()> {
    let file = Counted::new(path, &new_image(&KEY_ID))?;
    let (log, durable) = open_log(&file)?;
    let meter = Meter::start(&file);
    for tag in 0..200 {
        let position = log.append(&[tag])?;
        log.need(position, Duration::ZERO);
        wait(&durable, position)?;
    }
    meter.report("tags: one by one, each synced", 200);

    let meter = Meter::start(&file);
    for tag in 0..620_u64 {
        let position = log.append(&[tag])?;
        // Every quantile of the exponential distribution once, in no order.
        let quantile = (((tag * 389) % 620) as f64 + 0.5) / 620.0;
        log.need(position, Duration::from_secs_f64(-0.050 * (1.0 - quantile).ln()));
        std::thread::sleep(Duration::from_micros(8065));
    }
    meter.report("tags: 124 a second", 620);

    let meter = Meter::start(&file);
    let mut position = 0;
    for _ in 0..100_000 {
        position = loop {
            match log.append(&[7; 32]) {
                Ok(position) => break position,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
    }
    wait(&durable, position)?;
    meter.report("tags: in batches of 32, as fast as it goes", 3_200_000);
    log.close()?;
    drop(log);
    open_log(&file)?.0.close()?;
    Ok(())
}

fn mail(path: &Path) -> Result<()> {
    let file = Counted::new(path, &Store::new_image(FORMAT)?)?;
    let store = Store::on(file.clone(), path, FORMAT, &[])?;
    let mut number = 0_u64;
    for (group, groups) in [(1, 200_u64), (10, 100), (100, 100), (1000, 40)] {
        let put = |number: u64| {
            // Mail comes for many mailboxes.
            let key = [(number * 7919 % 100).to_be_bytes(), number.to_be_bytes()].concat();
            StoreOp::Put { table: MAIL, key: key.into(), value: vec![7; MAIL_LEN].into() }
        };
        let meter = Meter::start(&file);
        for _ in 0..groups {
            store.commit((number..number + group).map(put).collect())?;
            number += group;
        }
        meter.report(&format!("mail: in groups of {group}"), groups * group);
    }
    drop(store);
    let meter = Meter::start(&file);
    let store = Store::on(file.clone(), path, FORMAT, &[])?;
    meter.report("mail: opening a store", number);
    let meter = Meter::start(&file);
    store.for_each(MAIL, |_, _| Ok(()))?;
    meter.report("mail: reading all", number);
    let meter = Meter::start(&file);
    for mailbox in 0..100_u64 {
        let [from, to] = [0, u64::MAX].map(|end| [mailbox.to_be_bytes(), end.to_be_bytes()].concat().into());
        store.commit(vec![StoreOp::DeleteRange { table: MAIL, from, to }])?;
    }
    meter.report("mail: removed, a mailbox at a time", number);
    Ok(())
}

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = directory.join("tombola-storage-cost");
    std::fs::create_dir_all(&directory)?;
    let result = tags(&directory.join("tags")).and_then(|()| mail(&directory.join("mail")));
    std::fs::remove_dir_all(&directory)?;
    result
}

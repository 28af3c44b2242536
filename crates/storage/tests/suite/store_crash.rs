//! What a store holds after power cuts, at every moment and in all orders of what was being written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{Format, Pair, Store, StoreError};

use crate::disk::{Crashes, Disk, Random};

pub(crate) const FORMAT: Format = Format { name: "crash", version: 1 };
const TABLES: [Table; 2] = [Table(1), Table(2)];

/// What a store should hold.
pub(crate) type Model = BTreeMap<(Table, Box<[u8]>), Box<[u8]>>;

pub(crate) fn open(disk: &Disk) -> Result<Store, StoreError> {
    Store::on(Arc::new(disk.clone()), Path::new("disk"), FORMAT, &[])
}

pub(crate) fn new_disk() -> Disk {
    Disk::new(Store::new_image(FORMAT).unwrap())
}

pub(crate) fn content(store: &Store) -> Result<Model, StoreError> {
    let mut model = Model::new();
    for table in TABLES {
        model.extend(store.load(table)?.into_iter().map(|(key, value): Pair| ((table, key), value)));
    }
    Ok(model)
}

pub(crate) fn apply(model: &mut Model, operations: &[StoreOp]) {
    for operation in operations.iter().cloned() {
        match operation {
            StoreOp::Put { table, key, value } => drop(model.insert((table, key), value)),
            StoreOp::Delete { table, key } => drop(model.remove(&(table, key))),
            StoreOp::DeleteRange { table, from, to } => {
                model.retain(|(other, key), _| !(*other == table && *key >= from && *key <= to));
            }
        }
    }
}

/// A group of changes that always changes something.
pub(crate) fn group(number: u64, random: &mut Random) -> Vec<StoreOp> {
    let mut operations = vec![StoreOp::Put {
        table: TABLES[0],
        key: b"group".as_slice().into(),
        value: number.to_be_bytes().into(),
    }];
    for _ in 0..random.below(8) {
        let table = TABLES[random.below(2)];
        let key = |random: &mut Random| Box::from([b'k', random.below(40) as u8]);
        operations.push(match random.below(6) {
            0 => StoreOp::Delete { table, key: key(random) },
            1 => StoreOp::DeleteRange { table, from: key(random), to: key(random) },
            _ => {
                let len = [0, 5, 100, 2446, 9000][random.below(5)];
                let value = (0..len).map(|_| random.next() as u8).collect();
                StoreOp::Put { table, key: key(random), value }
            }
        });
    }
    operations
}

/// Writes groups; notes the number of each when it is durable. Returns what should be there after each.
pub(crate) fn write_groups(disk: &Disk, store: &Store, count: u64, random: &mut Random) -> Vec<Model> {
    let mut model = content(store).unwrap();
    let mut states = vec![model.clone()];
    for number in 1..=count {
        let operations = group(number, random);
        apply(&mut model, &operations);
        states.push(model.clone());
        store.commit(operations).unwrap();
        disk.note(number);
    }
    states
}

/// What was durable, or that and the group that was being written.
pub(crate) fn check(image: Vec<u8>, crashes: &Crashes, states: &[Model]) -> Disk {
    let durable = crashes.notes().len();
    let disk = Disk::new(image);
    let store = open(&disk).unwrap();
    let found = content(&store).unwrap();
    let allowed = &states[durable..states.len().min(durable + 2)];
    assert!(allowed.contains(&found), "after {durable} groups the store holds something else");
    drop(store);
    disk
}

#[test]
fn power_cuts_lose_nothing_that_was_durable_and_leave_no_part_of_a_group() {
    let mut random = Random(1);
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let states = write_groups(&disk, &store, 20, &mut random);
    drop(store);
    let mut crashes = disk.crashes();
    while crashes.advance(&mut random) {
        for _ in 0..3 {
            check(crashes.image(&mut random), &crashes, &states);
        }
    }
    assert_eq!(crashes.notes().len(), 20);
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_durable() {
    let mut random = Random(2);
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let states = write_groups(&disk, &store, 20, &mut random);
    drop(store);
    let mut crashes = disk.crashes();
    while crashes.advance(&mut random) {
        check(crashes.killed(), &crashes, &states);
    }
}

#[test]
fn power_cuts_while_it_recovers_from_one_lose_nothing_either() {
    let mut random = Random(3);
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let states = write_groups(&disk, &store, 6, &mut random);
    drop(store);
    let mut crashes = disk.crashes();
    while crashes.advance(&mut random) {
        let recovered = check(crashes.image(&mut random), &crashes, &states);
        let mut again = recovered.crashes();
        while again.advance(&mut random) {
            if random.below(4) == 0 {
                check(again.image(&mut random), &crashes, &states);
            }
        }
    }
}

#[test]
fn new_stores_are_whole() {
    // A store is made in memory and put into place in one step; what is put there needs no repair.
    let disk = new_disk();
    let before = disk.calls();
    let store = open(&disk).unwrap();
    assert_eq!(content(&store).unwrap(), Model::new());
    assert!(disk.calls() - before < 20);
}

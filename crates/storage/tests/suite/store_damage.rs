//! Stores that are not what was written: the content or an error, never something else, never a panic.

use tombola_protocol::store::{StoreOp, Table};
use tombola_storage::{Medium, StoreError};

use crate::disk::{Disk, Random};
use crate::store_crash::{Model, content, new_disk, open, write_groups};

/// A store with some content, closed in order.
fn closed() -> (Vec<u8>, Model) {
    let disk = new_disk();
    let states = write_groups(&disk, &open(&disk).unwrap(), 30, &mut Random(5));
    (disk.content(), states[30].clone())
}

/// The same, left by a process that was killed after everything was durable.
fn killed() -> (Vec<u8>, Model) {
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let states = write_groups(&disk, &store, 30, &mut Random(5));
    (disk.content(), states[30].clone())
}

/// Whether it was found.
fn check(image: Vec<u8>, expected: &Model, what: &str) -> bool {
    match open(&Disk::new(image)).and_then(|store| content(&store)) {
        Ok(found) => {
            assert!(found == *expected, "{what}: other content, and no error");
            false
        }
        Err(StoreError::Damaged { .. } | StoreError::OtherFormat { .. } | StoreError::Version { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn flips(image: &[u8], expected: &Model, bits: impl Iterator<Item = usize>) -> (usize, usize) {
    let (mut found, mut harmless) = (0, 0);
    for bit in bits {
        let mut damaged = image.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if check(damaged, expected, &format!("bit {} of byte {}", bit % 8, bit / 8)) {
            found += 1;
        } else {
            harmless += 1;
        }
    }
    (found, harmless)
}

#[test]
fn flipped_bits_in_the_headers() {
    // The first page, up to the second mark, and redb's header.
    let bits = || (0..52 * 8).chain(512 * 8..524 * 8).chain(1024 * 8..1036 * 8).chain(4096 * 8..4416 * 8);
    for (image, expected) in [closed(), killed()] {
        let (found, harmless) = flips(&image, &expected, bits());
        assert!(found > 1000 && harmless > 100, "{found} {harmless}");
    }
}

#[test]
fn flipped_bits_anywhere() {
    for (image, expected) in [closed(), killed()] {
        let used: Vec<_> = (4416..image.len()).filter(|at| image[*at] != 0).collect();
        let mut random = Random(9);
        let bits = (0..10_000).map(|_| used[random.below(used.len())] * 8 + random.below(8));
        let (found, harmless) = flips(&image, &expected, bits);
        assert!(found > 500 && harmless > 500, "{found} {harmless}");
    }
}

#[test]
fn a_root_that_was_swapped_for_an_older_one() {
    // The lowest bit of redb's tenth byte says which of the two roots counts.
    let (mut image, _) = killed();
    image[4096 + 9] ^= 1;
    let error = open(&Disk::new(image)).unwrap_err().to_string();
    assert!(
        error.contains("its newest state is lost: it holds 29 groups of changes, and 30 had been"),
        "{error}"
    );
}

#[test]
fn blocks_that_are_lost_or_in_the_wrong_place() {
    let mut random = Random(11);
    for (image, expected) in [closed(), killed()] {
        let blocks = image.len() / 512;
        let used: Vec<_> =
            (0..blocks).filter(|block| image[block * 512..][..512].iter().any(|byte| *byte != 0)).collect();
        let mut found = 0;
        for round in 0..3000 {
            let mut damaged = image.clone();
            for _ in 0..=random.below(3) {
                let to = used[random.below(used.len())] * 512;
                let from = used[random.below(used.len())] * 512;
                match random.below(3) {
                    0 => damaged[to..to + 512].fill(0),
                    1 => damaged.copy_within(from..from + 512, to),
                    _ => damaged[to..to + 512].fill_with(|| random.next() as u8),
                }
            }
            found += usize::from(check(damaged, &expected, &format!("round {round}")));
        }
        assert!(found > 100, "{found}");
    }
}

#[test]
fn files_that_are_cut_off_or_longer() {
    for (image, expected) in [closed(), killed()] {
        let mut lengths: Vec<usize> = (0..image.len()).step_by(4096).collect();
        lengths.extend([1, 15, 16, 51, 52, 511, 600, 4095, 4097, 4105, 4416, image.len() - 1]);
        for len in lengths {
            let found = check(image[..len].to_vec(), &expected, &format!("cut off at {len}"));
            assert!(found, "cut off at {len}, and no error");
        }
        for more in [1, 4096, 1 << 20] {
            let mut longer = image.clone();
            longer.resize(image.len() + more, 0);
            check(longer, &expected, &format!("{more} bytes longer"));
        }
    }
}

#[test]
fn a_store_is_not_made_anew_where_one_was() {
    // redb makes a database of an empty file.
    let (image, _) = closed();
    for len in [16, 4096] {
        let error = open(&Disk::new(image[..len].to_vec())).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

#[test]
fn values_that_change_while_it_is_open() {
    let disk = new_disk();
    let value = b"a value that is looked for";
    let put = StoreOp::Put { table: Table(1), key: b"key".as_slice().into(), value: value.as_slice().into() };
    open(&disk).unwrap().commit(vec![put]).unwrap();
    let image = disk.content();
    let at = image.windows(value.len()).position(|window| window == value).unwrap();
    for byte in at..at + value.len() + 4 {
        let disk = Disk::new(image.clone());
        let store = open(&disk).unwrap();
        disk.write_at(byte as u64, &[image[byte] ^ 4]).unwrap();
        let error = store.load(Table(1)).unwrap_err();
        assert!(matches!(error, StoreError::Record { table: 1, .. }), "{error}");
        assert!(
            error.to_string().starts_with("disk: table 1: a record is not what was written; "),
            "{error}"
        );
        let error = store.range(Table(1), b"a", b"z", 1).unwrap_err();
        assert!(matches!(error, StoreError::Record { .. }), "{error}");
    }
}

#[test]
fn anything_that_changes_while_it_is_open_is_no_panic_and_no_other_value() {
    let (image, expected) = closed();
    let used: Vec<_> = (4416..image.len()).filter(|at| image[*at] != 0).collect();
    let mut random = Random(13);
    for _ in 0..3000 {
        let disk = Disk::new(image.clone());
        let store = open(&disk).unwrap();
        for _ in 0..=random.below(3) {
            let at = used[random.below(used.len())];
            disk.write_at(at as u64, &[random.next() as u8]).unwrap();
        }
        if let Ok(found) = content(&store) {
            assert!(found == expected);
        }
        // Nor in writing, nor in closing.
        let _ = store.commit(vec![StoreOp::Delete { table: Table(2), key: b"k\x01".as_slice().into() }]);
    }
}

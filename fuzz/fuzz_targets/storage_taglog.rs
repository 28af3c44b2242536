//! A tag log with any content is refused, or gives the fingerprints that were written, up to where it was damaged; reading
//! takes no more memory than a record.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_storage::taglog::{encode, new_image, scan};
use tombola_storage::{Medium, Memory};

const KEY: [u8; 32] = [9; 32];

#[derive(Arbitrary, Debug)]
enum Input {
    /// Any file.
    File(Vec<u8>),
    /// What follows the first page.
    Records(Vec<u8>),
    /// Groups of fingerprints, and then changes.
    Damaged { groups: Vec<Vec<u64>>, changes: Vec<(u32, u8)>, len: Option<u32>, more: Vec<u8> },
}

fn read(file: &[u8]) -> Option<Vec<u64>> {
    let medium = Memory::new(file.to_vec());
    let mut read = Vec::new();
    let load = |fingerprints: &[u64]| {
        assert!(!fingerprints.is_empty() && fingerprints.len() <= 8192);
        read.extend_from_slice(fingerprints);
    };
    let found = scan(&medium, &KEY, load).ok()?;
    assert_eq!(found.fingerprints, read.len() as u64);
    assert_eq!(found.end + found.torn, file.len() as u64);
    // What is left when the end is cut off is whole, and says the same.
    medium.set_len(found.end).expect("it is in memory");
    let again = scan(&medium, &KEY, |_| ()).expect("it was read once");
    assert_eq!((again.fingerprints, again.torn), (found.fingerprints, 0));
    Some(read)
}

fuzz_target!(|input: Input| match input {
    Input::File(file) => _ = read(&file),
    Input::Records(records) => {
        assert!(read(&[new_image(&KEY), records].concat()).is_some(), "nothing is marked as durable");
    }
    Input::Damaged { groups, changes, len, more } => {
        let mut file = new_image(&KEY);
        let mut written: Vec<u64> = Vec::new();
        for group in groups {
            encode(&KEY, written.len() as u64, &group, &mut file);
            written.extend(group);
        }
        assert_eq!(read(&file).as_ref(), Some(&written));
        let records = file.len() - 4096;
        // A checksum finds every single change; with more of them it can be made to fit.
        let certain = changes.len() <= 1 && more.is_empty();
        for (at, bits) in changes {
            if records > 0 {
                file[4096 + at as usize % records] ^= bits;
            }
        }
        if let Some(len) = len {
            file.truncate(4096 + len as usize % (records + 1));
        }
        file.extend(more);
        let found = read(&file).expect("nothing is marked as durable");
        assert!(!certain || written.starts_with(&found));
    }
});

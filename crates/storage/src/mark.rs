//! Numbers that say up to where a file is known to be durable, in its first page.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 512 | 8 | mark A, little-endian |
//! | 520 | 4 | CRC-32 of these 8 bytes |
//! | 1024 | 8 | mark B |
//! | 1032 | 4 | CRC-32 of these 8 bytes |
//!
//! The greater one counts. A mark is written after a sync, and is not synced itself: the next sync does that. So it outlives
//! the process at once, and a power cut from the next sync on, and costs one write. What is on the medium is never more than
//! what is durable.
//!
//! At any time one of the two is whole on the medium: they are written in turn, and only when a sync has made the one before
//! durable. A sync that fails leaves a mark that nobody knows to be there, so the same mark is written once more then, which
//! does no harm if it is there.

use crate::medium::Medium;

/// Length of a file's first page, in which the marks lie.
pub(crate) const PAGE_LEN: usize = 4096;
const OFFSETS: [usize; 2] = [512, 1024];
const LEN: usize = 12;

fn encode(number: u64) -> [u8; LEN] {
    let mut mark = [0; LEN];
    mark[..8].copy_from_slice(&number.to_le_bytes());
    let sum = crc32fast::hash(&mark[..8]).to_le_bytes();
    mark[8..].copy_from_slice(&sum);
    mark
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (*bytes == encode(number)).then_some(number)
}

/// Puts the first marks into the page of a new file.
pub(crate) fn initialise(page: &mut [u8; PAGE_LEN]) {
    for offset in OFFSETS {
        page[offset..offset + LEN].copy_from_slice(&encode(0));
    }
}

/// Writes marks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Which mark was written last, and what it says.
    last: usize,
    number: u64,
    /// Whether it has to be written once more.
    lost: bool,
}

impl Marker {
    /// The marks of a file; `None` if both are damaged, which no crash does.
    pub(crate) fn read(page: &[u8; PAGE_LEN]) -> Option<Marker> {
        let read = |last: usize| {
            let offset = OFFSETS[last];
            // It may be in the kernel's memory only.
            decode(&page[offset..offset + LEN]).map(|number| Marker { last, number, lost: true })
        };
        [read(0), read(1)].into_iter().flatten().max_by_key(|marker| marker.number)
    }

    /// Up to where everything is durable, or more.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Marks, right after a sync, that everything up to `number` is durable.
    pub(crate) fn set(&mut self, medium: &dyn Medium, number: u64) {
        if !self.lost {
            self.last = 1 - self.last;
            self.number = number;
        }
        // If it fails, the other mark is there, which is true as well. A medium that fails shows again soon.
        self.lost = medium.write_at(OFFSETS[self.last] as u64, &encode(self.number)).is_err();
    }

    /// A sync has failed.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::Memory;

    fn page(image: &Memory) -> [u8; PAGE_LEN] {
        let mut page = [0; PAGE_LEN];
        image.read_at(0, &mut page).unwrap();
        page
    }

    fn number(page: &[u8; PAGE_LEN]) -> Option<u64> {
        Marker::read(page).map(|marker| marker.number())
    }

    #[test]
    fn the_greatest_readable_mark_counts() {
        let mut first = [0; PAGE_LEN];
        assert_eq!(number(&first), None, "zeros are no mark");
        initialise(&mut first);
        assert_eq!(number(&first), Some(0));
        let image = Memory::new(first.to_vec());
        let mut marker = Marker::read(&first).unwrap();
        marker.set(&image, 0);
        for marked in 1..10 {
            let before = page(&image);
            marker.set(&image, marked);
            let after = page(&image);
            assert_eq!(number(&after), Some(marked));
            // Torn anywhere, the mark before is left.
            for torn in 1..LEN {
                let mut page = before;
                for offset in OFFSETS {
                    page[offset..offset + torn].copy_from_slice(&after[offset..offset + torn]);
                }
                assert!([Some(marked - 1), Some(marked)].contains(&number(&page)));
            }
        }
    }

    #[test]
    fn after_a_failure_the_same_mark_is_written_again() {
        let mut first = [0; PAGE_LEN];
        initialise(&mut first);
        let image = Memory::new(first.to_vec());
        let mut marker = Marker::read(&first).unwrap();
        marker.set(&image, 7);
        assert_eq!(number(&page(&image)), Some(0), "what was read may be in memory only");
        marker.set(&image, 8);
        let before = page(&image);
        marker.lose();
        marker.set(&image, 9);
        assert_eq!(page(&image), before);
        marker.set(&image, 10);
        assert_eq!(number(&page(&image)), Some(10));
    }

    #[test]
    fn flipped_bits_never_raise_it() {
        let mut page = [0; PAGE_LEN];
        initialise(&mut page);
        for bit in 0..PAGE_LEN * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(number(&page), Some(0));
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

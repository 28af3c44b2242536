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
//! what is durable. The marks are written in turn, each lies in a sector of its own, and so a torn one leaves the other.

use std::io;

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

/// What is marked; `None` if both marks are damaged, which no crash does.
pub(crate) fn read(page: &[u8; PAGE_LEN]) -> Option<u64> {
    OFFSETS.into_iter().filter_map(|offset| decode(&page[offset..offset + LEN])).max()
}

/// Writes marks in turn.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    second: bool,
}

impl Marker {
    /// Marks that everything up to `number` is durable.
    pub(crate) fn set(&mut self, medium: &dyn Medium, number: u64) -> io::Result<()> {
        let offset = OFFSETS[usize::from(self.second)];
        self.second = !self.second;
        medium.write_at(offset as u64, &encode(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Image;

    fn page(image: &Image) -> [u8; PAGE_LEN] {
        let mut page = [0; PAGE_LEN];
        image.read_at(0, &mut page).unwrap();
        page
    }

    #[test]
    fn the_greatest_readable_mark_counts() {
        let mut first = [0; PAGE_LEN];
        assert_eq!(read(&first), None, "zeros are no mark");
        initialise(&mut first);
        assert_eq!(read(&first), Some(0));
        let image = Image::new(first.to_vec());
        let mut marker = Marker::default();
        for number in 1..10 {
            let before = page(&image);
            marker.set(&image, number).unwrap();
            let after = page(&image);
            assert_eq!(read(&after), Some(number));
            // Torn anywhere, the mark before is left.
            for torn in 1..LEN {
                let mut page = before;
                for offset in OFFSETS {
                    page[offset..offset + torn].copy_from_slice(&after[offset..offset + torn]);
                }
                assert!([Some(number - 1), Some(number)].contains(&read(&page)));
            }
        }
    }

    #[test]
    fn flipped_bits_never_raise_it() {
        let mut page = [0; PAGE_LEN];
        initialise(&mut page);
        for bit in 0..PAGE_LEN * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&page), Some(0));
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

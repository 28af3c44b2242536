//! Reed-Solomon code over the fragments of a segment: which of them arrive does not matter, only how many.

use core::fmt;
use std::collections::BTreeMap;

use crate::fragment::{FRAGMENT_DATA, Place, Shape};

/// Parity fragments of one segment.
pub struct Parity {
    fragments: Vec<Vec<u8>>,
}

impl Parity {
    /// Codes a segment of `body`.
    pub fn of(shape: Shape, segment: u16, body: &[u8]) -> Self {
        let data = shape.data_in(segment);
        let originals = (0..data).map(|position| data_fragment(shape, place(segment, position), body));
        let fragments = reed_solomon_simd::encode(data, shape.parity_in(segment), originals)
            .expect("counts from 1 to 128 and fragments of one even length are always coded");
        Self { fragments }
    }

    /// The parity fragment of this number, from 0.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        self.fragments.get(number).map(Vec::as_slice)
    }
}

impl fmt::Debug for Parity {
    /// Shows no content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parity({})", self.fragments.len())
    }
}

/// A data fragment, the last of a message filled up with zeros.
pub fn data_fragment(shape: Shape, place: Place, body: &[u8]) -> [u8; FRAGMENT_DATA] {
    let mut fragment = [0; FRAGMENT_DATA];
    let bytes = body.get(shape.bytes_at(place)).unwrap_or_default();
    fragment[..bytes.len()].copy_from_slice(bytes);
    fragment
}

/// Gives a segment back from as many of its fragments, by position, as it has data fragments; `None` if there are fewer.
pub fn restore(shape: Shape, segment: u16, fragments: &BTreeMap<u8, Box<[u8]>>) -> Option<Vec<u8>> {
    let (data, parity) = (shape.data_in(segment), shape.parity_in(segment));
    if fragments.len() < data {
        return None;
    }
    let position = |&position: &u8| usize::from(position);
    let originals = fragments.iter().map(|(at, f)| (position(at), f)).filter(|(at, _)| *at < data);
    let recovery = fragments.iter().map(|(at, f)| (position(at), f)).filter(|(at, _)| *at >= data);
    let restored = if originals.clone().count() == data {
        None
    } else {
        let recovery = recovery.map(|(at, fragment)| (at - data, fragment));
        Some(reed_solomon_simd::decode(data, parity, originals.clone(), recovery).ok()?)
    };
    let mut bytes = Vec::with_capacity(data * FRAGMENT_DATA);
    for at in 0..data {
        let known = u8::try_from(at).ok().and_then(|at| fragments.get(&at)).map(|f| &f[..]);
        let found = known.or_else(|| restored.as_ref()?.get(&at).map(Vec::as_slice))?;
        bytes.extend_from_slice(found);
    }
    bytes.truncate(shape.bytes_of(segment).len());
    Some(bytes)
}

fn place(segment: u16, position: usize) -> Place {
    Place { segment, position: u8::try_from(position).expect("a segment has fewer than 256 fragments") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(shape: Shape, segment: u16, body: &[u8]) -> Vec<(u8, Box<[u8]>)> {
        let data = shape.data_in(segment);
        let parity = Parity::of(shape, segment, body);
        let data = (0..data).map(|at| data_fragment(shape, place(segment, at), body).to_vec());
        let parity = (0..shape.parity_in(segment)).map(|at| parity.get(at).unwrap().to_vec());
        data.chain(parity).enumerate().map(|(at, f)| (at as u8, f.into())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_fragments_that_are_enough_give_the_segment(length in 0..300 * FRAGMENT_DATA, seed: u64) {
            let body: Vec<u8> = (0..length).map(|at| (at as u64).wrapping_mul(seed | 1) as u8).collect();
            let shape = Shape::of(length).unwrap();
            let segment = (seed % u64::from(shape.segments())) as u16;
            let mut fragments = all(shape, segment, &body);
            let data = shape.data_in(segment);
            // A shuffle that needs no generator: sort by a hash of seed and position.
            fragments.sort_by_key(|(at, _)| (u64::from(*at) + 1).wrapping_mul(seed | 1).rotate_left(17));
            let chosen: BTreeMap<u8, Box<[u8]>> = fragments.iter().take(data).cloned().collect();
            prop_assert_eq!(restore(shape, segment, &chosen).unwrap(), &body[shape.bytes_of(segment)]);
            let fewer: BTreeMap<u8, Box<[u8]>> = fragments.into_iter().take(data - 1).collect();
            prop_assert_eq!(restore(shape, segment, &fewer), None);
        }
    }
}

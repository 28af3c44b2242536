//! Every message that is cut into fragments comes out of them again, whichever fragments of a segment are lost, as long as
//! there are enough.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use tombola_protocol::erasure::{Parity, data_fragment, restore};
use tombola_protocol::fragment::{FRAGMENT_DATA, Place, Shape};

// The message's length in fragments and bytes beyond, which of them are lost, and what it begins with.
fuzz_target!(|input: (u8, u16, Vec<u16>, Vec<u8>)| {
    let (fragments, beyond, lost, mut body) = input;
    body.resize(usize::from(fragments) * FRAGMENT_DATA + usize::from(beyond) % FRAGMENT_DATA, fragments);
    let shape = Shape::of(body.len()).expect("shorter than a message may be");
    let mut whole = Vec::new();
    for segment in 0..shape.segments() {
        let (data, parity) = (shape.data_in(segment), Parity::of(shape, segment, &body));
        let positions = 0..u8::try_from(data + shape.parity_in(segment)).expect("at most 192");
        let fragment = |position: u8| -> (u8, Box<[u8]>) {
            let place = Place { segment, position };
            assert!(shape.contains(place));
            match usize::from(position).checked_sub(data) {
                None => (position, data_fragment(shape, place, &body).into()),
                Some(number) => (position, parity.get(number).expect("as many as the shape says").into()),
            }
        };
        let end = Place { segment, position: positions.end };
        assert!(!shape.contains(end) && parity.get(shape.parity_in(segment)).is_none());
        let mut there: BTreeMap<_, _> = positions.map(fragment).collect();
        let mut lost = lost.iter().map(|at| usize::from(*at));
        while there.len() > data {
            let at = lost.next().unwrap_or_default() % there.len();
            let position = *there.keys().nth(at).expect("below the length");
            there.remove(&position);
        }
        let bytes = restore(shape, segment, &there).expect("as many as there is data");
        assert_eq!(bytes.len(), shape.bytes_of(segment).len());
        whole.extend_from_slice(&bytes);
        there.pop_first();
        assert_eq!(restore(shape, segment, &there), None, "one too few");
    }
    assert!(whole == body);
});

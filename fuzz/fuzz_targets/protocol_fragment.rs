//! A plaintext is refused or understood in one way, and every message that is cut into fragments comes out of them
//! again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tombola_protocol::fragment::{
    FRAGMENT_DATA, FRAGMENTS_MAX, FragmentHeader, MESSAGE_MAX, MessageId, Payload, count_for, parse, write,
};
use tombola_sphinx::PLAINTEXT_MAX;

fuzz_target!(|input: &[u8]| {
    if let Ok(Payload::Fragment(FragmentHeader { message, index, count }, data)) = parse(input) {
        assert!(index < count && count <= FRAGMENTS_MAX);
        assert!(index + 1 == count || data.len() == FRAGMENT_DATA);
        assert_eq!(input[1..17], message.0);
    }

    let body = &input[..input.len().min(MESSAGE_MAX)];
    let mut plaintext = [0; PLAINTEXT_MAX];
    let mut whole = Vec::new();
    for index in 0..count_for(body.len()) {
        let len = write(MessageId([1; 16]), body, index, &mut plaintext);
        let Ok(Payload::Fragment(header, data)) = parse(&plaintext[..len]) else {
            panic!("fragment {index} of {} bytes was not understood", body.len())
        };
        assert_eq!((header.index, header.count), (index, count_for(body.len())));
        whole.extend_from_slice(data);
    }
    assert_eq!(whole, body);
});

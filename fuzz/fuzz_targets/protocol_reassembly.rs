//! Whatever fragments arrive in whatever order and at whatever times, the reassembler stays within its bounds, hands a
//! message over at most once while it remembers it, and only with as many fragments as it announced.

#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tombola_mixing::Time;
use tombola_protocol::fragment::{FRAGMENT_DATA, FRAGMENTS_MAX, FragmentHeader, MessageId};
use tombola_protocol::reassembly::{Added, Reassembler, ReassemblyLimits};

#[derive(Arbitrary, Debug)]
struct Fragment {
    at: u16,
    message: u8,
    index: u8,
    count: u16,
    len: u8,
}

const LIMITS: ReassemblyLimits = ReassemblyLimits {
    messages: 4,
    bytes: 3 * FRAGMENT_DATA,
    patience: Duration::from_nanos(100),
    remembered: 1 << 16,
};

fuzz_target!(|fragments: Vec<Fragment>| {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut complete = BTreeSet::new();
    for Fragment { at, message, index, count, len } in fragments {
        // As the parser lets through: an existing fragment, full unless it is the last.
        let count = u32::from(count).clamp(1, FRAGMENTS_MAX);
        let index = u32::from(index) % count;
        let len = if index + 1 < count { FRAGMENT_DATA } else { usize::from(len) };
        let header = FragmentHeader { message: MessageId([message; 16]), index, count };
        match reassembler.add(Time::from_nanos(u64::from(at)), header, &vec![message; len]) {
            Added::Complete(body) => {
                assert!(complete.insert(message), "message {message} was handed over twice");
                let full = FRAGMENT_DATA * (count as usize - 1);
                assert!((full..=full + FRAGMENT_DATA).contains(&body.len()));
                assert!(body.iter().all(|byte| *byte == message), "messages were mixed up");
            }
            Added::Partial { have, count: announced } => assert!(have < announced && announced == count),
            Added::Duplicate | Added::Contradiction => {}
        }
        assert!(reassembler.pending() <= LIMITS.messages);
    }
});

//! Every frame and every next-hop field is refused or understood in one way: what is read and written again is the
//! same, and what a frame becomes on the next link holds nothing of its former meta field.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tombola_protocol::frame::{BODY_OFFSET, FRAME_LEN, Frame, FrameKind, META_OFFSET};
use tombola_protocol::hop::NextHop;

fuzz_target!(|input: &[u8]| {
    let mut frame = Frame::zeroed();
    let len = input.len().min(FRAME_LEN);
    frame.as_bytes_mut()[..len].copy_from_slice(&input[..len]);

    if let Some(field) = input.first_chunk() {
        assert_eq!(NextHop::from_bytes(field).to_bytes(), *field);
    }

    if frame.kind() != Ok(FrameKind::Packet) {
        return;
    }
    let received = frame.clone();
    frame.set_client_packet(received.parity(), &received.client_meta());
    frame.set_acknowledged(received.acknowledged());
    let (session, counter) = received.number();
    frame.set_number(session, counter);
    let unused = BODY_OFFSET - 8..BODY_OFFSET;
    let (before, after) = (received.as_bytes(), frame.as_bytes());
    assert!(before[..unused.start] == after[..unused.start] && before[unused.end..] == after[unused.end..]);
    assert!(after[unused].iter().all(|byte| *byte == 0), "a client's packet frame has one form");

    let mut passed_on = received.clone();
    passed_on.set_link_packet(received.parity(), &received.link_meta());
    let (before, after) = (received.as_bytes(), passed_on.as_bytes());
    assert_eq!(after[BODY_OFFSET..], before[BODY_OFFSET..], "the packet stays");
    let used = META_OFFSET + 28;
    assert_eq!(passed_on.number(), (0, 0), "a number means nothing on another link");
    assert_eq!(after[META_OFFSET..used], before[META_OFFSET..used]);
    assert!(after[used..BODY_OFFSET].iter().all(|byte| *byte == 0), "the rest of the meta field is cleared");

    passed_on.set_mail(received.parity(), Duration::from_nanos(7), 1);
    assert_eq!(passed_on.mail_held(), Duration::from_nanos(7));
    assert_eq!((passed_on.mail_number(), passed_on.mail_previous()), (1, 0));
    assert!(passed_on.as_bytes()[META_OFFSET + 16..BODY_OFFSET].iter().all(|byte| *byte == 0));
});

//! The one frame that links carry, byte for byte.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | kind: see [`FrameKind`] |
//! | 1 | 1 | parity (0 or 1) of the epoch of the key that opens the packet |
//! | 2 | 2 | packet frames of clients: the low 16 bits of the number of the last mail that is safe there; else zero |
//! | 4 | 48 | meta: what this one link needs to know, by kind and direction |
//! | 52 | 2396 | body: a Sphinx packet, or zero |
//!
//! Every frame on every link has this length, whatever it carries, so that an observer of the encrypted link can
//! tell nothing apart by size. Meta, by kind and direction:
//!
//! | kind, direction | meta |
//! |---|---|
//! | packet, client to gateway | next hop 4, ack check 8, challenge 20, number 8, zero 8 ([`ClientMeta`]) |
//! | packet, gateway to layer 1 | challenge 20, ack check 8, zero 4, number 8, zero 8 ([`LinkMeta`]) |
//! | packet, node to node | challenge 20, zero 12, number 8, zero 8 ([`LinkMeta`], ack check zero) |
//! | control | zero 48 |
//! | mail, gateway to client | held 8 (nanoseconds that the gateway held it), number 8, previous 8, zero 24 |
//! | padding, displaced, gateway to client | zero 48 |
//! | collect, hold, client to gateway | number 8 of the last mail that is safe there, zero 40 |
//!
//! Challenge and ack check are those of tickets: see `tombola_tickets::por`. The number names the packet in acknowledgements
//! (session 4, counter 4); zero in a network without payment. The body of a control frame: see [`control`](crate::control).
//! Integers are big-endian.

use core::time::Duration;

use thiserror::Error;
use tombola_sphinx::PACKET_LEN;
use tombola_topology::NodeIndex;

/// Offset of the meta field.
pub const META_OFFSET: usize = 4;
/// Length of the meta field.
pub const META_LEN: usize = 48;
/// Offset of the body.
pub const BODY_OFFSET: usize = META_OFFSET + META_LEN;
/// Length of every frame on every link, in bytes.
pub const FRAME_LEN: usize = BODY_OFFSET + PACKET_LEN;

/// Length of a ticket's challenge.
pub const CHALLENGE_LEN: usize = 20;
/// Length of the check of `ack_1` that travels on the first link.
pub const ACK_CHECK_LEN: usize = 8;
/// Length of a packet's number on its link.
pub const NUMBER_LEN: usize = 8;
/// Offset of that number in the meta field, whoever sends the packet.
const NUMBER_AT: usize = 4 + ACK_CHECK_LEN + CHALLENGE_LEN;

const _: () = assert!(FRAME_LEN == 2448);
const _: () = assert!(NUMBER_AT + NUMBER_LEN <= META_LEN);

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A Sphinx packet on its way.
    Packet = 0x01,
    /// What the two ends of a link owe each other: acknowledgements, batches, commitments.
    Control = 0x02,
    /// A Sphinx packet that a gateway hands to its recipient.
    Mail = 0x03,
    /// Nothing: keeps the downlink's pace when there is no mail.
    Padding = 0x04,
    /// A client asks for its mail. First frame of a session, or [`Hold`](Self::Hold).
    Collect = 0x05,
    /// A client asks its gateway to keep its mail: it only sends, or is about to leave.
    Hold = 0x06,
    /// A gateway tells a client that another link of the same identity takes the place of this one. The last frame of a
    /// session.
    Displaced = 0x07,
}

/// A frame that this version does not know, or that breaks its own layout. The sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The kind byte is not one of [`FrameKind`].
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// The parity byte is neither 0 nor 1.
    #[error("key parity is {0}, expected 0 or 1")]
    Parity(u8),
    /// A byte that must be zero is not.
    #[error("a reserved byte is not zero")]
    Reserved,
}

/// Parity of the epoch whose key opens a packet: enough to choose between the two keys that overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity(bool);

impl Parity {
    /// The parity of an epoch number.
    pub fn of(epoch: u64) -> Self {
        Self(epoch & 1 == 1)
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Meta of a packet frame from a client to its gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientMeta {
    /// The layer-1 node that the gateway forwards to.
    pub next: NodeIndex,
    /// Lets gateway and client recognise the first hop's acknowledgement.
    pub ack_check: [u8; ACK_CHECK_LEN],
    /// Challenge of the first hop's ticket.
    pub challenge: [u8; CHALLENGE_LEN],
}

/// Meta of a packet frame between nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkMeta {
    /// Challenge of the receiving hop's ticket.
    pub challenge: [u8; CHALLENGE_LEN],
    /// On the link into layer 1 only; zero elsewhere.
    pub ack_check: [u8; ACK_CHECK_LEN],
}

impl LinkMeta {
    /// All zero.
    pub const NONE: Self = Self { challenge: [0; CHALLENGE_LEN], ack_check: [0; ACK_CHECK_LEN] };
}

/// One frame in a buffer of its own. Moving it moves a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Box<[u8; FRAME_LEN]>);

impl Frame {
    /// A frame of zeroes, to be filled.
    pub fn zeroed() -> Self {
        Self(Box::new([0; FRAME_LEN]))
    }

    /// The whole frame.
    pub fn as_bytes(&self) -> &[u8; FRAME_LEN] {
        &self.0
    }

    /// The whole frame, to be filled by a link.
    pub fn as_bytes_mut(&mut self) -> &mut [u8; FRAME_LEN] {
        &mut self.0
    }

    /// Checks what can be checked without a key: kind, parity and reserved bytes.
    pub fn kind(&self) -> Result<FrameKind, FrameError> {
        let kind = match self.0[0] {
            0x01 => FrameKind::Packet,
            0x02 => FrameKind::Control,
            0x03 => FrameKind::Mail,
            0x04 => FrameKind::Padding,
            0x05 => FrameKind::Collect,
            0x06 => FrameKind::Hold,
            0x07 => FrameKind::Displaced,
            other => return Err(FrameError::Kind(other)),
        };
        if self.0[1] > 1 {
            return Err(FrameError::Parity(self.0[1]));
        }
        if kind != FrameKind::Packet && self.0[2..META_OFFSET] != [0, 0] {
            return Err(FrameError::Reserved);
        }
        Ok(kind)
    }

    /// Which of two overlapping keys opens the packet. Only the lowest bit counts; [`kind`](Self::kind) refuses more.
    pub fn parity(&self) -> Parity {
        Parity(self.0[1] & 1 == 1)
    }

    /// Turns the frame into a packet frame from a client to its gateway, without a number. The body stays.
    pub fn set_client_packet(&mut self, parity: Parity, meta: &ClientMeta) {
        self.set_head(FrameKind::Packet, parity);
        let (next, rest) = self.meta_mut().split_at_mut(4);
        next.copy_from_slice(&meta.next.0.to_be_bytes());
        let (ack_check, rest) = rest.split_at_mut(ACK_CHECK_LEN);
        ack_check.copy_from_slice(&meta.ack_check);
        let (challenge, rest) = rest.split_at_mut(CHALLENGE_LEN);
        challenge.copy_from_slice(&meta.challenge);
        rest.fill(0);
    }

    /// Reads the meta of a packet frame from a client.
    pub fn client_meta(&self) -> ClientMeta {
        let meta = self.meta();
        ClientMeta {
            next: NodeIndex(u32::from_be_bytes(array(&meta[..4]))),
            ack_check: array(&meta[4..12]),
            challenge: array(&meta[12..32]),
        }
    }

    /// Names the packet to the other end of this link: session and counter.
    pub fn set_number(&mut self, session: u32, counter: u32) {
        let field = &mut self.meta_mut()[NUMBER_AT..NUMBER_AT + NUMBER_LEN];
        field[..4].copy_from_slice(&session.to_be_bytes());
        field[4..].copy_from_slice(&counter.to_be_bytes());
    }

    /// Session and counter of a packet on the link that it came on.
    pub fn number(&self) -> (u32, u32) {
        let field = &self.meta()[NUMBER_AT..NUMBER_AT + NUMBER_LEN];
        (u32::from_be_bytes(array(&field[..4])), u32::from_be_bytes(array(&field[4..])))
    }

    /// Turns the frame into a control frame that says nothing yet.
    pub fn set_control(&mut self) {
        self.0.fill(0);
        self.set_head(FrameKind::Control, Parity(false));
    }

    /// Turns the frame into a packet frame between nodes, without a number. The body stays.
    pub fn set_link_packet(&mut self, parity: Parity, meta: &LinkMeta) {
        self.set_head(FrameKind::Packet, parity);
        let field = self.meta_mut();
        field.fill(0);
        field[..CHALLENGE_LEN].copy_from_slice(&meta.challenge);
        field[CHALLENGE_LEN..CHALLENGE_LEN + ACK_CHECK_LEN].copy_from_slice(&meta.ack_check);
    }

    /// Reads the meta of a packet frame from a node.
    pub fn link_meta(&self) -> LinkMeta {
        let meta = self.meta();
        LinkMeta { challenge: array(&meta[..20]), ack_check: array(&meta[20..28]) }
    }

    /// Says in a packet frame of a client which mail is safe there: the low 16 bits of the last number of which it and
    /// all before have been stored. It travels with every packet, so that collecting mail changes nothing on the link.
    pub fn set_acknowledged(&mut self, low: u16) {
        self.0[2..META_OFFSET].copy_from_slice(&low.to_be_bytes());
    }

    /// Which mail a client has stored, in a packet frame of a client.
    pub fn acknowledged(&self) -> u16 {
        u16::from_be_bytes(array(&self.0[2..META_OFFSET]))
    }

    /// Turns the frame into mail for a client. The body stays.
    pub fn set_mail(&mut self, parity: Parity, held: Duration, number: u64) {
        self.set_head(FrameKind::Mail, parity);
        let held = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
        let field = self.meta_mut();
        field.fill(0);
        field[..8].copy_from_slice(&held.to_be_bytes());
        field[8..16].copy_from_slice(&number.to_be_bytes());
    }

    /// Says in a mail frame which mail comes before it in the mailbox: nothing is between the two. 0: nothing is before it,
    /// other than what was acknowledged or is gone.
    pub fn set_mail_previous(&mut self, previous: u64) {
        self.meta_mut()[16..24].copy_from_slice(&previous.to_be_bytes());
    }

    /// The number of the mail before. A client that has everything up to there has everything up to this mail.
    pub fn mail_previous(&self) -> u64 {
        u64::from_be_bytes(array(&self.meta()[16..24]))
    }

    /// The number of a mail in its mailbox. Numbers grow, and are never used twice.
    pub fn mail_number(&self) -> u64 {
        u64::from_be_bytes(array(&self.meta()[8..16]))
    }

    /// How long the gateway says that it held this mail.
    pub fn mail_held(&self) -> Duration {
        Duration::from_nanos(u64::from_be_bytes(array(&self.meta()[..8])))
    }

    /// Turns the frame into padding, all zero: what the buffer carried before was somebody else's. The link encrypts it,
    /// so that an observer sees no difference.
    pub fn set_padding(&mut self) {
        self.0.fill(0);
        self.set_head(FrameKind::Padding, Parity(false));
    }

    /// The frame with which a gateway ends a session in favour of a newer one.
    pub fn displaced() -> Self {
        let mut frame = Self::zeroed();
        frame.set_head(FrameKind::Displaced, Parity(false));
        frame
    }

    /// A frame that asks the gateway for mail, or to keep it, and says which mail is safe here: everything up to and
    /// including that number.
    pub fn collect(wanted: bool, acknowledged: u64) -> Self {
        let mut frame = Self::zeroed();
        frame.set_head(if wanted { FrameKind::Collect } else { FrameKind::Hold }, Parity(false));
        frame.meta_mut()[..8].copy_from_slice(&acknowledged.to_be_bytes());
        frame
    }

    /// The number that a collect or hold frame names.
    pub fn collect_acknowledged(&self) -> u64 {
        u64::from_be_bytes(array(&self.meta()[..8]))
    }

    /// The Sphinx packet.
    pub fn packet(&self) -> &[u8; PACKET_LEN] {
        self.0.last_chunk().expect("the body is the frame's last PACKET_LEN bytes")
    }

    /// The Sphinx packet, to be written or unwrapped in place.
    pub fn packet_mut(&mut self) -> &mut [u8; PACKET_LEN] {
        self.0.last_chunk_mut().expect("the body is the frame's last PACKET_LEN bytes")
    }

    fn set_head(&mut self, kind: FrameKind, parity: Parity) {
        self.0[..META_OFFSET].copy_from_slice(&[kind as u8, u8::from(parity.0), 0, 0]);
    }

    fn meta(&self) -> &[u8] {
        &self.0[META_OFFSET..BODY_OFFSET]
    }

    fn meta_mut(&mut self) -> &mut [u8] {
        &mut self.0[META_OFFSET..BODY_OFFSET]
    }
}

impl AsMut<[u8; PACKET_LEN]> for Frame {
    fn as_mut(&mut self) -> &mut [u8; PACKET_LEN] {
        self.packet_mut()
    }
}

impl core::fmt::Debug for Frame {
    /// Shows no content: a frame's bytes never belong in a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Frame(..)")
    }
}

/// Copies a slice whose length the caller has fixed by its range.
pub(crate) fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    slice.try_into().expect("the caller's range has exactly N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kinds_parities_and_reserved_bytes_are_refused() {
        let mut frame = Frame::zeroed();
        for kind in [0u8, 8, 0x7f, 0xff] {
            frame.as_bytes_mut()[0] = kind;
            assert_eq!(frame.kind(), Err(FrameError::Kind(kind)));
        }
        frame.as_bytes_mut()[0] = 1;
        frame.as_bytes_mut()[1] = 2;
        assert_eq!(frame.kind(), Err(FrameError::Parity(2)));
        frame.as_bytes_mut()[1] = 1;
        frame.as_bytes_mut()[3] = 1;
        assert_eq!(frame.kind(), Ok(FrameKind::Packet));
        frame.as_bytes_mut()[0] = 3;
        assert_eq!(frame.kind(), Err(FrameError::Reserved));
        frame.as_bytes_mut()[3] = 0;
        assert_eq!(frame.kind(), Ok(FrameKind::Mail));
    }

    #[test]
    fn metas_come_back_as_they_were_set() {
        let mut frame = Frame::zeroed();
        let meta = ClientMeta { next: NodeIndex(7), ack_check: [1; 8], challenge: [2; 20] };
        frame.set_client_packet(Parity::of(3), &meta);
        assert_eq!(frame.kind(), Ok(FrameKind::Packet));
        assert_eq!(frame.parity().index(), 1);
        frame.set_number(9, 70_000);
        assert!(frame.client_meta() == meta && frame.number() == (9, 70_000));
        let meta = LinkMeta { challenge: [4; 20], ack_check: [5; 8] };
        frame.set_link_packet(Parity::of(2), &meta);
        assert_eq!(frame.number(), (0, 0), "a number means nothing on another link");
        frame.set_number(u32::MAX, 1);
        assert!(frame.link_meta() == meta && frame.number() == (u32::MAX, 1));
        assert_eq!(frame.parity().index(), 0);
        frame.set_mail(Parity::of(2), Duration::from_micros(1500), 70_000);
        assert_eq!(frame.mail_held(), Duration::from_micros(1500));
        assert_eq!((frame.mail_number(), frame.mail_previous()), (70_000, 0));
        frame.set_mail_previous(69_000);
        assert_eq!((frame.mail_number(), frame.mail_previous()), (70_000, 69_000));
        assert_eq!(Frame::collect(true, 70_001).collect_acknowledged(), 70_001);
        frame.packet_mut().fill(9);
        frame.set_padding();
        assert_eq!(frame.kind(), Ok(FrameKind::Padding));
        assert!(
            frame.as_bytes()[META_OFFSET..].iter().all(|byte| *byte == 0),
            "nothing of the last use is left"
        );
    }
}

//! The 32-byte next-hop field of a Sphinx header, as Tombola uses it.
//!
//! | hop | layout |
//! |---|---|
//! | mix node | next hop 4 (index into the epoch's node list), check 8, challenge for the next hop's ticket 20 |
//! | recipient's gateway | `FF FF FF FF`, mailbox id 28 |
//!
//! A final hop has no such field. For check and challenge see `tombola_tickets::por`.

use tombola_sphinx::NEXT_HOP_LEN;
use tombola_topology::{MailboxId, NodeIndex};

use crate::frame::{CHALLENGE_LEN, array};

/// Length of the check field: a MAC over the ticket's challenge.
pub const CHECK_LEN: usize = 8;

/// Marks a field that names a mailbox. No node list is that long.
const MAILBOX: [u8; 4] = [0xff; 4];

const _: () = assert!(4 + CHECK_LEN + CHALLENGE_LEN == NEXT_HOP_LEN);

/// What a hop reads in its field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// Forward to this node.
    Node {
        /// Index into the node list of the epoch whose key opened the header.
        index: NodeIndex,
        /// MAC over the challenge that came with the packet.
        check: [u8; CHECK_LEN],
        /// Challenge of the next hop's ticket.
        challenge: [u8; CHALLENGE_LEN],
    },
    /// Put it into this mailbox.
    Mailbox(MailboxId),
}

impl NextHop {
    /// The field's bytes.
    pub fn to_bytes(&self) -> [u8; NEXT_HOP_LEN] {
        let mut field = [0; NEXT_HOP_LEN];
        match self {
            Self::Node { index, check, challenge } => {
                field[..4].copy_from_slice(&index.0.to_be_bytes());
                field[4..12].copy_from_slice(check);
                field[12..].copy_from_slice(challenge);
            }
            Self::Mailbox(mailbox) => {
                field[..4].copy_from_slice(&MAILBOX);
                field[4..].copy_from_slice(mailbox.as_bytes());
            }
        }
        field
    }

    /// Reads a field. Every value has a meaning; whether that hop exists is the receiver's question.
    pub fn from_bytes(field: &[u8; NEXT_HOP_LEN]) -> Self {
        if field[..4] == MAILBOX {
            return Self::Mailbox(MailboxId::from_bytes(array(&field[4..])));
        }
        Self::Node {
            index: NodeIndex(u32::from_be_bytes(array(&field[..4]))),
            check: array(&field[4..12]),
            challenge: array(&field[12..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_field_is_read_and_written_back(field: [u8; NEXT_HOP_LEN]) {
            prop_assert_eq!(NextHop::from_bytes(&field).to_bytes(), field);
        }

        #[test]
        fn a_mailbox_field_names_that_mailbox(id: [u8; 28]) {
            let hop = NextHop::Mailbox(MailboxId::from_bytes(id));
            prop_assert!(NextHop::from_bytes(&hop.to_bytes()) == hop);
        }
    }
}

//! A client's address: what one person gives another.
//!
//! Bech32m (BIP 350) with the human-readable part `tombola` over
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 32 | the client's Sphinx key |
//! | 33 | 32 | its gateway's identity |
//! | 65 | 28 | its mailbox there |
//!
//! 163 characters. BIP 173 bounds its strings at 90 because four errors are detected only up to there; up to
//! 1023 characters the same code still detects any two, hence every mistyped character and every transposed
//! pair.

use core::fmt;
use core::str::FromStr;

use bech32::primitives::decode::{CharError, UncheckedHrpstring, UncheckedHrpstringError};
use bech32::{Bech32m, Hrp};

use crate::ids::{IdentityKey, MailboxId, SphinxKey};

/// The only version there is.
const VERSION: u8 = 1;
/// Bytes under the checksum.
const PAYLOAD_LEN: usize = 1 + SphinxKey::LEN + IdentityKey::LEN + MailboxId::LEN;
/// The human-readable part.
const HRP: Hrp = Hrp::parse_unchecked("tombola");
/// The human-readable part and the separator.
const PREFIX: &str = "tombola1";

const _: () = assert!(PAYLOAD_LEN == 93);

/// Where a client receives: its key, its gateway and its mailbox there.
///
/// The text form is [`Self::TEXT_LEN`] characters of lower-case Bech32m, `tombola1…`; upper case is read as
/// well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddress {
    /// The client's own Sphinx key: it is the last hop of every route to it.
    pub sphinx_key: SphinxKey,
    /// The gateway that keeps its mail.
    pub gateway: IdentityKey,
    /// Its mailbox at that gateway.
    pub mailbox: MailboxId,
}

/// Why a text is not a client's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not begin with `tombola1`.
    #[error("not a Tombola address: it must begin with \"tombola1\"")]
    Prefix,
    /// A character that addresses do not use.
    #[error("{0:?} does not occur in an address: check for a mistyped or added character")]
    Character(char),
    /// Upper and lower case are mixed.
    #[error("an address is either all lower case or all upper case")]
    MixedCase,
    /// The checksum does not match.
    #[error("the address is mistyped or cut short: its checksum does not match")]
    Checksum,
    /// A version that this program does not know.
    #[error(
        "version {0} of addresses is not supported: this program reads version 1, a newer one may be needed"
    )]
    Version(u8),
    /// The checksum matches, but the length is not that of version 1.
    #[error("an address holds 93 bytes, this one {0}")]
    Length(usize),
    /// The bits that fill the last character are not zero: a second spelling of the same address.
    #[error("the address was not made by a correct program: its padding is not zero")]
    Padding,
}

impl ClientAddress {
    /// Characters of the text form.
    pub const TEXT_LEN: usize = 163;
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = [0; PAYLOAD_LEN];
        payload[0] = VERSION;
        payload[1..33].copy_from_slice(self.sphinx_key.as_bytes());
        payload[33..65].copy_from_slice(self.gateway.as_bytes());
        payload[65..].copy_from_slice(self.mailbox.as_bytes());
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, HRP, &payload).map_err(|_| fmt::Error)
    }
}

impl FromStr for ClientAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // First, so that any other kind of text is told what it is not, rather than which of its letters is
        // odd.
        if !text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
            return Err(AddressError::Prefix);
        }
        let unchecked = UncheckedHrpstring::new(text).map_err(|error| match error {
            UncheckedHrpstringError::Char(CharError::InvalidChar(character)) => {
                AddressError::Character(character)
            }
            UncheckedHrpstringError::Char(CharError::MixedCase) => AddressError::MixedCase,
            // With the prefix in place, it is cut right behind it, or a "1" was typed far behind it.
            _ => AddressError::Checksum,
        })?;
        // The last "1" separates: if the part before it is longer than ours, there is one among the data.
        if unchecked.hrp() != HRP {
            return Err(AddressError::Character('1'));
        }
        let checked =
            unchecked.validate_and_remove_checksum::<Bech32m>().map_err(|_| AddressError::Checksum)?;

        let mut bytes = checked.byte_iter();
        match bytes.next() {
            Some(VERSION) => {}
            Some(version) => return Err(AddressError::Version(version)),
            None => return Err(AddressError::Length(0)),
        }
        let length = 1 + bytes.len();
        if length != PAYLOAD_LEN {
            return Err(AddressError::Length(length));
        }
        checked.validate_segwit_padding().map_err(|_| AddressError::Padding)?;

        Ok(Self {
            sphinx_key: SphinxKey::from_bytes(take(&mut bytes)),
            gateway: IdentityKey::from_bytes(take(&mut bytes)),
            mailbox: MailboxId::from_bytes(take(&mut bytes)),
        })
    }
}

/// The next `N` bytes; the caller has checked that they are there.
fn take<const N: usize>(bytes: &mut impl Iterator<Item = u8>) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    taken
}

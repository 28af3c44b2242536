//! What lies inside the layers: 16 zero bytes | plaintext | 0x01 | zero bytes.

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::layout::{CHECK_LEN, PAYLOAD_LEN, PLAINTEXT_MAX};

/// Why an opened payload holds no plaintext. Both mean that somebody changed the packet, or that it was made for
/// another key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// The 16 bytes before the plaintext are not zero: the payload was changed on its way.
    #[error("the payload was changed on its way, or is not for this key")]
    Changed,
    /// The byte that ends the plaintext is missing: its maker did not follow the format.
    #[error("the end of the plaintext is not marked")]
    Padding,
}

/// The plaintext in a payload from which every layer is removed.
///
/// The check of the leading zero bytes takes constant time; finding the end does not, and runs only after it passed.
/// Stricter than `sphinx-packet`, which accepts any bytes but 1 behind the mark.
///
/// # Errors
///
/// [`PayloadError`] if the payload was changed at any hop, or badly made.
pub fn plaintext(payload: &[u8; PAYLOAD_LEN]) -> Result<&[u8], PayloadError> {
    let (check, rest) = payload.split_at(CHECK_LEN);
    if !bool::from(check.ct_eq(&[0; CHECK_LEN])) {
        return Err(PayloadError::Changed);
    }
    match rest.iter().rposition(|byte| *byte != 0) {
        Some(end) if rest[end] == 1 => Ok(&rest[..end]),
        _ => Err(PayloadError::Padding),
    }
}

/// Writes a plaintext with its frame; `None` if it is too long.
pub(crate) fn enclose(plaintext: &[u8], payload: &mut [u8; PAYLOAD_LEN]) -> Option<()> {
    if plaintext.len() > PLAINTEXT_MAX {
        return None;
    }
    payload.fill(0);
    let (message, padding) = payload[CHECK_LEN..].split_at_mut(plaintext.len());
    message.copy_from_slice(plaintext);
    padding[0] = 1;
    Some(())
}

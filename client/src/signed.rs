//! Messages that say who sent them: signed by the identity that the sender's mailbox belongs to.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | type 3 |
//! | 1..33 | the sender's link identity (ed25519) |
//! | 33..65 | its Sphinx key |
//! | 65..97 | its gateway |
//! | 97..161 | signature |
//! | 161.. | the message, of another type |
//!
//! The signature is over `"tombola/message/1\0"` | to whom | bytes 1..97 | the message. To whom: `00` and the recipient's
//! address (Sphinx key 32, gateway 32, mailbox 28), or, of an answer through reply blocks, `01` and the id of the message
//! that it answers. So a recipient cannot pass it on as if it were meant for somebody else.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use tombola_protocol::fragment::MessageId;
use tombola_topology::{ClientAddress, IdentityKey, MailboxId, SphinxKey};

use crate::content::ContentError;

const TYPE: u8 = 3;
const DOMAIN: &[u8] = b"tombola/message/1\0";
const SENDER_LEN: usize = 96;
const HEADER_LEN: usize = 1 + SENDER_LEN + 64;

/// To whom a message is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience {
    /// Whoever has this address.
    Address(ClientAddress),
    /// Whoever sent that message.
    SenderOf(MessageId),
}

/// Signs as one client.
pub(crate) struct Signer {
    key: SigningKey,
    address: ClientAddress,
}

impl Signer {
    pub(crate) fn new(seed: &[u8; 32], address: ClientAddress) -> Self {
        Self { key: SigningKey::from_bytes(seed), address }
    }

    /// Wraps a message.
    pub(crate) fn sign(&self, audience: &Audience, message: &[u8]) -> Vec<u8> {
        let mut sender = Vec::with_capacity(SENDER_LEN);
        sender.extend_from_slice(self.key.verifying_key().as_bytes());
        sender.extend_from_slice(self.address.sphinx_key.as_bytes());
        sender.extend_from_slice(self.address.gateway.as_bytes());
        let signature = self.key.sign(&signed_bytes(audience, &sender, message));
        let mut out = Vec::with_capacity(HEADER_LEN + message.len());
        out.push(TYPE);
        out.extend_from_slice(&sender);
        out.extend_from_slice(&signature.to_bytes());
        out.extend_from_slice(message);
        out
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

/// Takes a signed message apart; one that is not signed is given back as it is.
///
/// # Errors
/// The signature is missing in part, or does not hold.
pub(crate) fn open(
    audience: &Audience,
    mut message: Vec<u8>,
) -> Result<(Option<ClientAddress>, Vec<u8>), ContentError> {
    if message.first() != Some(&TYPE) {
        return Ok((None, message));
    }
    let (head, inner) = message.split_at_checked(HEADER_LEN).ok_or(ContentError::Signature)?;
    let (sender, signature) = head[1..].split_at(SENDER_LEN);
    let part = |at: usize| <[u8; 32]>::try_from(&sender[at..at + 32]).map_err(|_| ContentError::Signature);
    let key = VerifyingKey::from_bytes(&part(0)?).map_err(|_| ContentError::Signature)?;
    let signature = Signature::from_slice(signature).map_err(|_| ContentError::Signature)?;
    key.verify_strict(&signed_bytes(audience, sender, inner), &signature)
        .map_err(|_| ContentError::Signature)?;
    if inner.first() == Some(&TYPE) {
        return Err(ContentError::Signature);
    }
    let address = ClientAddress {
        sphinx_key: SphinxKey::from_bytes(part(32)?),
        gateway: IdentityKey::from_bytes(part(64)?),
        mailbox: MailboxId::of(&IdentityKey::from_bytes(part(0)?)),
    };
    message.drain(..HEADER_LEN);
    Ok((Some(address), message))
}

fn signed_bytes(audience: &Audience, sender: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    match audience {
        Audience::Address(address) => {
            bytes.push(0);
            bytes.extend_from_slice(address.sphinx_key.as_bytes());
            bytes.extend_from_slice(address.gateway.as_bytes());
            bytes.extend_from_slice(address.mailbox.as_bytes());
        }
        Audience::SenderOf(message) => {
            bytes.push(1);
            bytes.extend_from_slice(&message.0);
        }
    }
    bytes.extend_from_slice(sender);
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> ClientAddress {
        ClientAddress {
            sphinx_key: SphinxKey::from_bytes([n; 32]),
            gateway: IdentityKey::from_bytes([n; 32]),
            mailbox: MailboxId::from_bytes([n; 28]),
        }
    }

    #[test]
    fn a_signature_names_its_sender_and_holds_for_one_recipient_and_every_bit() {
        let seed = [7; 32];
        let identity = IdentityKey::from_bytes(*SigningKey::from_bytes(&seed).verifying_key().as_bytes());
        let own = ClientAddress { mailbox: MailboxId::of(&identity), ..address(1) };
        let signer = Signer::new(&seed, own);
        let to = Audience::Address(address(2));
        let message = signer.sign(&to, b"\x01text");
        assert_eq!(open(&to, message.clone()), Ok((Some(own), b"\x01text".to_vec())));
        for other in [Audience::Address(address(3)), Audience::SenderOf(MessageId([2; 16]))] {
            assert_eq!(open(&other, message.clone()), Err(ContentError::Signature));
        }
        for at in 1..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert_eq!(open(&to, changed), Err(ContentError::Signature), "byte {at}");
        }
        assert_eq!(open(&to, message[..100].to_vec()), Err(ContentError::Signature));
        assert_eq!(open(&to, b"\x01text".to_vec()), Ok((None, b"\x01text".to_vec())), "anonymous");
    }
}

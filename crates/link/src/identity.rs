//! Who is at the ends of a link: ed25519 keys, as the network document names them and as libp2p does.

use std::fmt;

use libp2p::PeerId;
use libp2p::identity::{self, Keypair};
use tombola_topology::IdentityKey;
use zeroize::Zeroizing;

/// Multihash code of "the digest is the data itself". libp2p hashes only keys longer than 42 bytes; an ed25519 key never is.
const IDENTITY_HASH: u64 = 0;

/// The ed25519 seed behind a node's or a client's [`IdentityKey`].
///
/// Zeroised when dropped. libp2p and its TLS library keep copies of their own for as long as the links run.
#[derive(Clone)]
pub struct LinkSecret(Zeroizing<[u8; 32]>);

impl LinkSecret {
    /// Wraps a seed (RFC 8032, section 5.1.5): 32 uniformly random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The public key that the other ends see.
    #[must_use]
    pub fn identity(&self) -> IdentityKey {
        IdentityKey::of_seed(&self.0)
    }

    /// The same key as libp2p wants it.
    pub(crate) fn keypair(&self) -> Keypair {
        // `ed25519_from_bytes` zeroises the buffer that it is given.
        Keypair::ed25519_from_bytes(*self.0).expect("every 32 bytes are an ed25519 seed")
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(..)")
    }
}

/// The libp2p name of an identity; `None` if the bytes are not a point of the curve.
pub(crate) fn peer_id_of(identity: &IdentityKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(identity.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The identity behind a libp2p name; `None` if the name does not contain an ed25519 key.
pub(crate) fn identity_of(peer: &PeerId) -> Option<IdentityKey> {
    let name = peer.as_ref();
    if name.code() != IDENTITY_HASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(name.digest()).ok()?;
    let key = key.try_into_ed25519().ok()?;
    Some(IdentityKey::from_bytes(key.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for byte in 0..32 {
            let secret = LinkSecret::from_seed([byte; 32]);
            let peer = peer_id_of(&secret.identity()).unwrap();
            assert_eq!(peer, secret.keypair().public().to_peer_id());
            assert_eq!(identity_of(&peer), Some(secret.identity()));
        }
    }

    #[test]
    fn other_kinds_of_names_are_no_identity() {
        // An identity hash of bytes that are not a key.
        assert_eq!(identity_of(&PeerId::random()), None);
        // A SHA-256 hash, the name of an RSA key: it does not contain the key.
        let mut bytes = vec![0x12, 32];
        bytes.extend([7; 32]);
        assert_eq!(identity_of(&PeerId::from_bytes(&bytes).unwrap()), None);
        // A secp256k1 key in the protobuf of libp2p (type 2), under the identity hash.
        let mut bytes = vec![0x00, 37, 0x08, 0x02, 0x12, 0x21, 0x02];
        bytes.extend([7; 32]);
        assert_eq!(identity_of(&PeerId::from_bytes(&bytes).unwrap()), None);
    }

    #[test]
    fn bytes_that_are_no_point_have_no_name() {
        let no_point = (0..=255u8).map(|byte| IdentityKey::from_bytes([byte; 32]));
        assert!(no_point.filter(|key| peer_id_of(key).is_none()).count() > 64);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", LinkSecret::from_seed([0xab; 32])), "LinkSecret(..)");
    }
}

//! What sender and hop derive from the secret that they share.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::layout::{EXPAND_INFO, EXPANDED_LEN, PAYLOAD_KEY_LEN, SEED_LEN};

/// HKDF info of the relay secrets; none of them is the info of another expansion of the same secret.
const OWN_INFO: &[u8] = b"tombola/1/own";
const ACK_INFO: &[u8] = b"tombola/1/ack";
const CHK_INFO: &[u8] = b"tombola/1/chk";

/// The secrets behind a hop's payment: known to the sender and to this hop, and to nobody else.
///
/// Each is HKDF-SHA256 (no salt, its own label) of the raw X25519 secret of the hop: never of the payload seed, which
/// a reply block gives away for its last hop, nor of the replay tag, which lies on disk.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RelaySecrets {
    /// This hop's half of the opener of its own ticket. Label `tombola/1/own`.
    pub own: [u8; 16],
    /// What this hop reveals to the one before it to acknowledge the packet. Label `tombola/1/ack`.
    pub ack: [u8; 16],
    /// Key of the check that binds the ticket's challenge to the packet. Label `tombola/1/chk`.
    pub chk: [u8; 16],
}

impl fmt::Debug for RelaySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelaySecrets(..)")
    }
}

/// Names a packet at one hop: the same bytes mean that the same shared secret was used before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayTag([u8; 32]);

impl ReplayTag {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A tag that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The output of a hash function over the shared secret: uniform, so any part of it can index a table.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Redacted, since a tag in a log links the log to a packet.
impl fmt::Debug for ReplayTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayTag(..)")
    }
}

/// All that one hop needs to treat one packet.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct HopSecrets {
    /// AES-128 key of the routing part (ρ in the paper).
    pub(crate) stream_key: [u8; 16],
    /// HMAC key of the routing part (μ).
    pub(crate) mac_key: [u8; 16],
    /// Seed of the payload key (π).
    pub(crate) seed: [u8; SEED_LEN],
    /// Scalar, not yet clamped, that turns this hop's alpha into the next one's (b).
    pub(crate) blinding: [u8; 32],
    /// Replay tag (τ).
    pub(crate) tag: [u8; 32],
    pub(crate) relay: RelaySecrets,
}

impl HopSecrets {
    /// Expands the raw shared secret of a hop.
    pub(crate) fn expand(shared: &[u8; 32]) -> Self {
        const FITS: &str = "HKDF-SHA256 gives up to 8160 bytes";
        // One extraction serves all: HKDF (RFC 5869, section 3.2) separates its outputs by `info`.
        let hkdf = Hkdf::<Sha256>::new(None, shared);
        let mut bytes = Zeroizing::new([0; EXPANDED_LEN]);
        hkdf.expand(EXPAND_INFO, &mut *bytes).expect(FITS);
        let mut relay = RelaySecrets { own: [0; 16], ack: [0; 16], chk: [0; 16] };
        hkdf.expand(OWN_INFO, &mut relay.own).expect(FITS);
        hkdf.expand(ACK_INFO, &mut relay.ack).expect(FITS);
        hkdf.expand(CHK_INFO, &mut relay.chk).expect(FITS);
        Self {
            stream_key: piece(&bytes, 0),
            mac_key: piece(&bytes, 16),
            seed: piece(&bytes, 32),
            blinding: piece(&bytes, 32 + PAYLOAD_KEY_LEN),
            tag: piece(&bytes, 32 + PAYLOAD_KEY_LEN + 32),
            relay,
        }
    }

    /// What stands in for the secrets of hops that a route does not have.
    pub(crate) const fn none() -> Self {
        Self {
            stream_key: [0; 16],
            mac_key: [0; 16],
            seed: [0; SEED_LEN],
            blinding: [0; 32],
            tag: [0; 32],
            relay: RelaySecrets { own: [0; 16], ack: [0; 16], chk: [0; 16] },
        }
    }
}

fn piece<const N: usize>(bytes: &[u8; EXPANDED_LEN], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the pieces lie within the expanded secret")
}

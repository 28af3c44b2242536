//! What sender and hop derive from the secret that they share.

use std::fmt;

use tombola_lanes::sha256::{Expansion, hkdf};
use tombola_lanes::{BATCH, Erasing, Path, erase};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::layout::{EXPAND_INFO, EXPANDED_LEN, PAYLOAD_KEY_LEN, SEED_LEN};

/// HKDF info of the relay secrets; none of them is the info of another expansion of the same secret.
const OWN_INFO: &[u8] = b"tombola/1/own";
const ACK_INFO: &[u8] = b"tombola/1/ack";
const CHK_INFO: &[u8] = b"tombola/1/chk";

/// Where the relay secrets lie behind the expanded secret.
const OWN_AT: usize = EXPANDED_LEN;
const ACK_AT: usize = OWN_AT + 16;
const CHK_AT: usize = ACK_AT + 16;
const ALL_LEN: usize = CHK_AT + 16;

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

/// All that one hop needs to treat one packet. Erased when dropped.
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

impl Drop for HopSecrets {
    fn drop(&mut self) {
        let Self { stream_key, mac_key, seed, blinding, tag, relay: _ } = self;
        erase(stream_key);
        erase(mac_key);
        erase(seed);
        erase(blinding);
        erase(tag);
    }
}

impl HopSecrets {
    /// Expands the raw shared secrets of several hops, or of one hop with several packets.
    pub(crate) fn expand(path: Path, shared: &[[u8; 32]], mut each: impl FnMut(usize, Self)) {
        // One extraction serves all: HKDF (RFC 5869, section 3.2) separates its outputs by `info`.
        let expansions = [
            Expansion { info: EXPAND_INFO, range: 0..EXPANDED_LEN },
            Expansion { info: OWN_INFO, range: OWN_AT..ACK_AT },
            Expansion { info: ACK_INFO, range: ACK_AT..CHK_AT },
            Expansion { info: CHK_INFO, range: CHK_AT..ALL_LEN },
        ];
        let mut bytes = Erasing::new([[0; ALL_LEN]; BATCH]);
        for (chunk, shared) in shared.chunks(BATCH).enumerate() {
            let bytes = &mut bytes[..shared.len()];
            hkdf(path, &[], shared, &expansions, bytes);
            for (bytes, at) in bytes.iter().zip(BATCH * chunk..) {
                each(at, Self::read(bytes));
            }
        }
    }

    fn read(bytes: &[u8; ALL_LEN]) -> Self {
        Self {
            stream_key: piece(bytes, 0),
            mac_key: piece(bytes, 16),
            seed: piece(bytes, 32),
            blinding: piece(bytes, 32 + PAYLOAD_KEY_LEN),
            tag: piece(bytes, 32 + PAYLOAD_KEY_LEN + 32),
            relay: RelaySecrets {
                own: piece(bytes, OWN_AT),
                ack: piece(bytes, ACK_AT),
                chk: piece(bytes, CHK_AT),
            },
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

fn piece<const N: usize>(bytes: &[u8; ALL_LEN], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the pieces lie within the expanded secret")
}

//! What a hop reads in its header, and the two primitives that protect it.

use aes::Aes128;
use ctr::Ctr64BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use tombola_lanes::Path;
use tombola_lanes::sha256::hmac;

use crate::layout::{
    FINAL, FORWARD, HOP_LEN, IDENTIFIER_LEN, MAC_LEN, NEXT_HOP_LEN, ROUTING_LEN, STREAM_LEN, VERSION_BYTES,
};
use crate::unwrap::UnwrapError;

/// What every hop but the last reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopField {
    /// Where the packet goes next. Opaque to this crate.
    pub next: [u8; NEXT_HOP_LEN],
    /// How long this hop holds the packet, in nanoseconds, as the sender drew it: the hop has to bound it.
    pub delay_ns: u64,
}

/// What the last hop reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Opaque to this crate.
    pub address: [u8; NEXT_HOP_LEN],
    /// The identifier of a reply block or of a loop, by which its maker knows it again; else random.
    pub identifier: [u8; IDENTIFIER_LEN],
}

/// What a hop learns about the way of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// The packet goes on.
    Forward {
        /// Where it goes next. Opaque to this crate.
        next: [u8; NEXT_HOP_LEN],
        /// How long to hold it, in nanoseconds, not bounded yet.
        delay_ns: u64,
    },
    /// The packet ends here.
    Final(Destination),
}

const NEXT_AT: usize = 4;
const DELAY_AT: usize = NEXT_AT + NEXT_HOP_LEN;
const NEXT_MAC_AT: usize = DELAY_AT + 8;
const _: () = assert!(NEXT_MAC_AT + MAC_LEN == HOP_LEN);

impl Routing {
    /// Reads the decrypted part of one hop. The version comes first: it says what the rest means.
    pub(crate) fn read(hop: &[u8; HOP_LEN]) -> Result<Self, UnwrapError> {
        let version = u32::from_be_bytes([0, hop[1], hop[2], hop[3]]);
        if hop[1..NEXT_AT] != VERSION_BYTES {
            return Err(UnwrapError::Version(version));
        }
        let next = *hop[NEXT_AT..].first_chunk().expect("the field lies within the hop");
        match hop[0] {
            FORWARD => {
                let delay = *hop[DELAY_AT..].first_chunk().expect("the delay lies within the hop");
                Ok(Self::Forward { next, delay_ns: u64::from_be_bytes(delay) })
            }
            FINAL => {
                let identifier = *hop[DELAY_AT..].first_chunk().expect("the identifier lies within the hop");
                Ok(Self::Final(Destination { address: next, identifier }))
            }
            flag => Err(UnwrapError::Flag(flag)),
        }
    }
}

/// Where the MAC of the next header lies in the decrypted part of a forward hop.
pub(crate) fn next_mac(hop: &[u8; HOP_LEN]) -> &[u8; MAC_LEN] {
    hop.last_chunk().expect("a hop ends with the MAC of the next header")
}

/// Writes a forward hop, up to the routing part of the next hop.
pub(crate) fn write_forward(hop: &mut [u8; HOP_LEN], field: &HopField, next_mac: &[u8; MAC_LEN]) {
    hop[0] = FORWARD;
    hop[1..NEXT_AT].copy_from_slice(&VERSION_BYTES);
    hop[NEXT_AT..DELAY_AT].copy_from_slice(&field.next);
    hop[DELAY_AT..NEXT_MAC_AT].copy_from_slice(&field.delay_ns.to_be_bytes());
    hop[NEXT_MAC_AT..].copy_from_slice(next_mac);
}

/// Writes a final hop, up to the padding.
pub(crate) fn write_final(hop: &mut [u8; HOP_LEN], destination: &Destination) {
    hop[0] = FINAL;
    hop[1..NEXT_AT].copy_from_slice(&VERSION_BYTES);
    hop[NEXT_AT..DELAY_AT].copy_from_slice(&destination.address);
    hop[DELAY_AT..DELAY_AT + IDENTIFIER_LEN].copy_from_slice(&destination.identifier);
}

/// The key stream of a hop: AES-128 in counter mode (64 bits, big-endian), from zero. A key serves one packet only.
pub(crate) fn apply_stream(key: &[u8; 16], bytes: &mut [u8; STREAM_LEN]) {
    Ctr64BE::<Aes128>::new(key.into(), &[0; 16].into()).apply_keystream(bytes);
}

/// HMAC-SHA256 of encrypted routing parts, each cut to 16 bytes.
pub(crate) fn macs(
    path: Path,
    keys: &[[u8; 16]],
    routings: &[&[u8; ROUTING_LEN]],
    out: &mut [[u8; MAC_LEN]],
) {
    hmac(path, keys, routings, out);
}

/// The same of one.
pub(crate) fn mac(key: &[u8; 16], routing: &[u8; ROUTING_LEN]) -> [u8; MAC_LEN] {
    let mut out = [[0; MAC_LEN]];
    hmac(Path::PORTABLE, &[*key], &[routing], &mut out);
    out[0]
}

//! Reply blocks: a header made in advance, with which a stranger can answer once.
//!
//! The replier gets the payload seed of the last hop only and adds that one layer. Every hop removes a layer with its
//! own key, whether or not it was there, and only the maker of the block, who is the last hop and knows every seed, can
//! put them all back. With every hop's seed, a replier could compute what the packet looks like at each of them.

use std::{fmt, slice};

use thiserror::Error;
use tombola_lanes::Path;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::build::{BuildError, RouteSecrets};
use crate::layout::{
    HEADER_LEN, IDENTIFIER_LEN, MAX_HOPS, NEXT_HOP_LEN, PACKET_LEN, PAYLOAD_LEN, SEED_LEN, SURB_LEN,
    header_parts, split_mut,
};
use crate::lioness;
use crate::payload::{PayloadError, enclose, plaintext};
use crate::point::{PointError, check_point};
use crate::routing::{Destination, HopField};

/// Why bytes are not a reply block, or not the keys of one.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SurbError {
    /// A reply block has [`SURB_LEN`] bytes; its keys have 16 for the identifier and 16 for each of 1 to [`MAX_HOPS`]
    /// hops.
    #[error("{0} bytes are not the length of a reply block or of its keys")]
    Length(usize),
    /// The first hop would refuse the header.
    #[error("the header of the reply block is bad: {0}")]
    Point(#[from] PointError),
    /// Zero is no identifier.
    #[error("the identifier of a reply block must not be zero")]
    ZeroIdentifier,
}

/// A single-use reply block: header 348 | first hop 32 | payload seed of the last hop 16.
///
/// Using one consumes it: two replies with one header carry the same replay tags, and the second is dropped.
pub struct Surb {
    header: [u8; HEADER_LEN],
    first_hop: [u8; NEXT_HOP_LEN],
    seed: Zeroizing<[u8; SEED_LEN]>,
}

impl Surb {
    /// Reads a reply block.
    ///
    /// # Errors
    ///
    /// [`SurbError`] on a wrong length, or if the first hop would refuse the header outright. What else may be wrong
    /// with the header cannot be seen without the keys of the hops.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SurbError> {
        let bytes: &[u8; SURB_LEN] = bytes.try_into().map_err(|_| SurbError::Length(bytes.len()))?;
        let (header, rest) = bytes.split_first_chunk().expect("a reply block is longer than its header");
        let (first_hop, seed) = rest.split_first_chunk().expect("a reply block has a first hop");
        check_point(header_parts(header).alpha)?;
        let seed = seed.try_into().expect("a reply block ends with a seed");
        Ok(Self { header: *header, first_hop: *first_hop, seed: Zeroizing::new(seed) })
    }

    /// The reply block as it is handed to whoever may answer.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SURB_LEN]> {
        let mut bytes = Zeroizing::new([0; SURB_LEN]);
        bytes[..HEADER_LEN].copy_from_slice(&self.header);
        bytes[HEADER_LEN..HEADER_LEN + NEXT_HOP_LEN].copy_from_slice(&self.first_hop);
        bytes[HEADER_LEN + NEXT_HOP_LEN..].copy_from_slice(&*self.seed);
        bytes
    }

    /// Where the reply has to be sent. Opaque to this crate, like the `next` of a hop field.
    #[must_use]
    pub const fn first_hop(&self) -> &[u8; NEXT_HOP_LEN] {
        &self.first_hop
    }

    /// Writes the reply and says where it goes first.
    ///
    /// # Errors
    ///
    /// [`BuildError::PlaintextLength`]; the block is gone, so check the length before.
    pub fn reply(
        self,
        plaintext: &[u8],
        packet: &mut [u8; PACKET_LEN],
    ) -> Result<[u8; NEXT_HOP_LEN], BuildError> {
        let (header, payload) = split_mut(packet);
        *header = self.header;
        enclose(plaintext, payload).ok_or(BuildError::PlaintextLength(plaintext.len()))?;
        lioness::encrypt(Path::best(), slice::from_ref(&*self.seed), &mut [Some(payload)]);
        Ok(self.first_hop)
    }
}

impl fmt::Debug for Surb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surb(..)")
    }
}

/// What the maker of a reply block keeps in order to read the answer: identifier 16 | seed of each hop 16, in order.
///
/// Erased when dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ReplyKeys {
    identifier: [u8; IDENTIFIER_LEN],
    seeds: [[u8; SEED_LEN]; MAX_HOPS],
    len: usize,
}

impl ReplyKeys {
    /// Reads keys that were stored.
    ///
    /// # Errors
    ///
    /// [`SurbError`] on a length that no reply block leads to, or an identifier of zero.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SurbError> {
        let wrong_length = SurbError::Length(bytes.len());
        let (identifier, seeds) = bytes.split_first_chunk().ok_or(wrong_length)?;
        let (seeds, rest) = seeds.as_chunks::<SEED_LEN>();
        if !rest.is_empty() || seeds.is_empty() || seeds.len() > MAX_HOPS {
            return Err(wrong_length);
        }
        if *identifier == [0; IDENTIFIER_LEN] {
            return Err(SurbError::ZeroIdentifier);
        }
        let mut keys = Self { identifier: *identifier, seeds: [[0; SEED_LEN]; MAX_HOPS], len: seeds.len() };
        keys.seeds[..seeds.len()].copy_from_slice(seeds);
        Ok(keys)
    }

    /// The keys, to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(IDENTIFIER_LEN + SEED_LEN * MAX_HOPS));
        bytes.extend_from_slice(&self.identifier);
        bytes.extend_from_slice(self.seeds[..self.len].as_flattened());
        bytes
    }

    /// What the final hop reads in the header of the answer, and finds these keys by.
    #[must_use]
    pub const fn identifier(&self) -> &[u8; IDENTIFIER_LEN] {
        &self.identifier
    }

    /// Reads the answer out of the payload of a packet that was unwrapped at its final hop.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the answer was changed on its way or answers another block; `payload` is noise then.
    pub fn open<'p>(&self, payload: &'p mut [u8; PAYLOAD_LEN]) -> Result<&'p [u8], PayloadError> {
        let (path, hops) = (Path::best(), &self.seeds[..self.len]);
        for seed in hops.iter().rev() {
            lioness::encrypt(path, slice::from_ref(seed), &mut [Some(payload)]);
        }
        lioness::decrypt(path, &hops[self.len - 1..], &mut [Some(payload)]);
        plaintext(payload)
    }
}

impl fmt::Debug for ReplyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyKeys(..)")
    }
}

/// Makes a reply block for the route whose secrets were derived; its last hop is the maker itself.
///
/// `padding_seed` as for [`build`](crate::build()).
///
/// # Errors
///
/// [`BuildError`] if the number of fields does not fit the route, or the identifier is zero.
pub fn build_surb(
    secrets: &RouteSecrets,
    fields: &[HopField],
    first_hop: [u8; NEXT_HOP_LEN],
    destination: &Destination,
    padding_seed: [u8; 32],
) -> Result<(Surb, ReplyKeys), BuildError> {
    if destination.identifier == [0; IDENTIFIER_LEN] {
        return Err(BuildError::ZeroIdentifier);
    }
    let mut header = [0; HEADER_LEN];
    secrets.header(fields, destination, padding_seed, &mut header)?;
    let hops = secrets.used();
    let mut keys =
        ReplyKeys { identifier: destination.identifier, seeds: [[0; SEED_LEN]; MAX_HOPS], len: hops.len() };
    for (seed, hop) in keys.seeds.iter_mut().zip(hops) {
        *seed = hop.seed;
    }
    let seed = Zeroizing::new(hops[hops.len() - 1].seed);
    Ok((Surb { header, first_hop, seed }, keys))
}

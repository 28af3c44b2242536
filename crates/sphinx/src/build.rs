//! Building packets: first the secrets of every hop, then the fields that may depend on them.

use std::{fmt, slice};

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use thiserror::Error;
use tombola_lanes::{BATCH, Erasing, Multiples, Path, x25519_base};
use zeroize::Zeroizing;

use crate::layout::{
    ALPHA_LEN, FINAL_LEN, HEADER_LEN, HOP_LEN, MAX_HOPS, PACKET_LEN, PAYLOAD_LEN, PLAINTEXT_MAX, ROUTING_LEN,
    SEED_LEN, STREAM_LEN, split_mut, write_header, xor,
};
use crate::lioness;
use crate::payload::enclose;
use crate::point::{HopKey, PublicKey};
use crate::routing::{Destination, HopField, apply_stream, mac, write_final, write_forward};
use crate::secrets::{HopSecrets, RelaySecrets};

/// Why a packet or a reply block was not built. All of these are mistakes of the caller.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// A route has 1 to [`MAX_HOPS`] hops.
    #[error("a route has 1 to {MAX_HOPS} hops, not {0}")]
    RouteLength(usize),
    /// Every hop but the last has a field.
    #[error("{expected} hop fields are needed for this route, not {got}")]
    FieldCount {
        /// Hops of the route, less one.
        expected: usize,
        /// Fields that were given.
        got: usize,
    },
    /// A plaintext has at most [`PLAINTEXT_MAX`] bytes.
    #[error("a plaintext has at most {PLAINTEXT_MAX} bytes, not {0}")]
    PlaintextLength(usize),
    /// The identifier of a reply block is how its maker finds the keys again; zero is no identifier.
    #[error("the identifier of a reply block must not be zero")]
    ZeroIdentifier,
}

/// Everything that a sender derives before it fills in the hop fields, which depend on the relay secrets.
///
/// Use it for one packet or reply block only: a second one would carry the same replay tags.
pub struct RouteSecrets {
    alpha: [u8; ALPHA_LEN],
    hops: [HopSecrets; MAX_HOPS],
    len: usize,
}

impl RouteSecrets {
    /// Derives the secrets that the owner of `secret` (32 uniform bytes, never used before) shares with each hop of
    /// the route.
    ///
    /// Hop i sees alpha = x b_0 ... b_(i-1) B and multiplies it by its own key, so their secret is
    /// (x b_0 ... b_(i-1)) K_i, where x and the blinding factors b are clamped integers and K_i is the hop's public
    /// key. Because K_i lies in the subgroup of prime order l ([`PublicKey`] guarantees it), the product may be reduced
    /// modulo l and costs one multiplication per hop, not i of them. It is not zero modulo l, since l is prime and no
    /// clamped integer is a multiple of it.
    ///
    /// # Errors
    ///
    /// [`BuildError::RouteLength`] unless there are 1 to [`MAX_HOPS`] keys.
    pub fn derive(secret: [u8; 32], keys: &[PublicKey]) -> Result<Self, BuildError> {
        let secret = Zeroizing::new(secret);
        let len = route_len(keys)?;
        let mut exponent = Zeroizing::new(clamped(&secret));
        let mut route = Self {
            alpha: MontgomeryPoint::mul_base_clamped(*secret).to_bytes(),
            hops: [const { HopSecrets::none() }; MAX_HOPS],
            len,
        };
        for (hop, key) in route.hops.iter_mut().zip(keys) {
            let shared = Erasing::new([key.multiply(&exponent)]);
            HopSecrets::expand(Path::PORTABLE, &*shared, |_, expanded| *hop = expanded);
            *exponent *= clamped(&hop.blinding);
        }
        Ok(route)
    }

    /// [`derive`](Self::derive) for several routes, whose multiplications share vector registers: eight at a time cost
    /// little more than one, and less if the keys' tables are kept ([`KeptKey`](crate::KeptKey)). `each` gets every result,
    /// with its position, in order. There are as many routes as secrets; what is left over of either is not looked at.
    pub fn derive_batch<K: HopKey>(
        secrets: &[[u8; 32]],
        routes: &[&[K]],
        each: impl FnMut(usize, Result<Self, BuildError>),
    ) {
        Self::derive_batch_on(Path::for_points(secrets.len()), secrets, routes, each);
    }

    /// [`derive_batch`](Self::derive_batch) with instructions of one's choice, for tests and measurements: the results
    /// are the same.
    pub fn derive_batch_on<K: HopKey>(
        path: Path,
        secrets: &[[u8; 32]],
        routes: &[&[K]],
        mut each: impl FnMut(usize, Result<Self, BuildError>),
    ) {
        let eighth = Scalar::from_bytes_mod_order(EIGHTH);
        let mut multiples = Multiples::new(path);
        for (chunk, (secrets, routes)) in secrets.chunks(BATCH).zip(routes.chunks(BATCH)).enumerate() {
            let count = secrets.len().min(routes.len());
            let mut alphas = [[0; ALPHA_LEN]; BATCH];
            let mut scalars = [&[0; 32]; BATCH];
            for (scalar, secret) in scalars.iter_mut().zip(secrets) {
                *scalar = secret;
            }
            x25519_base(path, &scalars[..count], &mut alphas[..count]);
            let mut results: [Option<Result<Self, BuildError>>; BATCH] = [const { None }; BATCH];
            let mut exponents = Zeroizing::new([Scalar::ZERO; BATCH]);
            for lane in 0..count {
                exponents[lane] = clamped(&secrets[lane]);
                results[lane] = Some(route_len(routes[lane]).map(|len| Self {
                    alpha: alphas[lane],
                    hops: [const { HopSecrets::none() }; MAX_HOPS],
                    len,
                }));
            }
            for hop in 0..MAX_HOPS {
                // The routes that have such a hop, side by side.
                let mut lanes = [0; BATCH];
                let mut points = [&[0; 32]; BATCH];
                let mut tables = [None; BATCH];
                let mut eighths = Erasing::new([[0; 32]; BATCH]);
                let mut len = 0;
                for (lane, result) in results.iter().enumerate() {
                    if let Some(Ok(_)) = result
                        && let Some(key) = routes[lane].get(hop)
                    {
                        lanes[len] = lane;
                        points[len] = key.key().as_bytes();
                        tables[len] = key.kept();
                        eighths[len] = (exponents[lane] * eighth).to_bytes();
                        len += 1;
                    }
                }
                let mut scalars = [&[0; 32]; BATCH];
                for (scalar, bytes) in scalars.iter_mut().zip(eighths.iter()) {
                    *scalar = bytes;
                }
                let mut shared = Erasing::new([[0; 32]; BATCH]);
                match tables[0] {
                    // All or none: one point without a table costs as much as a vector of them.
                    Some(first) if tables[..len].iter().all(Option::is_some) => {
                        let kept = tables.map(|key| key.unwrap_or(first).table());
                        multiples.set_kept(&kept[..len]);
                    }
                    _ => multiples.set(&points[..len]),
                }
                multiples.multiply_eighths(&scalars[..len], &mut shared[..len]);
                HopSecrets::expand(path, &shared[..len], |at, expanded| {
                    let lane = lanes[at];
                    exponents[lane] *= clamped(&expanded.blinding);
                    if let Some(Ok(route)) = &mut results[lane] {
                        route.hops[hop] = expanded;
                    }
                });
            }
            for (result, position) in results.into_iter().flatten().zip(BATCH * chunk..) {
                each(position, result);
            }
        }
    }

    /// The number of hops.
    #[must_use]
    pub const fn hops(&self) -> usize {
        self.len
    }

    /// The relay secrets shared with hop `hop`, counted from 0.
    ///
    /// # Panics
    ///
    /// If the route has no such hop.
    #[must_use]
    pub fn relay_secrets(&self, hop: usize) -> &RelaySecrets {
        &self.used()[hop].relay
    }

    pub(crate) fn used(&self) -> &[HopSecrets] {
        &self.hops[..self.len]
    }

    /// Builds the header that the first hop gets.
    pub(crate) fn header(
        &self,
        fields: &[HopField],
        destination: &Destination,
        padding_seed: [u8; 32],
        header: &mut [u8; HEADER_LEN],
    ) -> Result<(), BuildError> {
        let padding_seed = Erasing::new(padding_seed);
        let last = self.len - 1;
        if fields.len() != last {
            return Err(BuildError::FieldCount { expected: last, got: fields.len() });
        }
        let mut streams = Erasing::new([[0; STREAM_LEN]; MAX_HOPS]);
        for (stream, hop) in streams.iter_mut().zip(self.used()) {
            apply_stream(&hop.stream_key, stream);
        }

        // The filler is what the hops before the last one will have shifted in: the ends of their key streams, each
        // shifted on by those that follow. It is at the end of the last hop's routing part already, so that the MAC
        // covers it.
        let mut routing = [0; ROUTING_LEN];
        let own_len = ROUTING_LEN - HOP_LEN * last;
        for (shifted_in, stream) in streams[..last].iter().enumerate() {
            let filled = HOP_LEN * (shifted_in + 1);
            // One hop's length further left than before, with zeros behind: that is the shift.
            routing.copy_within(ROUTING_LEN - filled + HOP_LEN.., ROUTING_LEN - filled);
            routing[ROUTING_LEN - HOP_LEN..].fill(0);
            xor(&mut routing[ROUTING_LEN - filled..], &stream[STREAM_LEN - filled..]);
        }
        // Unused space is random, not zero: else the last hop could read the length of the route off it (Kuhn et al.,
        // "Breaking and (Partially) Fixing Provably Secure Onion Routing", 2020, section 4).
        routing[..own_len].fill(0);
        ChaCha20::new((&*padding_seed).into(), &[0; 12].into())
            .apply_keystream(&mut routing[FINAL_LEN..own_len]);
        write_final(routing.first_chunk_mut().expect("the routing part is longer than one hop"), destination);
        xor(&mut routing[..own_len], &streams[last][..own_len]);
        let mut next_mac = mac(&self.hops[last].mac_key, &routing);

        for at in (0..last).rev() {
            routing.copy_within(..ROUTING_LEN - HOP_LEN, HOP_LEN);
            let hop = routing.first_chunk_mut().expect("the routing part is longer than one hop");
            write_forward(hop, &fields[at], &next_mac);
            xor(&mut routing, &streams[at][..ROUTING_LEN]);
            next_mac = mac(&self.hops[at].mac_key, &routing);
        }
        write_header(header, &self.alpha, &next_mac, &routing);
        Ok(())
    }
}

impl fmt::Debug for RouteSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteSecrets").field("hops", &self.len).finish_non_exhaustive()
    }
}

/// Writes a packet for the route whose secrets were derived.
///
/// `fields` holds what each hop but the last reads, in order; hop i's `next` leads to hop i + 1. `padding_seed` (32
/// uniform bytes, never used before) is stretched into the header space that a route does not use.
///
/// # Errors
///
/// [`BuildError`] if the number of fields does not fit the route or the plaintext is too long; `packet` then holds
/// nothing of use.
pub fn build(
    secrets: &RouteSecrets,
    fields: &[HopField],
    destination: &Destination,
    padding_seed: [u8; 32],
    plaintext: &[u8],
    packet: &mut [u8; PACKET_LEN],
) -> Result<(), BuildError> {
    let (header, payload) = split_mut(packet);
    secrets.header(fields, destination, padding_seed, header)?;
    enclose(plaintext, payload).ok_or(BuildError::PlaintextLength(plaintext.len()))?;
    for hop in secrets.used().iter().rev() {
        lioness::encrypt(Path::best(), slice::from_ref(&hop.seed), &mut [Some(payload)]);
    }
    Ok(())
}

/// One packet of several that are built together: what [`build`] takes for it.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The secrets of its route.
    pub secrets: &'a RouteSecrets,
    /// What each hop but the last reads, in order.
    pub fields: &'a [HopField],
    /// What the last hop reads.
    pub destination: &'a Destination,
    /// 32 uniform bytes, never used before.
    pub padding_seed: [u8; 32],
    /// What is inside.
    pub plaintext: &'a [u8],
}

/// Writes several packets, whose payloads are encrypted together. `each` gets every result, with its position, in order;
/// a packet whose draft has a mistake holds nothing of use. There are as many packets as drafts; what is left over of
/// either is not looked at.
pub fn build_batch<B: AsMut<[u8; PACKET_LEN]>>(
    drafts: &[Draft<'_>],
    packets: &mut [B],
    each: impl FnMut(usize, Result<(), BuildError>),
) {
    build_batch_on(Path::best(), drafts, packets, each);
}

/// [`build_batch`] with instructions of one's choice, for tests and measurements: the results are the same.
pub fn build_batch_on<B: AsMut<[u8; PACKET_LEN]>>(
    path: Path,
    drafts: &[Draft<'_>],
    packets: &mut [B],
    mut each: impl FnMut(usize, Result<(), BuildError>),
) {
    for (chunk, (drafts, packets)) in drafts.chunks(BATCH).zip(packets.chunks_mut(BATCH)).enumerate() {
        let mut results = [Ok(()); BATCH];
        let mut payloads: [Option<&mut [u8; PAYLOAD_LEN]>; BATCH] = [const { None }; BATCH];
        let mut count = 0;
        for (draft, packet) in drafts.iter().zip(packets) {
            let (header, payload) = split_mut(packet.as_mut());
            results[count] = draft
                .secrets
                .header(draft.fields, draft.destination, draft.padding_seed, header)
                .and_then(|()| {
                    let len = draft.plaintext.len();
                    enclose(draft.plaintext, payload).ok_or(BuildError::PlaintextLength(len))
                });
            payloads[count] = Some(payload);
            count += 1;
        }
        // The last hop's layer first. A shorter route is done earlier.
        for layer in 0..MAX_HOPS {
            let mut seeds = Erasing::new([[0; SEED_LEN]; BATCH]);
            let mut together: [Option<&mut [u8; PAYLOAD_LEN]>; BATCH] = [const { None }; BATCH];
            let mut len = 0;
            for (draft, payload) in drafts.iter().zip(&mut payloads) {
                if let Some(hop) = draft.secrets.used().iter().rev().nth(layer) {
                    (seeds[len], together[len]) = (hop.seed, payload.as_deref_mut());
                    len += 1;
                }
            }
            lioness::encrypt(path, &seeds[..len], &mut together[..len]);
        }
        for (result, position) in results.into_iter().take(count).zip(BATCH * chunk..) {
            each(position, result);
        }
    }
}

/// Hops of a route, if there are not too few or too many.
fn route_len<K>(keys: &[K]) -> Result<usize, BuildError> {
    if keys.is_empty() || keys.len() > MAX_HOPS {
        return Err(BuildError::RouteLength(keys.len()));
    }
    Ok(keys.len())
}

/// 1 / 8 modulo l: the tables of `tombola-lanes` are of 8 times a point.
const EIGHTH: [u8; 32] = [
    0x79, 0x2f, 0xdc, 0xe2, 0x29, 0xe5, 0x06, 0x61, 0xd0, 0xda, 0x1c, 0x7d, 0xb3, 0x9d, 0xd3, 0x07, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x06,
];

/// The scalar that X25519 multiplies by, modulo the order of the prime subgroup.
fn clamped(bytes: &[u8; 32]) -> Scalar {
    Scalar::from_bytes_mod_order(clamp_integer(*bytes))
}

//! Unwrapping a packet at a hop, in steps that cannot be skipped.
//!
//! ```text
//! buffer --verify--> Verified --check_fresh--> Fresh --admit--> Admitted --unwrap--> Unwrapped
//!        point, MAC            replay filter         payment              payload, next header
//! ```
//!
//! Each step takes the type that only the step before it makes. Cheap checks come before dear ones, and whoever wants
//! the dear ones computed has to send a packet that is fresh and paid for.
//!
//! Packets go through the stages of a step in chunks, so that one stage's code and tables stay in the cache and the
//! multiplications of a chunk can share vector registers. Nothing is allocated, and no secret decides a branch: what
//! depends on the contents (flag, version) is looked at only once the MAC holds, and both kinds of hop cost the same.

use std::fmt;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ladder::{LANES, multiply_batch};
use crate::layout::{
    ALPHA_LEN, HOP_LEN, PACKET_LEN, ROUTING_LEN, STREAM_LEN, header_of, header_parts, split_mut, write_header,
};
use crate::lioness::Lioness;
use crate::point::{PointError, SecretKey, check_point};
use crate::routing::{Routing, apply_stream, mac, next_mac};
use crate::secrets::{HopSecrets, RelaySecrets, ReplayTag};

/// Why a packet was refused before its tag was looked at. Whoever made the packet, or changed its header, is at fault.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UnwrapError {
    /// Alpha is not below 2^255 - 19: it has a second encoding, under which the packet could pass again.
    #[error("alpha is not in canonical encoding")]
    NonCanonicalPoint,
    /// Alpha has small order: the secret would be known to everybody.
    #[error("alpha has small order")]
    SmallOrderPoint,
    /// The header was changed, or made for another key.
    #[error("the MAC of the header does not hold")]
    Mac,
    /// The three bytes of the version, as a number, are not [`VERSION`](crate::VERSION).
    #[error("packet version {0} is not supported")]
    Version(u32),
    /// Neither a forward hop nor a final one.
    #[error("hop flag {0} is unknown")]
    Flag(u8),
}

/// Remembers which packets came before. Implemented by whoever keeps the memory.
pub trait ReplayFilter {
    /// Why a tag was not let in: seen before, or no room left.
    type Rejected;

    /// Lets each tag in once, also when called from many threads at a time.
    ///
    /// # Errors
    ///
    /// `Rejected`, and the packet is dropped.
    fn check_and_insert(&self, tag: &ReplayTag) -> Result<(), Self::Rejected>;
}

/// Decides whether a packet is paid for. Implemented by whoever knows the tickets.
pub trait Admission {
    /// Why a packet was not let in.
    type Refused;

    /// Looks at what the hop learned about the packet.
    ///
    /// # Errors
    ///
    /// `Refused`, and the packet is dropped. Its tag stays in the replay filter.
    fn admit(&self, relay: &RelaySecrets, routing: &Routing) -> Result<(), Self::Refused>;
}

/// What the steps hand on: the buffer, unchanged until the last one, and what was computed.
struct Opened<'p> {
    packet: &'p mut [u8; PACKET_LEN],
    secrets: HopSecrets,
    routing: Routing,
    /// The decrypted routing part: this hop's, then the next hop's.
    decrypted: Zeroizing<[u8; STREAM_LEN]>,
}

/// A packet whose header is sound and made for this hop. It may still be a replay.
///
/// ```compile_fail,E0599
/// # fn skip(packet: tombola_sphinx::Verified<'_>) {
/// packet.unwrap(); // not before check_fresh and admit
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # fn skip(packet: tombola_sphinx::Verified<'_>, tickets: &impl tombola_sphinx::Admission) {
/// let _ = packet.admit(tickets); // not before check_fresh
/// # }
/// ```
pub struct Verified<'p>(Opened<'p>);

/// A packet that was not here before. It may still be unpaid.
///
/// ```compile_fail,E0599
/// # fn skip(packet: tombola_sphinx::Fresh<'_>) {
/// packet.unwrap(); // not before admit
/// # }
/// ```
///
/// ```compile_fail,E0423
/// # fn forge(packet: tombola_sphinx::Verified<'_>) -> tombola_sphinx::Fresh<'_> {
/// tombola_sphinx::Fresh(packet.0) // private
/// # }
/// ```
pub struct Fresh<'p>(Opened<'p>);

/// A packet that this hop has to treat.
pub struct Admitted<'p>(Opened<'p>);

/// What a hop learned from a packet that it unwrapped in place.
#[derive(Debug)]
pub struct Unwrapped {
    /// Where the packet goes.
    pub routing: Routing,
    /// The secrets behind this hop's payment.
    pub relay: RelaySecrets,
}

impl<'p> Verified<'p> {
    /// The packet's name in the replay filter.
    #[must_use]
    pub fn replay_tag(&self) -> ReplayTag {
        ReplayTag::from_bytes(self.0.secrets.tag)
    }

    /// The secrets behind this hop's payment.
    #[must_use]
    pub fn relay_secrets(&self) -> &RelaySecrets {
        &self.0.secrets.relay
    }

    /// Where the packet wants to go.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.0.routing
    }

    /// Inserts the packet's tag into the filter.
    ///
    /// # Errors
    ///
    /// Whatever the filter says; the packet is dropped then.
    pub fn check_fresh<F: ReplayFilter + ?Sized>(self, filter: &F) -> Result<Fresh<'p>, F::Rejected> {
        filter.check_and_insert(&self.replay_tag())?;
        Ok(Fresh(self.0))
    }
}

impl<'p> Fresh<'p> {
    /// The secrets behind this hop's payment.
    #[must_use]
    pub fn relay_secrets(&self) -> &RelaySecrets {
        &self.0.secrets.relay
    }

    /// Where the packet wants to go.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.0.routing
    }

    /// Asks whether the packet is paid for.
    ///
    /// # Errors
    ///
    /// Whatever the admission says; the packet is dropped then.
    pub fn admit<A: Admission + ?Sized>(self, admission: &A) -> Result<Admitted<'p>, A::Refused> {
        admission.admit(&self.0.secrets.relay, &self.0.routing)?;
        Ok(Admitted(self.0))
    }
}

impl Admitted<'_> {
    /// Writes the next hop's packet into the buffer. For several packets, see [`unwrap_batch`].
    ///
    /// At a final hop, the payload part holds what the sender enclosed (see [`plaintext`](crate::plaintext())), or an
    /// answer (see [`ReplyKeys`](crate::ReplyKeys)); the header part holds noise, because the work is the same.
    #[must_use]
    pub fn unwrap(self) -> Unwrapped {
        let mut alpha = [[0; ALPHA_LEN]];
        multiply_batch(
            &[header_parts(header_of(self.0.packet)).alpha],
            &[&self.0.secrets.blinding],
            &mut alpha,
        );
        self.0.finish(&alpha[0])
    }
}

impl Opened<'_> {
    fn finish(self, next_alpha: &[u8; ALPHA_LEN]) -> Unwrapped {
        let (header, payload) = split_mut(self.packet);
        let (hop, next_routing) =
            self.decrypted.split_first_chunk::<HOP_LEN>().expect("one hop fits the key stream");
        let next_routing = next_routing.try_into().expect("behind one hop lies a whole routing part");
        write_header(header, next_alpha, next_mac(hop), next_routing);
        Lioness::from_seed(&self.secrets.seed).decrypt(payload);
        Unwrapped { routing: self.routing, relay: self.secrets.relay.clone() }
    }
}

/// Writes the next hop's packet into each buffer, as [`Admitted::unwrap`] does, and calls `each` with the position of
/// the packet among those that came in, in order.
pub fn unwrap_batch<'p>(
    packets: impl IntoIterator<Item = Admitted<'p>>,
    mut each: impl FnMut(usize, Unwrapped),
) {
    let mut packets = packets.into_iter();
    let mut position = 0;
    loop {
        let mut chunk: [Option<Admitted<'p>>; LANES] = [const { None }; LANES];
        let mut len = 0;
        for (slot, packet) in chunk.iter_mut().zip(packets.by_ref()) {
            *slot = Some(packet);
            len += 1;
        }
        if len == 0 {
            return;
        }
        let mut points = [&[0; ALPHA_LEN]; LANES];
        let mut scalars = [&[0; 32]; LANES];
        for (lane, Admitted(opened)) in chunk.iter().flatten().enumerate() {
            points[lane] = header_parts(header_of(opened.packet)).alpha;
            scalars[lane] = &opened.secrets.blinding;
        }
        let mut alphas = [[0; ALPHA_LEN]; LANES];
        multiply_batch(&points[..len], &scalars[..len], &mut alphas[..len]);
        for (Admitted(opened), alpha) in chunk.into_iter().flatten().zip(&alphas) {
            each(position, opened.finish(alpha));
            position += 1;
        }
    }
}

/// Checks the header of one packet. For several packets, see [`verify_batch`].
///
/// In this order: encoding and order of alpha, MAC, version, flag. The buffer is not changed.
///
/// # Errors
///
/// [`UnwrapError`] says which check failed.
pub fn verify<'p>(key: &SecretKey, packet: &'p mut [u8; PACKET_LEN]) -> Result<Verified<'p>, UnwrapError> {
    let alpha = header_parts(header_of(packet)).alpha;
    check_alpha(alpha)?;
    let mut shared = Zeroizing::new([[0; 32]]);
    multiply_batch(&[alpha], &[key.as_bytes()], &mut *shared);
    let secrets = HopSecrets::expand(&shared[0]);
    check_mac(&secrets, packet)?;
    open(secrets, packet)
}

/// Checks the headers of several packets, as [`verify`] does. `key_of` names the key for a packet by its position;
/// `each` gets every packet's result, with its position, in order.
pub fn verify_batch<'p, 'k, B: AsMut<[u8; PACKET_LEN]>>(
    packets: &'p mut [B],
    key_of: impl Fn(usize) -> &'k SecretKey,
    mut each: impl FnMut(usize, Result<Verified<'p>, UnwrapError>),
) {
    let mut position = 0;
    for chunk in packets.chunks_mut(LANES) {
        // Points.
        let mut lanes: [Option<Lane<'p>>; LANES] = [const { None }; LANES];
        for (lane, buffer) in lanes.iter_mut().zip(chunk) {
            let packet = buffer.as_mut();
            let refused = check_alpha(header_parts(header_of(packet)).alpha).err();
            *lane = Some(Lane { packet, refused });
        }
        // Key agreement, for the lanes that are left.
        let mut points = [&[0; ALPHA_LEN]; LANES];
        let mut scalars = [&[0; 32]; LANES];
        let mut len = 0;
        for (lane, position) in lanes.iter().flatten().zip(position..) {
            if lane.refused.is_none() {
                points[len] = header_parts(header_of(lane.packet)).alpha;
                scalars[len] = key_of(position).as_bytes();
                len += 1;
            }
        }
        let mut shared = Zeroizing::new([[0; 32]; LANES]);
        multiply_batch(&points[..len], &scalars[..len], &mut shared[..len]);
        // MACs.
        let mut secrets: [Option<HopSecrets>; LANES] = [const { None }; LANES];
        let agreed =
            lanes.iter_mut().zip(&mut secrets).filter_map(|(lane, slot)| Some((lane.as_mut()?, slot)));
        for ((lane, slot), shared) in agreed.filter(|(lane, _)| lane.refused.is_none()).zip(shared.iter()) {
            let expanded = HopSecrets::expand(shared);
            match check_mac(&expanded, lane.packet) {
                Ok(()) => *slot = Some(expanded),
                Err(refused) => lane.refused = Some(refused),
            }
        }
        // Routing.
        for (lane, secrets) in lanes.into_iter().zip(secrets) {
            let Some(Lane { packet, refused }) = lane else { break };
            each(
                position,
                match (refused, secrets) {
                    (None, Some(secrets)) => open(secrets, packet),
                    (refused, _) => Err(refused.unwrap_or(UnwrapError::Mac)),
                },
            );
            position += 1;
        }
    }
}

/// A packet on its way through the stages of a batch.
struct Lane<'p> {
    packet: &'p mut [u8; PACKET_LEN],
    refused: Option<UnwrapError>,
}

fn check_alpha(alpha: &[u8; ALPHA_LEN]) -> Result<(), UnwrapError> {
    check_point(alpha).map_err(|error| match error {
        PointError::NonCanonical => UnwrapError::NonCanonicalPoint,
        PointError::SmallOrder | PointError::WrongGroup => UnwrapError::SmallOrderPoint,
    })
}

fn check_mac(secrets: &HopSecrets, packet: &[u8; PACKET_LEN]) -> Result<(), UnwrapError> {
    let header = header_parts(header_of(packet));
    let holds = mac(&secrets.mac_key, header.routing).ct_eq(header.mac);
    if bool::from(holds) { Ok(()) } else { Err(UnwrapError::Mac) }
}

fn open(secrets: HopSecrets, packet: &mut [u8; PACKET_LEN]) -> Result<Verified<'_>, UnwrapError> {
    let mut decrypted = Zeroizing::new([0; STREAM_LEN]);
    decrypted[..ROUTING_LEN].copy_from_slice(header_parts(header_of(packet)).routing);
    apply_stream(&secrets.stream_key, &mut decrypted);
    let routing = Routing::read(decrypted.first_chunk().expect("one hop fits the key stream"))?;
    Ok(Verified(Opened { packet, secrets, routing, decrypted }))
}

/// Nothing of a packet is shown: what a hop sees of it belongs in no log.
macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
redacted!(Verified, Fresh, Admitted);

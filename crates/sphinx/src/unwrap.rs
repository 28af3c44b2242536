//! Unwrapping a packet at a hop, in steps that cannot be skipped.
//!
//! ```text
//! buffer --verify--> Verified --check_fresh--> Fresh --admit--> Admitted --unwrap--> Unwrapped
//!        point, MAC            replay filter         payment              payload, next header
//! ```
//!
//! Each step takes the type that only the step before it makes. Cheap checks come before dear ones, and whoever wants
//! the payload treated has to send a packet that is fresh and paid for. The next alpha is an exception: it is a multiple
//! of the same point as the shared secret, costs a quarter of both while the table of that point is at hand, and is
//! computed as soon as the MAC holds.
//!
//! Packets go through the stages of a step in chunks, so that one stage's code and tables stay in the cache and the packets
//! of a chunk share vector registers (`tombola-lanes`). Nothing is allocated, and no secret decides a branch: what
//! depends on the contents (flag, version) is looked at only once the MAC holds, and both kinds of hop cost the same.

use std::fmt;

use subtle::ConstantTimeEq;
use thiserror::Error;
use tombola_lanes::{BATCH, Erasing, Multiples, Path, Single};

use crate::layout::{
    ALPHA_LEN, HOP_LEN, MAC_LEN, PACKET_LEN, PAYLOAD_LEN, ROUTING_LEN, SEED_LEN, STREAM_LEN, header_of,
    header_parts, split_mut, write_header,
};
use crate::lioness;
use crate::point::{PointError, SecretKey, check_point};
use crate::routing::{Routing, apply_stream, mac, macs, next_mac};
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
    decrypted: Erasing<[u8; STREAM_LEN]>,
    next_alpha: [u8; ALPHA_LEN],
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
        let (unwrapped, seed, payload) = self.0.finish();
        lioness::decrypt(Path::best(), &*Erasing::new([seed]), &mut [Some(payload)]);
        unwrapped
    }
}

impl<'p> Opened<'p> {
    /// Writes the next header, and says which payload is to be decrypted with which seed.
    fn finish(self) -> (Unwrapped, [u8; SEED_LEN], &'p mut [u8; PAYLOAD_LEN]) {
        let (header, payload) = split_mut(self.packet);
        let (hop, next_routing) =
            self.decrypted.split_first_chunk::<HOP_LEN>().expect("one hop fits the key stream");
        let next_routing = next_routing.try_into().expect("behind one hop lies a whole routing part");
        write_header(header, &self.next_alpha, next_mac(hop), next_routing);
        (Unwrapped { routing: self.routing, relay: self.secrets.relay.clone() }, self.secrets.seed, payload)
    }
}

/// Writes the next hop's packet into each buffer, as [`Admitted::unwrap`] does, and calls `each` with the position of
/// the packet among those that came in, in order.
pub fn unwrap_batch<'p>(packets: impl IntoIterator<Item = Admitted<'p>>, each: impl FnMut(usize, Unwrapped)) {
    unwrap_batch_on(Path::best(), packets, each);
}

/// [`unwrap_batch`] with instructions of one's choice, for tests and measurements: the results are the same.
pub fn unwrap_batch_on<'p>(
    path: Path,
    packets: impl IntoIterator<Item = Admitted<'p>>,
    mut each: impl FnMut(usize, Unwrapped),
) {
    let mut packets = packets.into_iter();
    let mut position = 0;
    loop {
        let mut seeds = Erasing::new([[0; SEED_LEN]; BATCH]);
        let mut unwrapped: [Option<Unwrapped>; BATCH] = [const { None }; BATCH];
        let mut payloads: [Option<&mut [u8; PAYLOAD_LEN]>; BATCH] = [const { None }; BATCH];
        let mut count = 0;
        for Admitted(opened) in packets.by_ref().take(BATCH) {
            let (result, seed, payload) = opened.finish();
            (unwrapped[count], seeds[count], payloads[count]) = (Some(result), seed, Some(payload));
            count += 1;
        }
        if count == 0 {
            return;
        }
        lioness::decrypt(path, &seeds[..count], &mut payloads[..count]);
        for unwrapped in unwrapped.into_iter().flatten() {
            each(position, unwrapped);
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
    let multiples = Single::new(alpha);
    let shared = Erasing::new([multiples.multiply(key.as_bytes())]);
    let mut secrets = HopSecrets::none();
    HopSecrets::expand(Path::PORTABLE, &*shared, |_, expanded| secrets = expanded);
    check_mac(&secrets, packet)?;
    let next_alpha = multiples.multiply(&secrets.blinding);
    open(secrets, next_alpha, packet)
}

/// Checks the headers of several packets, as [`verify`] does. `key_of` names the key for a packet by its position;
/// `each` gets every packet's result, with its position, in order.
pub fn verify_batch<'p, 'k, B: AsMut<[u8; PACKET_LEN]>>(
    packets: &'p mut [B],
    key_of: impl Fn(usize) -> &'k SecretKey,
    each: impl FnMut(usize, Result<Verified<'p>, UnwrapError>),
) {
    verify_batch_on(Path::for_points(packets.len()), packets, key_of, each);
}

/// [`verify_batch`] with instructions of one's choice, for tests and measurements: the results are the same.
pub fn verify_batch_on<'p, 'k, B: AsMut<[u8; PACKET_LEN]>>(
    path: Path,
    packets: &'p mut [B],
    key_of: impl Fn(usize) -> &'k SecretKey,
    mut each: impl FnMut(usize, Result<Verified<'p>, UnwrapError>),
) {
    let mut multiples = Multiples::new(path);
    let mut start = 0;
    for chunk in packets.chunks_mut(BATCH) {
        let len = chunk.len();
        // Points.
        let mut lanes: [Option<Lane<'p>>; BATCH] = [const { None }; BATCH];
        for (lane, buffer) in lanes.iter_mut().zip(chunk) {
            let packet = buffer.as_mut();
            let refused = check_alpha(header_parts(header_of(packet)).alpha).err();
            *lane = Some(Lane { packet, refused });
        }
        // Key agreement, for the lanes that are left.
        let mut points = [&[0; ALPHA_LEN]; BATCH];
        let mut scalars = [&[0; 32]; BATCH];
        let mut count = 0;
        for (lane, position) in lanes.iter().flatten().zip(start..) {
            if lane.refused.is_none() {
                points[count] = header_parts(header_of(lane.packet)).alpha;
                scalars[count] = key_of(position).as_bytes();
                count += 1;
            }
        }
        let mut shared = Erasing::new([[0; 32]; BATCH]);
        multiples.set(&points[..count]);
        multiples.multiply(&scalars[..count], &mut shared[..count]);
        // MACs.
        let mut secrets: [Option<HopSecrets>; BATCH] = [const { None }; BATCH];
        HopSecrets::expand(path, &shared[..count], |at, expanded| secrets[at] = Some(expanded));
        let mut mac_keys = Erasing::new([[0; 16]; BATCH]);
        for (key, secrets) in mac_keys.iter_mut().zip(secrets.iter().flatten()) {
            *key = secrets.mac_key;
        }
        let mut macs_of = [[0; MAC_LEN]; BATCH];
        let mut routings = [&[0; ROUTING_LEN]; BATCH];
        let agreed = lanes.iter().flatten().filter(|lane| lane.refused.is_none());
        for (routing, lane) in routings.iter_mut().zip(agreed) {
            *routing = header_parts(header_of(lane.packet)).routing;
        }
        macs(path, &mac_keys[..count], &routings[..count], &mut macs_of[..count]);
        let agreed = lanes.iter_mut().flatten().filter(|lane| lane.refused.is_none());
        for (lane, mac) in agreed.zip(&macs_of) {
            lane.refused = compare_mac(mac, lane.packet).err();
        }
        // The next alphas, in the lanes that the points have; those whose MAC does not hold come along.
        let mut alphas = [[0; ALPHA_LEN]; BATCH];
        if lanes.iter().flatten().any(|lane| lane.refused.is_none()) {
            let mut blindings = [&[0; 32]; BATCH];
            for (blinding, secrets) in blindings.iter_mut().zip(secrets.iter().flatten()) {
                *blinding = &secrets.blinding;
            }
            multiples.multiply(&blindings[..count], &mut alphas[..count]);
        }
        // Routing.
        let mut agreed = secrets.into_iter().flatten().zip(alphas);
        for (position, Lane { packet, refused }) in (start..).zip(lanes.into_iter().flatten()) {
            let result = match refused {
                Some(refused @ (UnwrapError::NonCanonicalPoint | UnwrapError::SmallOrderPoint)) => {
                    Err(refused)
                }
                refused => {
                    let (secrets, next_alpha) = agreed.next().expect("a lane for each point that was taken");
                    refused.map_or_else(|| open(secrets, next_alpha, packet), Err)
                }
            };
            each(position, result);
        }
        start += len;
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
    compare_mac(&mac(&secrets.mac_key, header.routing), packet)
}

fn compare_mac(mac: &[u8; MAC_LEN], packet: &[u8; PACKET_LEN]) -> Result<(), UnwrapError> {
    let holds = mac.ct_eq(header_parts(header_of(packet)).mac);
    if bool::from(holds) { Ok(()) } else { Err(UnwrapError::Mac) }
}

fn open(
    secrets: HopSecrets,
    next_alpha: [u8; ALPHA_LEN],
    packet: &mut [u8; PACKET_LEN],
) -> Result<Verified<'_>, UnwrapError> {
    let mut decrypted = Erasing::new([0; STREAM_LEN]);
    decrypted[..ROUTING_LEN].copy_from_slice(header_parts(header_of(packet)).routing);
    apply_stream(&secrets.stream_key, &mut decrypted);
    let routing = Routing::read(decrypted.first_chunk().expect("one hop fits the key stream"))?;
    Ok(Verified(Opened { packet, secrets, routing, decrypted, next_alpha }))
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

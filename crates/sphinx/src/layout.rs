//! The byte layout of a packet, and the compile-time proof that it is the one of the `sphinx-packet` crate.
//!
//! | bytes | what | paper |
//! |---|---|---|
//! | 0..32 | alpha: the blinded X25519 element | α |
//! | 32..48 | HMAC-SHA256 of the routing part, cut to 16 bytes | γ |
//! | 48..348 | routing: five hops of 60 bytes, AES-128-CTR | β |
//! | 348..2396 | payload, LIONESS | δ |
//!
//! A decrypted hop, of which the rest of the routing part is the next hop's:
//!
//! | bytes | forward hop (flag 1) | final hop (flag 2) |
//! |---|---|---|
//! | 0 | flag | flag |
//! | 1..4 | version: 0, then 260 as big-endian u16 | the same |
//! | 4..36 | next hop | destination address |
//! | 36..44 | delay, ns, big-endian | identifier (36..52) |
//! | 44..60 | MAC of the next header | identifier, then padding |

/// Length of alpha, the public element that each hop blinds, in bytes.
pub const ALPHA_LEN: usize = 32;
/// Length of the header MAC, in bytes.
pub const MAC_LEN: usize = 16;
/// What one hop takes of the routing part: flag, version, next hop, delay, MAC of the next header.
pub const HOP_LEN: usize = 60;
/// Longest route.
pub const MAX_HOPS: usize = 5;
/// Length of the encrypted routing part, in bytes.
pub const ROUTING_LEN: usize = HOP_LEN * MAX_HOPS;
/// Length of the whole header, in bytes.
pub const HEADER_LEN: usize = ALPHA_LEN + MAC_LEN + ROUTING_LEN;
/// Length of the payload: one for the whole network, so that no packet can be told apart by its size.
pub const PAYLOAD_LEN: usize = 2048;
/// Length of a packet.
pub const PACKET_LEN: usize = HEADER_LEN + PAYLOAD_LEN;
/// Length of the field that tells a hop where the packet goes next.
pub const NEXT_HOP_LEN: usize = 32;
/// Length of the identifier that the last hop reads.
pub const IDENTIFIER_LEN: usize = 16;
/// Zero bytes before the plaintext, by which the last hop recognises an unharmed payload.
pub const CHECK_LEN: usize = 16;
/// Longest plaintext: the payload less the zero bytes before it and the one byte that ends it.
pub const PLAINTEXT_MAX: usize = PAYLOAD_LEN - CHECK_LEN - 1;
/// Length of the seed of a payload key.
pub const SEED_LEN: usize = 16;
/// Length of a reply block: header | first hop | seed of the last hop.
pub const SURB_LEN: usize = HEADER_LEN + NEXT_HOP_LEN + SEED_LEN;
/// The only packet version that is built or accepted.
pub const VERSION: u16 = 260;

pub(crate) const VERSION_BYTES: [u8; 3] = [0, VERSION.to_be_bytes()[0], VERSION.to_be_bytes()[1]];
pub(crate) const FORWARD: u8 = 1;
pub(crate) const FINAL: u8 = 2;
/// Flag, version, address and identifier of a final hop; what follows, up to the filler, is padding.
pub(crate) const FINAL_LEN: usize = 1 + 3 + NEXT_HOP_LEN + IDENTIFIER_LEN;
/// The routing part is shifted by one hop at each hop; the key stream covers what comes in behind it.
pub(crate) const STREAM_LEN: usize = ROUTING_LEN + HOP_LEN;
pub(crate) const PAYLOAD_KEY_LEN: usize = 192;
/// Stream key 16 | MAC key 16 | payload key 192 (its first 16 bytes are the seed) | blinding factor 32 | tag 32.
pub(crate) const EXPANDED_LEN: usize = 16 + 16 + PAYLOAD_KEY_LEN + 32 + 32;

/// HKDF info for the secrets of a hop. Greek in Latin letters: "Give me a lever that is long enough, and a fulcrum
/// to place it on, and I shall move the earth."
pub(crate) const EXPAND_INFO: &[u8] =
    b"Dwste mou enan moxlo arketa makru kai ena upomoxlio gia na ton topothetisw kai tha kinisw thn gh.";
pub(crate) const PAYLOAD_INFO: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-INFO";
pub(crate) const PAYLOAD_SALT: &[u8] = b"sphinx-payload-key-V01-CS01-HKDF:SHA256-SALT";

const fn same(ours: &[u8], theirs: &[u8]) -> bool {
    if ours.len() != theirs.len() {
        return false;
    }
    let mut at = 0;
    while at < ours.len() {
        if ours[at] != theirs[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The format is somebody else's: if a new release of `sphinx-packet` changes it, this crate must not compile.
const _: () = {
    use sphinx_packet::{constants as theirs, header, header::routing, version};
    assert!(MAC_LEN == theirs::HEADER_INTEGRITY_MAC_SIZE);
    assert!(HOP_LEN == theirs::NODE_META_INFO_SIZE + theirs::HEADER_INTEGRITY_MAC_SIZE);
    assert!(MAX_HOPS == theirs::MAX_PATH_LENGTH);
    assert!(ROUTING_LEN == routing::ENCRYPTED_ROUTING_INFO_SIZE);
    assert!(HEADER_LEN == header::HEADER_SIZE);
    assert!(
        NEXT_HOP_LEN == theirs::NODE_ADDRESS_LENGTH && NEXT_HOP_LEN == theirs::DESTINATION_ADDRESS_LENGTH
    );
    assert!(IDENTIFIER_LEN == theirs::IDENTIFIER_LENGTH);
    assert!(CHECK_LEN == theirs::SECURITY_PARAMETER);
    assert!(PAYLOAD_LEN - PLAINTEXT_MAX == sphinx_packet::payload::PAYLOAD_OVERHEAD_SIZE);
    assert!(SEED_LEN == theirs::PAYLOAD_KEY_SEED_SIZE);
    assert!(VERSION == version::CURRENT_VERSION.0);
    assert!(VERSION_BYTES.len() == theirs::VERSION_LENGTH);
    assert!(FORWARD == routing::FORWARD_HOP && FINAL == routing::FINAL_HOP);
    assert!(FINAL_LEN == theirs::FINAL_NODE_META_INFO_LENGTH);
    assert!(STREAM_LEN == theirs::STREAM_CIPHER_OUTPUT_LENGTH);
    assert!(PAYLOAD_KEY_LEN == theirs::PAYLOAD_KEY_SIZE);
    assert!(EXPANDED_LEN == theirs::EXPANDED_SHARED_SECRET_LENGTH);
    assert!(same(EXPAND_INFO, theirs::EXPANDED_SHARED_SECRET_HKDF_INFO));
    assert!(theirs::EXPANDED_SHARED_SECRET_HKDF_SALT.is_empty());
    assert!(same(PAYLOAD_INFO, theirs::PAYLOAD_KEY_HKDF_INFO));
    assert!(same(PAYLOAD_SALT, theirs::PAYLOAD_KEY_HKDF_SALT));
};

/// The three parts of a header, each with its length in its type.
pub(crate) struct HeaderParts<'a> {
    pub(crate) alpha: &'a [u8; ALPHA_LEN],
    pub(crate) mac: &'a [u8; MAC_LEN],
    pub(crate) routing: &'a [u8; ROUTING_LEN],
}

/// Cuts a header into its parts.
pub(crate) fn header_parts(header: &[u8; HEADER_LEN]) -> HeaderParts<'_> {
    let (alpha, rest) = header.split_first_chunk().expect("a header is longer than alpha");
    let (mac, routing) = rest.split_first_chunk().expect("a header is longer than alpha and MAC");
    HeaderParts { alpha, mac, routing: routing.try_into().expect("the rest of a header is its routing part") }
}

/// Joins the parts of a header.
pub(crate) fn write_header(
    header: &mut [u8; HEADER_LEN],
    alpha: &[u8; ALPHA_LEN],
    mac: &[u8; MAC_LEN],
    routing: &[u8; ROUTING_LEN],
) {
    header[..ALPHA_LEN].copy_from_slice(alpha);
    header[ALPHA_LEN..ALPHA_LEN + MAC_LEN].copy_from_slice(mac);
    header[ALPHA_LEN + MAC_LEN..].copy_from_slice(routing);
}

/// The header of a packet.
pub(crate) fn header_of(packet: &[u8; PACKET_LEN]) -> &[u8; HEADER_LEN] {
    packet.first_chunk().expect("a packet is longer than its header")
}

/// The header and the payload of a packet.
pub(crate) fn split_mut(packet: &mut [u8; PACKET_LEN]) -> (&mut [u8; HEADER_LEN], &mut [u8; PAYLOAD_LEN]) {
    let (header, payload) = packet.split_first_chunk_mut().expect("a packet is longer than its header");
    (header, payload.try_into().expect("the rest of a packet is its payload"))
}

/// The payload of a packet.
#[must_use]
pub fn payload_of(packet: &[u8; PACKET_LEN]) -> &[u8; PAYLOAD_LEN] {
    packet.last_chunk().expect("a packet is longer than its payload")
}

/// The payload of a packet, to be changed in place.
#[must_use]
pub fn payload_of_mut(packet: &mut [u8; PACKET_LEN]) -> &mut [u8; PAYLOAD_LEN] {
    packet.last_chunk_mut().expect("a packet is longer than its payload")
}

/// Adds the second to the first, of the same length, bit by bit.
pub(crate) fn xor(into: &mut [u8], other: &[u8]) {
    debug_assert_eq!(into.len(), other.len());
    for (byte, other) in into.iter_mut().zip(other) {
        *byte ^= other;
    }
}

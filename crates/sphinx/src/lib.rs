#![doc = include_str!("../README.md")]

mod build;
mod layout;
mod lioness;
mod payload;
mod point;
mod routing;
mod secrets;
mod surb;
mod unwrap;

pub use build::{BuildError, Draft, RouteSecrets, build, build_batch, build_batch_on};
pub use layout::{
    ALPHA_LEN, CHECK_LEN, HEADER_LEN, HOP_LEN, IDENTIFIER_LEN, MAC_LEN, MAX_HOPS, NEXT_HOP_LEN, PACKET_LEN,
    PAYLOAD_LEN, PLAINTEXT_MAX, ROUTING_LEN, SEED_LEN, SURB_LEN, VERSION, payload_of, payload_of_mut,
};
pub use payload::{PayloadError, plaintext};
pub use point::{HopKey, KeptKey, PointError, PublicKey, SecretKey};
pub use routing::{Destination, HopField, Routing};
pub use secrets::{RelaySecrets, ReplayTag};
pub use surb::{ReplyKeys, Surb, SurbError, build_surb};
pub use tombola_lanes::Path;
pub use unwrap::{
    Admission, Admitted, Fresh, ReplayFilter, UnwrapError, Unwrapped, Verified, unwrap_batch,
    unwrap_batch_on, verify, verify_batch, verify_batch_on,
};

#![doc = include_str!("../README.md")]

mod ack_list;
mod batch;
mod bytes;
mod claim;
mod class;
mod lottery;
pub mod merkle;
pub mod por;
mod reader;
mod signature;

pub use ack_list::{AckList, ListHash};
pub use batch::{BatchError, BatchHeader, Digest, Domain, Salt, SignedBatch};
pub use claim::{
    BatchClaim, CallError, DecodeError, EncodeError, EscrowView, VerifyError, WindowClaim, WindowWinners,
    WinnerClaim, calldata, calldata_tokens, decode, decode_calldata, encode, encoded_len, verify,
};
pub use class::{ClassNumber, PriceClass, ProbabilityError, UnixSeconds, WinProbability};
pub use lottery::{Commitment, Randomness, WindowNumber, wins};
pub use merkle::{CountError, Node, PathError, Root, TicketCount};
pub use por::{Ack, AckCheck, Challenge, Check, Opener, PorError};
pub use signature::{CompactSignature, KeyError, SignatureError, SignerKey};

/// Of an issuer, a recipient, a signer or a contract.
pub use alloy_primitives::Address;

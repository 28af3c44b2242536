#![doc = include_str!("../README.md")]

mod account;
mod ack_list;
mod batch;
mod books;
mod bytes;
mod claim;
mod class;
mod credit;
mod issuer;
mod journal;
mod kept;
mod ledger;
mod lottery;
pub mod merkle;
mod messages;
mod opening;
pub mod por;
mod reader;
mod recipient;
pub mod records;
mod signature;
mod solvency;

pub use account::AccountProof;
pub use ack_list::{AckList, ListHash};
pub use batch::{BatchError, BatchHeader, Digest, Domain, Salt, SignedBatch};
pub use books::{Books, Now, SKIPPED_WINDOWS};
pub use claim::{
    BatchClaim, CallError, DecodeError, EncodeError, EscrowView, VerifyError, WindowClaim, WindowWinners,
    WinnerClaim, calldata, calldata_tokens, decode, decode_calldata, encode, encoded_len, verify,
};
pub use class::{ClassNumber, PriceClass, ProbabilityError, UnixSeconds, WinProbability};
pub use credit::{Credit, MOST_UNSIGNED};
pub use issuer::{Issuer, IssuerError, IssuerLink, Stop};
pub use journal::{Change, Journal, Table};
pub use kept::{KeptWindow, KeptWindows};
pub use ledger::{Account, Ledger, Winners};
pub use lottery::{Commitment, Randomness, WindowNumber, wins};
pub use merkle::{CountError, Node, PathError, Root, TicketCount};
pub use messages::{IssuerMessage, PacketAck, PacketId, RecipientMessage, session_offset};
pub use opening::{Neighbour, Openings};
pub use por::{Ack, AckCheck, Challenge, Check, Opener, OwnSecret, PorError};
pub use recipient::{
    BatchRefused, Event, Limits, OpenError, Recipient, RecipientLink, Refused, Secret, Settlement, TicketId,
};
pub use records::{RecordError, Restore};
pub use signature::{CompactSignature, KeyError, SignatureError, SignerKey};
pub use solvency::{Solvency, rough_quantile};

/// Of an issuer, a recipient, a signer or a contract.
pub use alloy_primitives::Address;

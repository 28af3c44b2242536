#![doc = include_str!("../README.md")]

mod address;
mod authority;
mod canonical;
mod document;
pub mod duration;
mod epoch;
mod error;
mod ids;
mod json;
mod node;
mod parameters;
mod payment;
mod phases;
mod reader;
mod route;
mod strata;
mod succession;

pub use address::{AddressError, ClientAddress};
pub use authority::{AuthorityKey, AuthorityKeyError, AuthoritySecret};
pub use document::{Draft, FORMAT, MAX_DOCUMENT_LEN, Network, SIGNATURE_DOMAIN};
pub use epoch::{Epoch, EpochDraft, MAX_NODES};
pub use error::{DocumentError, EpochError, Invalid, Problem};
pub use ids::{ChainAddress, EpochNumber, HexError, IdentityKey, MailboxId, NodeIndex, SphinxKey, UnixTime};
pub use node::{MAX_ADDRESS_LEN, MAX_ADDRESSES, Node, Role};
pub use parameters::{MAX_LAYERS, Parameters};
pub use payment::Payment;
pub use phases::Phases;
pub use route::MixRoute;
pub use strata::Strata;
pub use succession::Refusal;

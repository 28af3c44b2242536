//! What can be wrong with a network document, in words that say where and what to do.

use crate::authority::{AuthorityKey, AuthorityKeyError};
use crate::duration::DurationError;
use crate::ids::{EpochNumber, HexError, UnixTime};
use crate::json::MAX_INTEGER;

/// Why a network document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Refused unread.
    #[error("the network document is {found} bytes long, at most {limit} are allowed")]
    TooLong {
        /// Length in bytes.
        found: usize,
        /// [`MAX_DOCUMENT_LEN`](crate::MAX_DOCUMENT_LEN).
        limit: usize,
    },
    /// Not JSON, or JSON that is nested too deep or holds too many values.
    #[error("the network document is not valid JSON: {0}")]
    Json(
        /// With line and column.
        String,
    ),
    /// Signed by somebody, but not by whom the caller trusts.
    #[error(
        "the network document is signed by authority {found}, but authority {expected} is expected: it belongs to \
         another network, or the expected authority is misconfigured"
    )]
    OtherAuthority {
        /// Whom the caller trusts.
        expected: AuthorityKey,
        /// Whom the document names.
        found: AuthorityKey,
    },
    /// The signature is not the authority's over this content.
    #[error(
        "signature: does not match the document: it was changed after it was signed; get it again from where it \
         was published, or have the authority sign it again"
    )]
    Signature,
    /// One place is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// A place in a document and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Invalid {
    /// Such as `network.epochs[0].nodes[3].sphinx_key`.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with one value of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A network with payment has a price class for each link of a route.
    #[error(
        "{found} classes, but a route has {expected} links that are paid for: client to gateway, gateway to layer 1, and so on to the recipient's gateway"
    )]
    Classes {
        /// Layers and two.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Packets of two epochs go over the same links at the same time: links are paid for, or they are not.
    #[error(
        "either this epoch or the one before has this field, and the other does not: packets of all epochs of a document are paid for, or of none"
    )]
    MixedPayment,
    /// A network with payment has an account for every node.
    #[error("missing: packets of this epoch are paid for, so every node needs an account on the chain")]
    NoAccount,
    /// Two nodes with one account could not be told apart on the chain.
    #[error("the account of node {first} too; each node needs one of its own")]
    DuplicateAccount {
        /// Index of the node that has it first.
        first: usize,
    },
    // ---- form
    /// A string where an array belongs, and the like.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// With its article.
        expected: &'static str,
        /// With its article.
        found: &'static str,
    },
    /// A fraction, an exponent, a negative number, or one that does not fit.
    #[error("expected a whole number from 0 to {MAX_INTEGER}, without fraction or exponent")]
    NotWhole,
    /// JSON leaves open which of the two counts, so neither does.
    #[error("this field appears more than once: keep one")]
    Duplicate,
    /// A required field is not there.
    #[error("this field is missing")]
    Missing,
    /// A field that does not exist here, close to one that does.
    #[error("unknown field, did you mean `{0}`?")]
    UnknownNear(&'static str),
    /// A field that does not exist here.
    #[error("unknown field, expected one of {0}")]
    Unknown(String),
    /// Bytes are spelt wrongly.
    #[error(transparent)]
    Hex(#[from] HexError),
    /// The authority's key is no key.
    #[error(transparent)]
    AuthorityKey(#[from] AuthorityKeyError),
    /// A duration is spelt wrongly.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// A number or duration is outside of its range.
    #[error("expected {min} to {max}, found {found}")]
    Range {
        /// Least that is allowed.
        min: String,
        /// Greatest that is allowed.
        max: String,
        /// What is there.
        found: String,
    },
    /// More entries than allowed.
    #[error("expected at most {limit} entries, found {found}")]
    TooMany {
        /// Most that are allowed.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// An empty list.
    #[error("expected at least one entry")]
    Empty,

    // ---- document
    /// Made for another version of this program.
    #[error(
        "format {found} is not supported, this program reads format 1: use the version that made the document"
    )]
    Format {
        /// The document's format.
        found: u64,
    },
    /// The network's name.
    #[error("expected 1 to 64 characters out of letters, digits, '-', '_' and '.', found {found:?}")]
    Name {
        /// Cut to 80 characters.
        found: String,
    },

    // ---- parameters
    /// See [`Parameters::max_delay`](crate::Parameters::max_delay).
    #[error(
        "expected at least four times mean_delay, {least}, found {found}: clamping more than e^-4 (2 %) of all delays \
         distorts the exponential distribution that hides which packet left"
    )]
    MaxDelayShort {
        /// Four times the mean.
        least: String,
        /// What is there.
        found: String,
    },
    /// See [`Parameters::loop_timeout`](crate::Parameters::loop_timeout).
    #[error(
        "expected at least twenty times mean_delay, {least}, found {found}: else loops that are merely delayed count \
         as lost and raise alarms"
    )]
    LoopTimeoutShort {
        /// Twenty times the mean.
        least: String,
        /// What is there.
        found: String,
    },
    /// See [`Parameters::downlink_interval`](crate::Parameters::downlink_interval).
    #[error(
        "expected less than loop_interval, {limit}, found {found}: else a client's own loops fill its mailbox faster \
         than it can empty it"
    )]
    DownlinkSlow {
        /// The loop interval.
        limit: String,
        /// What is there.
        found: String,
    },

    // ---- epochs
    /// Epochs are numbered without gaps, since a frame names an epoch by its parity.
    #[error("expected {expected}, one more than the epoch before, found {found}")]
    EpochNumber {
        /// The number that follows.
        expected: EpochNumber,
        /// What is there.
        found: EpochNumber,
    },
    /// An epoch begins before its predecessor ends.
    #[error("expected {expected}, when the epoch before ends, found {found}: the two overlap")]
    EpochOverlap {
        /// End of the epoch before.
        expected: UnixTime,
        /// What is there.
        found: UnixTime,
    },
    /// An epoch begins after its predecessor ends.
    #[error(
        "expected {expected}, when the epoch before ends, found {found}: nothing would be valid in between"
    )]
    EpochGap {
        /// End of the epoch before.
        expected: UnixTime,
        /// What is there.
        found: UnixTime,
    },
    /// An epoch ends before it begins.
    #[error("expected a time after valid_from, {from}, found {found}")]
    EpochInverted {
        /// Its beginning.
        from: UnixTime,
        /// What is there.
        found: UnixTime,
    },
    /// An epoch in which the keys of the one before cannot be retired layer by layer.
    #[error(
        "expected {least} or later: an epoch lasts at least max_delay for each layer and once more, so that packets \
         of the epoch before can leave"
    )]
    EpochShort {
        /// Earliest end.
        least: UnixTime,
    },

    // ---- nodes
    /// Neither of the two roles.
    #[error("expected \"mix\" or \"gateway\", found {found:?}")]
    Role {
        /// Cut to 40 characters.
        found: String,
    },
    /// A gateway with a layer.
    #[error("a gateway has no layer: remove this field")]
    GatewayLayer,
    /// A mix node with addresses for clients.
    #[error("a mix node serves no clients: remove this field")]
    MixClientAddresses,
    /// A layer that the network does not have.
    #[error("expected a layer from 1 to {layers} (network.parameters.layers), found {found}")]
    Layer {
        /// Layers of the network.
        layers: u8,
        /// What is there.
        found: u64,
    },
    /// The identity is no key.
    #[error("not an ed25519 public key: check that it was copied whole and unchanged")]
    Identity,
    /// Two nodes of an epoch are the same.
    #[error("the same identity as {first}: every node has its own")]
    DuplicateIdentity {
        /// Path of the first.
        first: String,
    },
    /// Two nodes, or one node in two epochs, have the same key.
    #[error(
        "the same key as {first}: every node has its own in every epoch, and a key's replay filter dies with it"
    )]
    DuplicateSphinxKey {
        /// Path of the first.
        first: String,
    },
    /// Not the text of an address.
    #[error(
        "expected a multiaddr, at most 256 printable ASCII characters that begin with '/', like \
         \"/ip4/192.0.2.1/tcp/9000\", found {found:?}"
    )]
    Address {
        /// Cut to 80 characters.
        found: String,
    },
    /// No route could be drawn.
    #[error("no mix node has layer {layer}: every layer needs at least one")]
    EmptyLayer {
        /// Which.
        layer: u8,
    },
    /// No client could be served.
    #[error("no node is a gateway: at least one is needed")]
    NoGateways,
}

/// Why there is no epoch at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// Before the first epoch.
    #[error(
        "the network document is not valid before Unix time {begins}, and it is {now}: check this machine's clock"
    )]
    NotYet {
        /// When the first epoch begins.
        begins: UnixTime,
        /// The time asked about.
        now: UnixTime,
    },
    /// After the last epoch.
    #[error("the network document expired at Unix time {ended}, and it is {now}: get the current one")]
    Expired {
        /// When the last epoch ended.
        ended: UnixTime,
        /// The time asked about.
        now: UnixTime,
    },
}

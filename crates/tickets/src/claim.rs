//! Claims: how the winners of windows are redeemed.
//!
//! `claims`, the argument of `Escrow.redeem(address recipient, bytes claims)`, is a sequence of windows, at least one:
//!
//! ```text
//! window  := issuer 20 | class 4 | window 4 | r 16 | least 2 | batches 1 | batch * batches          batches >= 1
//! batch   := number 1 | count - 1 1 | salt 16 | signature 64 | winners 1 | winner * winners         winners >= 1
//! winner  := k 1 | por 16 | sibling 20 * d                                          from the leaf upwards
//! ```
//!
//! Source: `docs/payment.md`, "Claims". [`verify`] is a model of the contract's checks, for tests against it and to
//! refuse a claim before it costs gas.

use alloy_primitives::{Address, U256};
use alloy_sol_types::SolCall;
use std::collections::BTreeSet;
use thiserror::Error;

use crate::batch::{BatchHeader, Domain, Salt, SignedBatch};
use crate::class::{ClassNumber, PriceClass, UnixSeconds};
use crate::lottery::{Randomness, WindowNumber, wins};
use crate::merkle::{Node, PathError, Root, TicketCount, depth, path, root_of_path};
use crate::por::{Challenge, Opener};
use crate::reader::Reader;
use crate::signature::{CompactSignature, SignatureError};

/// Generated; see [`calldata`](super::calldata).
mod abi {
    alloy_sol_types::sol! {
        function redeem(address recipient, bytes claims);
    }
}

/// Bytes of a window before its batches.
const WINDOW_LEN: usize = 20 + 4 + 4 + 16 + 2 + 1;
/// Bytes of a batch before its winners.
const BATCH_LEN: usize = 1 + 1 + 16 + 64 + 1;
/// Bytes of a winner before its siblings.
const WINNER_LEN: usize = 1 + 16;

/// The winners of one window. Whoever holds it holds the window's `r` and its openers: once it has left the process no
/// batch under this `r` may be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowClaim {
    /// Who pays.
    pub issuer: Address,
    /// What each winner is worth.
    pub class: ClassNumber,
    /// Which window.
    pub window: WindowNumber,
    /// What the window's commitment committed to.
    pub randomness: Randomness,
    /// How many winners' face values must be paid, else the whole call reverts.
    pub least: u16,
    /// Its batches with winners, in order of their numbers.
    pub batches: Vec<BatchClaim>,
}

/// The winners of one batch, and what is needed to compute what its issuer signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchClaim {
    /// The batch's number in the window.
    pub number: u8,
    /// How many tickets it has.
    pub count: TicketCount,
    /// The issuer's salt.
    pub salt: Salt,
    /// The issuer's signature.
    pub signature: CompactSignature,
    /// In order of their places.
    pub winners: Vec<WinnerClaim>,
}

/// A ticket that won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WinnerClaim {
    /// Its place in the batch, from 0.
    pub k: u8,
    /// What opens it.
    pub opener: Opener,
    /// The way to the root, from the leaf upwards: as many as the tree is deep.
    pub siblings: Vec<Node>,
}

impl WindowClaim {
    /// How many tickets it claims.
    #[must_use]
    pub fn winners(&self) -> u32 {
        let winners = self.batches.iter().map(|batch| batch.winners.len()).sum::<usize>();
        u32::try_from(winners).unwrap_or(u32::MAX)
    }
}

impl BatchClaim {
    /// The claim of these winners, each its place and opener, of a batch with these leaves.
    ///
    /// # Errors
    ///
    /// There are not as many leaves as make a tree, or a winner is not among them.
    pub fn of(
        batch: &SignedBatch,
        leaves: &[Challenge],
        winners: impl IntoIterator<Item = (u8, Opener)>,
    ) -> Result<Self, PathError> {
        let winner = |(k, opener)| Ok(WinnerClaim { k, opener, siblings: path(leaves, k)?.to_vec() });
        Ok(Self {
            number: batch.header.number,
            count: batch.header.count,
            salt: batch.header.salt,
            signature: batch.signature,
            winners: winners.into_iter().map(winner).collect::<Result<_, PathError>>()?,
        })
    }
}

/// Why a claim cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A window has no batch or more than 255.
    #[error("a window of a claim has 1 to 255 batches, not {0}")]
    Batches(usize),
    /// A batch has no winner or more than 255.
    #[error("a batch of a claim has 1 to 255 winners, not {0}")]
    Winners(usize),
    /// A winner has more or fewer siblings than the tree of its batch is deep.
    #[error("a winner has {expected} siblings, not {found}")]
    Siblings {
        /// Depth of the tree.
        expected: usize,
        /// Siblings of the winner.
        found: usize,
    },
}

/// Why bytes are no claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside a window.
    #[error("the claim ends within a field, which begins at byte {0}")]
    Truncated(usize),
    /// A window without batches.
    #[error("the window that ends at byte {0} has no batch")]
    NoBatch(usize),
    /// A batch without winners.
    #[error("the batch that ends at byte {0} has no winner")]
    NoWinner(usize),
    /// 64 bytes that are no signature.
    #[error("before byte {offset}: {error}")]
    Signature {
        /// Where the signature ends.
        offset: usize,
        /// What is wrong with it.
        error: SignatureError,
    },
}

/// Why calldata is no call of `redeem`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Another function, or arguments that are not encoded as the ABI says.
    #[error("no call of redeem(address,bytes): {0}")]
    Abi(String),
    /// The second argument is no sequence of windows.
    #[error(transparent)]
    Claims(#[from] DecodeError),
}

/// Bytes that [`encode`] writes.
#[must_use]
pub fn encoded_len(windows: &[WindowClaim]) -> usize {
    let winner = |winner: &WinnerClaim| WINNER_LEN + winner.siblings.len() * Node::LEN;
    let batch = |batch: &BatchClaim| BATCH_LEN + batch.winners.iter().map(winner).sum::<usize>();
    windows.iter().map(|window| WINDOW_LEN + window.batches.iter().map(batch).sum::<usize>()).sum()
}

/// A number that must be 1 to 255.
fn one_byte(number: usize, error: fn(usize) -> EncodeError) -> Result<u8, EncodeError> {
    u8::try_from(number).ok().filter(|number| *number > 0).ok_or(error(number))
}

/// The `claims` bytes of these windows, in order. What they say is not checked: see [`verify`].
///
/// # Errors
///
/// Something does not fit into the format.
pub fn encode(windows: &[WindowClaim]) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(encoded_len(windows));
    for window in windows {
        bytes.extend_from_slice(window.issuer.as_slice());
        bytes.extend_from_slice(&window.class.0.to_be_bytes());
        bytes.extend_from_slice(&window.window.0.to_be_bytes());
        bytes.extend_from_slice(window.randomness.as_bytes());
        bytes.extend_from_slice(&window.least.to_be_bytes());
        bytes.push(one_byte(window.batches.len(), EncodeError::Batches)?);
        for batch in &window.batches {
            bytes.extend_from_slice(&[batch.number, batch.count.less_one()]);
            bytes.extend_from_slice(batch.salt.as_bytes());
            bytes.extend_from_slice(batch.signature.as_bytes());
            bytes.push(one_byte(batch.winners.len(), EncodeError::Winners)?);
            for winner in &batch.winners {
                let (expected, found) = (depth(batch.count), winner.siblings.len());
                if found != expected {
                    return Err(EncodeError::Siblings { expected, found });
                }
                bytes.push(winner.k);
                bytes.extend_from_slice(winner.opener.as_bytes());
                winner.siblings.iter().for_each(|sibling| bytes.extend_from_slice(sibling.as_bytes()));
            }
        }
    }
    Ok(bytes)
}

/// Reads `claims` bytes, for tests and tools. Whether they pay anything is for [`verify`].
///
/// # Errors
///
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Vec<WindowClaim>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut windows = Vec::new();
    while !reader.is_empty() {
        windows.push(decode_window(&mut reader)?);
    }
    Ok(windows)
}

fn decode_window(reader: &mut Reader<'_>) -> Result<WindowClaim, DecodeError> {
    let mut window = WindowClaim {
        issuer: reader.array().ok_or(DecodeError::Truncated(reader.offset()))?.into(),
        class: ClassNumber(reader.u32().ok_or(DecodeError::Truncated(reader.offset()))?),
        window: WindowNumber(reader.u32().ok_or(DecodeError::Truncated(reader.offset()))?),
        randomness: Randomness::from_bytes(reader.array().ok_or(DecodeError::Truncated(reader.offset()))?),
        least: reader.u16().ok_or(DecodeError::Truncated(reader.offset()))?,
        batches: Vec::new(),
    };
    let batches = reader.u8().ok_or(DecodeError::Truncated(reader.offset()))?;
    if batches == 0 {
        return Err(DecodeError::NoBatch(reader.offset()));
    }
    for _ in 0..batches {
        window.batches.push(decode_batch(reader)?);
    }
    Ok(window)
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<BatchClaim, DecodeError> {
    let number = reader.u8().ok_or(DecodeError::Truncated(reader.offset()))?;
    let count = TicketCount::from_less_one(reader.u8().ok_or(DecodeError::Truncated(reader.offset()))?);
    let salt = Salt::from_bytes(reader.array().ok_or(DecodeError::Truncated(reader.offset()))?);
    let signature = reader.array().ok_or(DecodeError::Truncated(reader.offset()))?;
    let signature = CompactSignature::from_bytes(signature)
        .map_err(|error| DecodeError::Signature { offset: reader.offset(), error })?;
    let winners = reader.u8().ok_or(DecodeError::Truncated(reader.offset()))?;
    if winners == 0 {
        return Err(DecodeError::NoWinner(reader.offset()));
    }
    let winners = (0..winners).map(|_| decode_winner(reader, count)).collect::<Result<_, _>>()?;
    Ok(BatchClaim { number, count, salt, signature, winners })
}

fn decode_winner(reader: &mut Reader<'_>, count: TicketCount) -> Result<WinnerClaim, DecodeError> {
    let k = reader.u8().ok_or(DecodeError::Truncated(reader.offset()))?;
    let opener = Opener::from_bytes(reader.array().ok_or(DecodeError::Truncated(reader.offset()))?);
    let mut siblings = Vec::with_capacity(depth(count));
    for _ in 0..depth(count) {
        let sibling = reader.array().ok_or(DecodeError::Truncated(reader.offset()))?;
        siblings.push(Node::from_bytes(sibling));
    }
    Ok(WinnerClaim { k, opener, siblings })
}

/// What is sent to the escrow: the ABI encoding of `redeem(recipient, claims)`.
///
/// # Errors
///
/// See [`encode`].
pub fn calldata(recipient: Address, windows: &[WindowClaim]) -> Result<Vec<u8>, EncodeError> {
    Ok(abi::redeemCall { recipient, claims: encode(windows)?.into() }.abi_encode())
}

/// Recipient and windows of a call, for tests and tools.
///
/// # Errors
///
/// See [`CallError`].
pub fn decode_calldata(bytes: &[u8]) -> Result<(Address, Vec<WindowClaim>), CallError> {
    let call = abi::redeemCall::abi_decode(bytes).map_err(|error| CallError::Abi(error.to_string()))?;
    Ok((call.recipient, decode(&call.claims)?))
}

/// The tokens of calldata by which EIP-7623 counts: 1 for a zero byte, 4 for any other. A transaction costs at least
/// 21 000 gas and 10 more per token.
#[must_use]
pub fn calldata_tokens(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| if *byte == 0 { 1 } else { 4 }).sum()
}

/// What the escrow knows when a claim comes to it.
pub trait EscrowView {
    /// The class of this number, if it is registered. The contract registers none whose face value or win probability is 0.
    fn class(&self, number: ClassNumber) -> Option<PriceClass>;

    /// Whether batches that `signer` signed under this class bind `issuer`.
    fn is_signer(&self, issuer: Address, signer: Address, class: &PriceClass) -> bool;

    /// Whether this window was claimed before.
    fn is_claimed(&self, issuer: Address, recipient: Address, window: WindowNumber) -> bool;
}

/// What a window of a claim is worth, if the issuer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowWinners {
    /// Who pays.
    pub issuer: Address,
    /// Which window.
    pub window: WindowNumber,
    /// How many tickets won.
    pub winners: u32,
    /// Their face values together, in the smallest unit of the token.
    pub value: U256,
    /// How many face values must be paid, else the whole call reverts.
    pub least: u16,
}

/// Why the escrow reverts a claim, whatever the issuers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Nobody registered such a class.
    #[error("there is no class {}", .0.0)]
    NoClass(ClassNumber),
    /// It is earlier than the window's class is valid.
    #[error("class {} is not valid yet", .0.0)]
    Early(ClassNumber),
    /// It is later than the expiry of the window's class. At the expiry itself a claim is valid.
    #[error("class {} has expired", .0.0)]
    Expired(ClassNumber),
    /// Each window is paid once.
    #[error("window {} was claimed before", .0.0)]
    Claimed(WindowNumber),
    /// A claim without windows, a window without batches, or a batch without winners.
    #[error("the claim, a window or a batch of it is empty")]
    Empty,
    /// Numbers of batches must grow, so that no ticket counts twice.
    #[error("batch {0} comes after one with the same number or a higher one")]
    BatchOrder(u8),
    /// Places of tickets must grow, so that no ticket counts twice.
    #[error("ticket {k} of batch {number} comes after one of the same place or a higher one")]
    TicketOrder {
        /// Number of the batch.
        number: u8,
        /// Place in the batch.
        k: u8,
    },
    /// A ticket is not in its batch, or its path has another length.
    #[error("batch {number}: {error}")]
    Path {
        /// Number of the batch.
        number: u8,
        /// What is wrong.
        error: PathError,
    },
    /// The winners of a batch have different roots.
    #[error("ticket {k} of batch {number} is not in the same tree as the first")]
    Root {
        /// Number of the batch.
        number: u8,
        /// Place in the batch.
        k: u8,
    },
    /// The issuer did not sign such a batch.
    #[error("batch {0} is not signed by its issuer")]
    Signer(u8),
    /// A ticket that did not win.
    #[error("ticket {k} of batch {number} does not win")]
    Lost {
        /// Number of the batch.
        number: u8,
        /// Place in the batch.
        k: u8,
    },
    /// More must be paid than has won.
    #[error("{least} winners must be paid, but there are {winners}")]
    Least {
        /// What the claim demands.
        least: u16,
        /// Tickets that won.
        winners: u32,
    },
}

/// Checks a call as the escrow does: who may redeem and how much there is to pay from is not known here. Returns what
/// each window is worth, in the order of the claim.
///
/// # Errors
///
/// The first thing for which the escrow reverts the whole call.
pub fn verify(
    domain: &Domain,
    recipient: Address,
    windows: &[WindowClaim],
    now: UnixSeconds,
    view: &impl EscrowView,
) -> Result<Vec<WindowWinners>, VerifyError> {
    if windows.is_empty() {
        return Err(VerifyError::Empty);
    }
    let mut claimed = BTreeSet::new();
    windows
        .iter()
        .map(|window| {
            let class = view.class(window.class).ok_or(VerifyError::NoClass(window.class))?;
            if now < class.valid_from {
                return Err(VerifyError::Early(window.class));
            }
            if now > class.expiry {
                return Err(VerifyError::Expired(window.class));
            }
            let before = view.is_claimed(window.issuer, recipient, window.window);
            if before || !claimed.insert((window.issuer, window.window)) {
                return Err(VerifyError::Claimed(window.window));
            }
            let winners = verify_window(domain, recipient, window, &class, view)?;
            if u32::from(window.least) > winners {
                return Err(VerifyError::Least { least: window.least, winners });
            }
            let value = U256::from(class.face_value) * U256::from(winners);
            Ok(WindowWinners {
                issuer: window.issuer,
                window: window.window,
                winners,
                value,
                least: window.least,
            })
        })
        .collect()
}

fn verify_window(
    domain: &Domain,
    recipient: Address,
    window: &WindowClaim,
    class: &PriceClass,
    view: &impl EscrowView,
) -> Result<u32, VerifyError> {
    if window.batches.is_empty() {
        return Err(VerifyError::Empty);
    }
    let mut winners = 0;
    let mut last = None;
    for batch in &window.batches {
        if last.replace(batch.number).is_some_and(|last| last >= batch.number) {
            return Err(VerifyError::BatchOrder(batch.number));
        }
        winners += verify_batch(domain, recipient, window, batch, class, view)?;
    }
    Ok(winners)
}

fn verify_batch(
    domain: &Domain,
    recipient: Address,
    window: &WindowClaim,
    batch: &BatchClaim,
    class: &PriceClass,
    view: &impl EscrowView,
) -> Result<u32, VerifyError> {
    let number = batch.number;
    let root = verify_tree(batch)?;
    let header = BatchHeader {
        issuer: window.issuer,
        recipient,
        class: window.class,
        window: window.window,
        number,
        count: batch.count,
        commitment: window.randomness.commitment(),
        root,
        salt: batch.salt,
    };
    let digest = header.digest(domain);
    let signer = batch.signature.recover(&digest).map_err(|_| VerifyError::Signer(number))?;
    if !view.is_signer(window.issuer, signer, class) {
        return Err(VerifyError::Signer(number));
    }
    let mut winners = 0;
    for winner in &batch.winners {
        if !wins(&digest, winner.k, &winner.opener, &window.randomness, class.win_probability) {
            return Err(VerifyError::Lost { number, k: winner.k });
        }
        winners += 1;
    }
    Ok(winners)
}

/// The root that the paths of all winners lead to.
fn verify_tree(batch: &BatchClaim) -> Result<Root, VerifyError> {
    let number = batch.number;
    let mut tree: Option<(u8, Root)> = None;
    for winner in &batch.winners {
        let k = winner.k;
        let root = root_of_path(&winner.opener, k, &winner.siblings, batch.count)
            .map_err(|error| VerifyError::Path { number, error })?;
        if let Some((last, first)) = tree {
            if last >= k {
                return Err(VerifyError::TicketOrder { number, k });
            }
            if first != root {
                return Err(VerifyError::Root { number, k });
            }
        }
        tree = Some((k, root));
    }
    tree.map(|(_, root)| root).ok_or(VerifyError::Empty)
}

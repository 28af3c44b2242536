//! What we need of a ledger, whatever it is. [`Evm`](crate::Evm) is one; another kind plugs in here.
//!
//! [`Ledger`] is read by the [watcher](crate::watcher), [`Till`] is where the [redeemer](crate::redeemer) is paid.

use core::future::Future;

use alloy_primitives::{Address, B256, Bytes};
use thiserror::Error;
use tombola_tickets::{ClassNumber, PriceClass, UnixSeconds, WindowNumber};

use crate::revert::Revert;

/// A block, as far as it matters who follows whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// That of the one before.
    pub parent: B256,
    /// When it was made.
    pub time: UnixSeconds,
}

/// Why the ledger does not answer, by whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// The server cannot be reached, does not answer in time, or has too much to do. Worth another try.
    #[error("the chain's server {server} does not answer: {what}; check its address and the network")]
    Unavailable {
        /// Its host; the rest of the address may be a secret.
        server: String,
        /// What happened.
        what: String,
    },
    /// A range of blocks has more than is answered at once.
    #[error("the chain's server answers no range as long as this: {0}")]
    TooMuch(String),
    /// A contract reverted.
    #[error("the contract refuses: {0}")]
    Reverted(Revert),
    /// The server does not want the transaction.
    #[error("the chain's server refuses the transaction: {message}")]
    Transaction {
        /// Why, as far as it is told apart.
        reason: Refusal,
        /// In its words.
        message: String,
    },
    /// Another error of the server, for instance a method that it does not have.
    #[error(
        "the chain's server refuses {method} ({code}): {message}; it must be a full node of an EVM chain"
    )]
    Refused {
        /// What was asked.
        method: &'static str,
        /// Its code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// A contract that is called is not there.
    #[error(
        "there is no contract {0} on the chain that the server shows; it may be another chain, or one that has lost blocks"
    )]
    NoContract(Address),
    /// The answer makes no sense.
    #[error(
        "the answer of the chain's server to {method} makes no sense: {what}; its address must be that of a JSON-RPC"
    )]
    Answer {
        /// What was asked.
        method: &'static str,
        /// What is wrong.
        what: String,
    },
}

impl LedgerError {
    /// Whether nothing is known to be wrong but the connection.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Why a transaction is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This very transaction waits already: as good as taken.
    Known,
    /// Another one with this number was executed.
    NonceTooLow,
    /// One with a smaller number is missing.
    NonceTooHigh,
    /// Another one with this number waits, and pays nearly as much.
    Underpriced,
    /// It pays less than the base fee, or than the server wants.
    FeeTooLow,
    /// The account cannot pay for it.
    Funds,
    /// It asks for more gas than one may, or has more bytes.
    TooLarge,
    /// Anything else.
    Other,
}

/// Something that happened in a contract, to an account that we follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A window was claimed.
    Redeemed {
        /// Who paid.
        issuer: Address,
        /// Who was paid.
        recipient: Address,
        /// Which window.
        window: WindowNumber,
        /// From all sources together, in the smallest unit of the token.
        paid: u128,
    },
    /// A deposit did not suffice for a window. Comes before its [`Event::Redeemed`].
    Shortfall {
        /// Who paid.
        issuer: Address,
        /// Who was paid.
        recipient: Address,
        /// Which window.
        window: WindowNumber,
        /// What the reserve paid.
        from_reserve: u128,
        /// What the stake paid.
        from_stake: u128,
    },
    /// A key signs for an issuer, has another limit, or was revoked.
    Signer {
        /// For whom.
        issuer: Address,
        /// The key.
        signer: Address,
    },
    /// Something else, by which deposits, reserves or stakes have changed.
    Other,
}

/// An event and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Number of the block.
    pub block: u64,
    /// Its place among the block's events.
    pub index: u64,
    /// What happened.
    pub event: Event,
}

/// Whether and how far a key signs for an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerState {
    /// Batches are void if their class expires later; `None`: not revoked.
    pub last_expiry: Option<UnixSeconds>,
    /// What the deposit pays for its batches of an epoch's classes, at most; `None`: no limit.
    pub cap: Option<u128>,
}

impl SignerState {
    /// Whether a batch of this class that the key signs binds the issuer.
    #[must_use]
    pub fn signs(&self, class: &PriceClass) -> bool {
        self.last_expiry.is_none_or(|last| class.expiry <= last)
    }
}

/// The accounts whose events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Our own.
    pub own: Address,
    /// Those that pay us.
    pub issuers: Vec<Address>,
}

/// Reading the chain. Numbers of blocks say after which block something is read.
pub trait Ledger: Send + Sync {
    /// Whether it is the chain, and the contract, that is expected.
    fn check(&self) -> impl Future<Output = Result<(), CheckError>> + Send;

    /// The last block.
    fn head(&self) -> impl Future<Output = Result<Block, LedgerError>> + Send;

    /// The block of a number, if there is one.
    fn block(&self, number: u64) -> impl Future<Output = Result<Option<Block>, LedgerError>> + Send;

    /// What happened to these accounts in the blocks from `from` to `to`, both included.
    fn events(
        &self,
        accounts: &Accounts,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Vec<Logged>, LedgerError>> + Send;

    /// The keys that were added for an issuer in these blocks.
    fn signers_added(
        &self,
        issuer: Address,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Vec<Address>, LedgerError>> + Send;

    /// What an issuer has deposited and not announced to withdraw.
    fn deposit(&self, issuer: Address, at: u64) -> impl Future<Output = Result<u128, LedgerError>> + Send;

    /// What a recipient may rely on, whatever others claim: reserve that is not under notice, and share of the stake.
    fn guarantee(
        &self,
        issuer: Address,
        recipient: Address,
        at: u64,
    ) -> impl Future<Output = Result<u128, LedgerError>> + Send;

    /// Whether and how far a key signs for an issuer; `None`: not at all.
    fn signer(
        &self,
        issuer: Address,
        signer: Address,
        at: u64,
    ) -> impl Future<Output = Result<Option<SignerState>, LedgerError>> + Send;

    /// A price class, if there is one.
    fn class(
        &self,
        class: ClassNumber,
        at: u64,
    ) -> impl Future<Output = Result<Option<PriceClass>, LedgerError>> + Send;
}

/// What gas costs now, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// What the next block takes for each gas.
    pub base: u128,
    /// What is usual beyond it.
    pub tip: u128,
}

/// A transaction that claims windows, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its number among those of the account.
    pub nonce: u64,
    /// What it may use.
    pub gas: u64,
    /// What it pays for each gas, at most, in wei.
    pub max_fee: u128,
    /// Of that, what is beyond the base fee, at most.
    pub max_tip: u128,
    /// The call.
    pub data: Bytes,
}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Number of its block.
    pub block: u64,
    /// Whether the contract accepted it.
    pub success: bool,
}

/// Where claims are paid, with the key of the redeemer.
pub trait Till: Send + Sync {
    /// The gas that a call needs, if it would be accepted now.
    fn estimate(&self, data: &Bytes) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// What gas costs.
    fn fees(&self) -> impl Future<Output = Result<Fees, LedgerError>> + Send;

    /// The number of the next transaction, those that wait left aside.
    fn nonce(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The hash of a transaction; signing it again gives the same.
    fn hash(&self, payment: &Payment) -> B256;

    /// Sends a transaction.
    fn send(&self, payment: &Payment) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Where a transaction is, if it was executed.
    fn executed(&self, hash: B256) -> impl Future<Output = Result<Option<Executed>, LedgerError>> + Send;

    /// The number of the last block.
    fn height(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The time of a block, if there is one.
    fn time(&self, number: u64) -> impl Future<Output = Result<Option<UnixSeconds>, LedgerError>> + Send;

    /// In which block a window was claimed, and what was paid for it, if it was in these blocks.
    fn payment_of(
        &self,
        issuer: Address,
        recipient: Address,
        window: WindowNumber,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Option<(u64, u128)>, LedgerError>> + Send;
}

/// Why a chain is not the one that is expected. All but the first are for the operator to repair.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It does not say.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Another chain.
    #[error("the chain's server is of the chain {found}, but {expected} is configured: one of both is wrong")]
    Chain {
        /// Its id.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// No contract there.
    #[error("there is no contract at {0}: the configured escrow is wrong, or was deployed on another chain")]
    NoEscrow(Address),
    /// Another contract, or another version.
    #[error("the contract at {0} is no escrow of this version of Tombola")]
    OtherContract(Address),
}

#![doc = include_str!("../README.md")]

pub mod artifacts;
pub mod bindings;
pub mod devchain;
mod evm;
pub mod keystore;
mod ledger;
pub mod ops;
pub mod redeemer;
mod revert;
mod turn;
mod units;
mod wallet;
pub mod watcher;

pub use evm::{Evm, EvmConfig, EvmTill, UrlError};
pub use ledger::{
    Accounts, Block, CheckError, Event, Executed, Fees, Ledger, LedgerError, Logged, Payment, Refusal,
    SignerState, Till,
};
pub use revert::{Revert, claimed_window};
pub use turn::{Held, Turn};
pub use units::{AmountError, Units};
pub use wallet::{NoKey, SignedTransaction, Wallet};

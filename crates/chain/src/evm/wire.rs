//! What JSON-RPC answers, as far as it is read.

use alloy_primitives::{Address, B256, Bytes, U64, U128};
use serde::Deserialize;
use serde_json::{Value, json};
use tombola_tickets::UnixSeconds;

use crate::ledger::Block;

/// A number as JSON-RPC writes it.
pub(super) fn hex(number: u64) -> Value {
    json!(U64::from(number))
}

/// Times after 2106 are the end of time.
pub(super) fn seconds(time: u64) -> UnixSeconds {
    UnixSeconds(u32::try_from(time).unwrap_or(u32::MAX))
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireBlock {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
}

impl From<WireBlock> for Block {
    fn from(block: WireBlock) -> Self {
        Self {
            number: block.number.to(),
            hash: block.hash,
            parent: block.parent_hash,
            time: seconds(block.timestamp.to()),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireLog {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) block_number: U64,
    pub(crate) log_index: U64,
    #[serde(default)]
    pub(crate) removed: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) status: U64,
    pub(crate) block_number: U64,
    pub(crate) gas_used: U64,
    pub(crate) contract_address: Option<Address>,
    pub(crate) logs: Vec<ReceiptLog>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReceiptLog {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FeeHistory {
    #[serde(default)]
    pub(super) base_fee_per_gas: Vec<U128>,
}

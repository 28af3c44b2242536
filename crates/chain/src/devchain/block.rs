//! Blocks of at most one transaction, and their headers.

use alloy_consensus::constants::EMPTY_WITHDRAWALS;
use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, TxEnvelope, TxType,
};
use alloy_eips::eip1559::BaseFeeParams;
use alloy_primitives::{Address, B256, Bloom, Log, keccak256, logs_bloom};

use super::execute::randomness;

/// Gas limit of a block.
const GAS_LIMIT: u64 = 30_000_000;
/// Base fee of the first block: 1 gwei.
const FIRST_BASE_FEE: u64 = 1_000_000_000;

/// A transaction and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Mined {
    pub(super) envelope: TxEnvelope,
    pub(super) from: Address,
    pub(super) success: bool,
    pub(super) gas_used: u64,
    /// What was paid for each gas.
    pub(super) price: u128,
    pub(super) created: Option<Address>,
    pub(super) logs: Vec<Log>,
}

impl Mined {
    pub(super) fn bloom(&self) -> Bloom {
        logs_bloom(&self.logs)
    }

    fn receipt(&self) -> ReceiptEnvelope {
        let receipt = Receipt {
            status: self.success.into(),
            cumulative_gas_used: self.gas_used,
            logs: self.logs.clone(),
        };
        let receipt = ReceiptWithBloom { receipt, logs_bloom: self.bloom() };
        match self.envelope.tx_type() {
            TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
            TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
            TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
            TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
            TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
        }
    }
}

/// A block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) header: Header,
    pub(super) hash: B256,
    pub(super) transaction: Option<Mined>,
}

/// The first block. It differs with the accounts that it endows.
pub(super) fn genesis(timestamp: u64, chain_id: u64, accounts: &[Address]) -> Block {
    let mut seed = chain_id.to_be_bytes().to_vec();
    accounts.iter().for_each(|account| seed.extend_from_slice(account.as_slice()));
    let header =
        Header { timestamp, state_root: keccak256(seed), base_fee_per_gas: Some(FIRST_BASE_FEE), ..empty() };
    Block { hash: header.hash_slow(), header, transaction: None }
}

fn empty() -> Header {
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        transactions_root: calculate_transaction_root::<TxEnvelope>(&[]),
        receipts_root: calculate_receipt_root::<ReceiptEnvelope>(&[]),
        gas_limit: GAS_LIMIT,
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(alloy_eips::eip7685::EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// What the next block says before anything is executed.
pub(super) fn next(parent: &Block, timestamp: u64) -> Header {
    Header {
        parent_hash: parent.hash,
        number: parent.header.number + 1,
        timestamp,
        base_fee_per_gas: parent.header.next_block_base_fee(BaseFeeParams::ethereum()),
        mix_hash: randomness(&parent.hash),
        ..empty()
    }
}

/// The block, when its changes are known by their hash. The field for the root of the state is the hash of the one before
/// and of the changes: it stands for the state, but nothing can be proven with it.
pub(super) fn seal(mut header: Header, parent: &Block, changes: B256, transaction: Option<Mined>) -> Block {
    header.state_root = keccak256([parent.header.state_root, changes].concat());
    if let Some(mined) = &transaction {
        header.gas_used = mined.gas_used;
        header.logs_bloom = mined.bloom();
        header.transactions_root = calculate_transaction_root(core::slice::from_ref(&mined.envelope));
        header.receipts_root = calculate_receipt_root(&[mined.receipt()]);
    }
    Block { hash: header.hash_slow(), header, transaction }
}

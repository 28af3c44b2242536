//! Blocks, transactions, receipts and logs, as JSON-RPC shows them.

use alloy_consensus::Transaction;
use alloy_primitives::{Log, U64, U128};
use serde_json::{Value, json};

use super::block::{Block, Mined};

fn hex(number: u64) -> Value {
    json!(U64::from(number))
}

/// A block, with the whole transaction or with its hash only.
pub(super) fn block(block: &Block, whole: bool) -> Value {
    let header = &block.header;
    let transactions: Vec<Value> = block
        .transaction
        .iter()
        .map(|mined| if whole { transaction(block, mined) } else { json!(mined.envelope.tx_hash()) })
        .collect();
    json!({
        "hash": block.hash,
        "parentHash": header.parent_hash,
        "sha3Uncles": header.ommers_hash,
        "miner": header.beneficiary,
        "stateRoot": header.state_root,
        "transactionsRoot": header.transactions_root,
        "receiptsRoot": header.receipts_root,
        "logsBloom": header.logs_bloom,
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "number": hex(header.number),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": header.extra_data,
        "mixHash": header.mix_hash,
        "nonce": header.nonce,
        "baseFeePerGas": hex(header.base_fee_per_gas.unwrap_or_default()),
        "withdrawalsRoot": header.withdrawals_root,
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": header.parent_beacon_block_root,
        "requestsHash": header.requests_hash,
        "size": hex(alloy_rlp::Encodable::length(header) as u64),
        "uncles": [],
        "withdrawals": [],
        "transactions": transactions,
    })
}

/// A transaction in its block.
pub(super) fn transaction(block: &Block, mined: &Mined) -> Value {
    let envelope = &mined.envelope;
    let signature = envelope.signature();
    let mut object = json!({
        "type": hex(envelope.tx_type() as u64),
        "hash": envelope.tx_hash(),
        "nonce": hex(envelope.nonce()),
        "blockHash": block.hash,
        "blockNumber": hex(block.header.number),
        "transactionIndex": "0x0",
        "from": mined.from,
        "to": envelope.to(),
        "value": envelope.value(),
        "gas": hex(envelope.gas_limit()),
        "gasPrice": U128::from(mined.price),
        "input": envelope.input(),
        "r": signature.r(),
        "s": signature.s(),
    });
    let parity = u64::from(signature.v());
    if let Some(id) = envelope.chain_id() {
        object["chainId"] = hex(id);
    }
    if envelope.is_legacy() {
        object["v"] = hex(envelope.chain_id().map_or(27, |id| 35 + 2 * id) + parity);
    } else {
        object["v"] = hex(parity);
        object["yParity"] = hex(parity);
        object["accessList"] = json!(
            envelope
                .access_list()
                .map(|list| list
                    .0
                    .iter()
                    .map(|item| json!({
                        "address": item.address,
                        "storageKeys": item.storage_keys,
                    }))
                    .collect::<Vec<_>>())
                .unwrap_or_default()
        );
    }
    if let Some(tip) = envelope.max_priority_fee_per_gas() {
        object["maxFeePerGas"] = json!(U128::from(envelope.max_fee_per_gas()));
        object["maxPriorityFeePerGas"] = json!(U128::from(tip));
    }
    object
}

/// What came of a transaction.
pub(super) fn receipt(block: &Block, mined: &Mined) -> Value {
    let logs: Vec<Value> =
        mined.logs.iter().enumerate().map(|(at, one)| log(block, mined, at, one)).collect();
    json!({
        "type": hex(mined.envelope.tx_type() as u64),
        "status": hex(mined.success.into()),
        "transactionHash": mined.envelope.tx_hash(),
        "transactionIndex": "0x0",
        "blockHash": block.hash,
        "blockNumber": hex(block.header.number),
        "from": mined.from,
        "to": mined.envelope.to(),
        "cumulativeGasUsed": hex(mined.gas_used),
        "gasUsed": hex(mined.gas_used),
        "effectiveGasPrice": U128::from(mined.price),
        "contractAddress": mined.created,
        "logs": logs,
        "logsBloom": mined.bloom(),
    })
}

/// One log.
pub(super) fn log(block: &Block, mined: &Mined, at: usize, log: &Log) -> Value {
    json!({
        "address": log.address,
        "topics": log.topics(),
        "data": log.data.data,
        "blockHash": block.hash,
        "blockNumber": hex(block.header.number),
        "blockTimestamp": hex(block.header.timestamp),
        "transactionHash": mined.envelope.tx_hash(),
        "transactionIndex": "0x0",
        "logIndex": hex(at as u64),
        "removed": false,
    })
}

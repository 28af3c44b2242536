//! Requests and their answers.

use alloy_primitives::{Address, B256, Bytes, U64, U128, U256};
use serde_json::{Value, json};

use super::chain::{Chain, TIP};
use super::error::RpcError;
use super::json;
use super::params::{BlockId, CallRequest, Filter, Number, Params};

/// Requests in one batch, at most.
const MOST_REQUESTS: usize = 1000;
/// Logs in one answer, at most.
const MOST_LOGS: usize = 10_000;
/// Blocks in one history of fees, at most.
const MOST_HISTORY: u64 = 1024;

/// Answers one request or a batch; nothing if all were notifications. Never panics, whatever the bytes are.
pub(super) fn answer(chain: &mut Chain, body: &[u8], now: u64) -> Option<Value> {
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Some(failure(Value::Null, &RpcError::Parse(error.to_string()))),
    };
    let Value::Array(batch) = request else { return one(chain, request, now) };
    if batch.is_empty() || batch.len() > MOST_REQUESTS {
        return Some(failure(Value::Null, &RpcError::Request("a batch has 1 to 1000 requests")));
    }
    let answers: Vec<Value> = batch.into_iter().filter_map(|request| one(chain, request, now)).collect();
    (!answers.is_empty()).then_some(Value::Array(answers))
}

/// The answer to a body that was not read to its end.
pub(super) fn too_long() -> Value {
    failure(Value::Null, &RpcError::Request("the request is too long"))
}

fn failure(id: Value, error: &RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() })
}

fn one(chain: &mut Chain, mut request: Value, now: u64) -> Option<Value> {
    let Some(fields) = request.as_object_mut() else {
        return Some(failure(Value::Null, &RpcError::Request("a request is an object")));
    };
    let id = match fields.remove("id") {
        // A notification is carried out and not answered.
        None => None,
        Some(id @ (Value::Null | Value::String(_) | Value::Number(_))) => Some(id),
        Some(_) => return Some(failure(Value::Null, &RpcError::Request("an id is a string or a number"))),
    };
    let params = fields.remove("params").unwrap_or_default();
    let result = match fields.get("method").and_then(Value::as_str) {
        Some(method) => Params::new(params).and_then(|params| call(chain, method, params, now)),
        None => Err(RpcError::Request("a request has a method")),
    };
    let id = id?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => failure(id, &error),
    })
}

fn hex(number: u64) -> Value {
    json!(U64::from(number))
}

fn call(chain: &mut Chain, method: &str, mut params: Params, now: u64) -> Result<Value, RpcError> {
    let id = chain.genesis().chain_id;
    Ok(match method {
        "web3_clientVersion" => json!(concat!("tombola-devchain/", env!("CARGO_PKG_VERSION"))),
        "net_version" => json!(id.to_string()),
        "net_listening" => json!(true),
        "eth_chainId" => hex(id),
        "eth_syncing" => json!(false),
        "eth_accounts" => json!(chain.accounts()),
        "eth_blockNumber" => hex(chain.number()),
        "eth_gasPrice" => json!(U128::from(u128::from(base_fee(chain, now)) + TIP)),
        "eth_maxPriorityFeePerGas" => json!(U128::from(TIP)),
        "eth_feeHistory" => fee_history(chain, &mut params, now)?,
        "eth_getBlockByNumber" => block_by_number(chain, &mut params)?,
        "eth_getBlockByHash" => {
            let (hash, whole): (B256, Option<bool>) = (params.next()?, params.optional()?);
            let block = chain.number_of(&hash).and_then(|number| chain.block(number));
            block.map_or(Value::Null, |block| json::block(block, whole.unwrap_or_default()))
        }
        "eth_getBalance" | "eth_getTransactionCount" | "eth_getCode" => {
            let (address, block): (Address, _) = (params.next()?, params.optional()?);
            let view = chain.view(BlockId::existing(block, chain)?)?;
            match method {
                "eth_getBalance" => json!(view.balance(address)),
                "eth_getTransactionCount" => hex(view.nonce(address)),
                _ => json!(view.code(address).original_bytes()),
            }
        }
        "eth_getStorageAt" => {
            let (address, slot, block): (Address, U256, _) =
                (params.next()?, params.next()?, params.optional()?);
            let view = chain.view(BlockId::existing(block, chain)?)?;
            json!(B256::from(view.slot(address, slot)))
        }
        "eth_call" => {
            let (request, block): (CallRequest, _) = (params.next()?, params.optional()?);
            json!(chain.call(&request.call(), BlockId::existing(block, chain)?)?)
        }
        "eth_estimateGas" => {
            let request: CallRequest = params.next()?;
            hex(chain.estimate(&request.call(), now)?)
        }
        "eth_sendRawTransaction" => {
            let raw: Bytes = params.next()?;
            json!(chain.submit(&raw, now)?)
        }
        "eth_getTransactionByHash" => {
            let hash: B256 = params.next()?;
            chain.find(&hash).map_or(Value::Null, |(block, mined)| json::transaction(block, mined))
        }
        "eth_getTransactionReceipt" => {
            let hash: B256 = params.next()?;
            chain.find(&hash).map_or(Value::Null, |(block, mined)| json::receipt(block, mined))
        }
        "eth_getLogs" => logs(chain, &params.next()?)?,
        "evm_mine" => {
            chain.mine(now);
            json!("0x0")
        }
        "evm_increaseTime" => {
            let seconds: Number = params.next()?;
            json!(chain.increase_time(seconds.get()))
        }
        "evm_setNextBlockTimestamp" => {
            let time: Number = params.next()?;
            chain.set_next_time(time.get())?;
            Value::Null
        }
        other => return Err(RpcError::Method(other.chars().take(64).collect())),
    })
}

fn base_fee(chain: &Chain, now: u64) -> u64 {
    chain.next_header(now).base_fee_per_gas.unwrap_or_default()
}

fn block_by_number(chain: &Chain, params: &mut Params) -> Result<Value, RpcError> {
    let (block, whole): (BlockId, Option<bool>) = (params.next()?, params.optional()?);
    let block = chain.block(block.number(chain)?);
    Ok(block.map_or(Value::Null, |block| json::block(block, whole.unwrap_or_default())))
}

fn logs(chain: &Chain, filter: &Filter) -> Result<Value, RpcError> {
    let mut found = Vec::new();
    for number in filter.range(chain)? {
        let Some(block) = chain.block(number) else { break };
        let Some(mined) = &block.transaction else { continue };
        for (at, log) in mined.logs.iter().enumerate().filter(|(_, log)| filter.admits(log)) {
            if found.len() == MOST_LOGS {
                return Err(RpcError::TooMuch(format!("query returned more than {MOST_LOGS} results")));
            }
            found.push(json::log(block, mined, at, log));
        }
    }
    Ok(Value::Array(found))
}

fn fee_history(chain: &Chain, params: &mut Params, now: u64) -> Result<Value, RpcError> {
    let (count, newest): (Number, BlockId) = (params.next()?, params.next()?);
    let percentiles: Option<Vec<f64>> = params.optional()?;
    let newest = BlockId::existing(Some(newest), chain)?;
    let count = count.get().clamp(1, MOST_HISTORY).min(newest + 1);
    let blocks: Vec<_> = (newest + 1 - count..=newest).filter_map(|number| chain.block(number)).collect();
    let fee = |header: &alloy_consensus::Header| hex(header.base_fee_per_gas.unwrap_or_default());
    let mut fees: Vec<Value> = blocks.iter().map(|block| fee(&block.header)).collect();
    fees.push(chain.block(newest + 1).map_or_else(|| hex(base_fee(chain, now)), |next| fee(&next.header)));
    #[expect(clippy::cast_precision_loss, reason = "gas fits")]
    let ratio = |header: &alloy_consensus::Header| header.gas_used as f64 / header.gas_limit as f64;
    let mut history = json!({
        "oldestBlock": hex(newest + 1 - count),
        "baseFeePerGas": fees,
        "gasUsedRatio": blocks.iter().map(|block| ratio(&block.header)).collect::<Vec<_>>(),
        "baseFeePerBlobGas": vec!["0x1"; blocks.len() + 1],
        "blobGasUsedRatio": vec![0.0; blocks.len()],
    });
    if let Some(percentiles) = percentiles {
        if percentiles.len() > 100 {
            return Err(RpcError::Params("at most 100 percentiles".into()));
        }
        // A block has one transaction: each percentile is what that one paid.
        let reward = |block: &super::block::Block| {
            let fee = u128::from(block.header.base_fee_per_gas.unwrap_or_default());
            let tip = block.transaction.as_ref().map_or(0, |mined| mined.price.saturating_sub(fee));
            vec![U128::from(tip); percentiles.len()]
        };
        history["reward"] = json!(blocks.iter().map(|block| reward(block)).collect::<Vec<_>>());
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::super::chain::Genesis;
    use super::*;

    fn chain() -> Chain {
        Chain::new(Genesis { chain_id: 31_337, seed: "test".into(), accounts: 2, time: 1000 })
    }

    fn error_code(body: &str) -> i64 {
        answer(&mut chain(), body.as_bytes(), 1000).unwrap()["error"]["code"].as_i64().unwrap()
    }

    fn ask(chain: &mut Chain, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        answer(chain, body.as_bytes(), 2000).unwrap()
    }

    #[test]
    fn malformed_requests_have_their_codes() {
        assert_eq!(error_code("{"), -32700);
        assert_eq!(error_code("7"), -32600);
        assert_eq!(error_code("[]"), -32600);
        assert_eq!(error_code(r#"{"id":1}"#), -32600);
        assert_eq!(error_code(r#"{"id":[],"method":"eth_chainId"}"#), -32600);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_nothing"}"#), -32601);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_getBalance"}"#), -32602);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_getBalance","params":["0x1"]}"#), -32602);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_getBalance","params":{}}"#), -32602);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_sendRawTransaction","params":["0x02"]}"#), -32602);
        assert_eq!(error_code(r#"{"id":1,"method":"eth_getBlockByNumber","params":["newest"]}"#), -32602);
    }

    #[test]
    fn batches_are_answered_in_order_and_notifications_not_at_all() {
        let body = r#"[{"id":1,"method":"eth_chainId"},{"method":"evm_mine"},7,{"id":"b","method":"eth_blockNumber"}]"#;
        let answers = answer(&mut chain(), body.as_bytes(), 1000).unwrap();
        assert_eq!(answers.as_array().unwrap().len(), 3);
        assert_eq!(answers[0]["result"], "0x7a69");
        assert_eq!(answers[1]["error"]["code"], -32600);
        assert_eq!((&answers[2]["id"], &answers[2]["result"]), (&json!("b"), &json!("0x1")));
        assert_eq!(answer(&mut chain(), br#"{"method":"eth_chainId"}"#, 1000), None);
    }

    #[test]
    fn the_clock_goes_on_from_what_was_set_and_never_back() {
        let mut chain = chain();
        let time = |chain: &mut Chain| {
            ask(chain, "evm_mine", json!([]));
            chain.head().header.timestamp
        };
        assert_eq!(time(&mut chain), 2000);
        ask(&mut chain, "evm_increaseTime", json!([500]));
        assert_eq!(time(&mut chain), 2500);
        assert_eq!(ask(&mut chain, "evm_setNextBlockTimestamp", json!(["0xbb8"]))["result"], Value::Null);
        assert_eq!(time(&mut chain), 3000);
        assert_eq!(time(&mut chain), 3000);
        assert_eq!(ask(&mut chain, "evm_setNextBlockTimestamp", json!([2999]))["error"]["code"], -32602);
    }

    #[test]
    fn the_same_requests_make_the_same_blocks() {
        let hashes = || {
            let mut chain = chain();
            (0..5).for_each(|_| chain.mine(1234));
            chain.head().hash
        };
        assert_eq!(hashes(), hashes());
        let mut other = Chain::new(Genesis { seed: "other".into(), ..chain().genesis().clone() });
        (0..5).for_each(|_| other.mine(1234));
        assert_ne!(other.head().hash, hashes());
    }
}

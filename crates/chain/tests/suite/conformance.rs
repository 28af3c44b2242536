//! The same requests to the development chain and to anvil: where answers must agree, they do, field by field.

use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_sol_types::SolCall;
use serde_json::{Value, json};
use tombola_chain::Wallet;
use tombola_chain::artifacts;
use tombola_chain::bindings::TestToken;
use tombola_chain::devchain::{DevChain, Genesis};

use crate::anvil::Anvil;
use crate::world::{CHAIN_ID, serve, stranger};

const START: u64 = 1_900_000_000;
const GWEI: u128 = 1_000_000_000;

struct Side {
    url: String,
    client: reqwest::Client,
}

impl Side {
    async fn post(&self, body: String) -> Value {
        let request = self.client.post(&self.url).header("content-type", "application/json").body(body);
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    }

    /// Result or error.
    async fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(body.to_string()).await
    }
}

struct Both {
    ours: Side,
    theirs: Side,
}

impl Both {
    async fn ask(&self, method: &str, params: Value) -> [Value; 2] {
        [self.ours.ask(method, &params).await, self.theirs.ask(method, &params).await]
    }

    /// These fields of the results are the same; without fields the results are.
    async fn same(&self, method: &str, params: Value, fields: &[&str]) -> Value {
        let [ours, theirs] = self.ask(method, params).await;
        assert_eq!(ours.get("error"), theirs.get("error"), "{method}");
        let (ours, theirs) = (&ours["result"], &theirs["result"]);
        if fields.is_empty() {
            assert_eq!(ours, theirs, "{method}");
        }
        for field in fields {
            assert!(theirs.get(field).is_some(), "{method}: anvil has no {field}");
            assert_eq!(ours.get(field), theirs.get(field), "{method}: {field}");
        }
        if method == "eth_sendRawTransaction" {
            self.mined(ours).await;
        }
        ours.clone()
    }

    /// Anvil answers before a transaction is in its block.
    async fn mined(&self, hash: &Value) {
        for _ in 0..600 {
            if self.theirs.ask("eth_getTransactionReceipt", &json!([hash])).await["result"].is_object() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("anvil does not execute {hash}");
    }

    /// Both refuse, with the same code.
    async fn refuse(&self, method: &str, params: Value) -> [String; 2] {
        let [ours, theirs] = self.ask(method, params).await;
        assert!(ours["error"].is_object() && theirs["error"].is_object(), "{method}: {ours} {theirs}");
        assert_eq!(ours["error"]["code"], theirs["error"]["code"], "{method}: {ours} {theirs}");
        assert_eq!(ours["error"].get("data"), theirs["error"].get("data"), "{method}");
        [ours, theirs].map(|answer| answer["error"]["message"].as_str().unwrap().to_lowercase())
    }
}

fn transaction(wallet: &Wallet, nonce: u64, to: TxKind, input: Bytes) -> Value {
    let signed = wallet.sign(TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 3_000_000,
        max_fee_per_gas: 5 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to,
        value: U256::ZERO,
        access_list: Default::default(),
        input,
    });
    json!([signed.raw])
}

const BLOCK: &[&str] = &[
    "number",
    "gasLimit",
    "gasUsed",
    "baseFeePerGas",
    "transactions",
    "uncles",
    "difficulty",
    "nonce",
    "sha3Uncles",
    "logsBloom",
    "transactionsRoot",
    "receiptsRoot",
    "miner",
    "timestamp",
    "extraData",
    "withdrawalsRoot",
];
const RECEIPT: &[&str] = &[
    "status",
    "gasUsed",
    "cumulativeGasUsed",
    "contractAddress",
    "from",
    "to",
    "type",
    "logsBloom",
    "transactionHash",
    "transactionIndex",
    "effectiveGasPrice",
    "blockNumber",
];
const TRANSACTION: &[&str] = &[
    "hash",
    "nonce",
    "blockNumber",
    "transactionIndex",
    "from",
    "to",
    "value",
    "gas",
    "gasPrice",
    "input",
    "type",
    "chainId",
    "v",
    "r",
    "s",
    "yParity",
    "accessList",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
];

async fn sides() -> (Both, Anvil, impl Sized, Wallet) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let genesis = Genesis { chain_id: CHAIN_ID, seed: "both".into(), accounts: 1, time: START };
    let wallet = Wallet::from_bytes(&genesis.key(0)).unwrap();
    let chain = Arc::new(DevChain::new(genesis));
    let server = serve(&chain).await;
    let start = START.to_string();
    // Its first block after the genesis has this fee; ours has it by the rule, after an empty one of 1 gwei.
    let anvil = Anvil::start(&[
        "--chain-id",
        "31337",
        "--timestamp",
        &start,
        "--gas-limit",
        "30000000",
        "--base-fee",
        "875000000",
        "--accounts",
        "1",
    ]);
    let client = reqwest::Client::new();
    let both = Both {
        ours: Side { url: server.url(), client: client.clone() },
        theirs: Side { url: anvil.url.clone(), client },
    };
    let endowment = U256::from(10_000 * 10_u128.pow(18));
    both.theirs.ask("anvil_setBalance", &json!([wallet.address(), endowment])).await;
    (both, anvil, server, wallet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_script_has_the_same_answers() {
    let (both, _anvil, _server, wallet) = sides().await;
    let from = wallet.address();
    both.same("eth_chainId", json!([]), &[]).await;
    both.same("net_version", json!([]), &[]).await;
    both.same("eth_blockNumber", json!([]), &[]).await;
    both.same("eth_syncing", json!([]), &[]).await;
    both.same("eth_getBlockByNumber", json!(["0x9", false]), &[]).await;
    let next = |time: u64| both.same("evm_setNextBlockTimestamp", json!([time]), &[]);

    // A contract.
    next(START + 100).await;
    let code = artifacts::test_token(6).unwrap();
    let hash = both.same("eth_sendRawTransaction", transaction(&wallet, 0, TxKind::Create, code), &[]).await;
    let receipt = both.same("eth_getTransactionReceipt", json!([hash]), RECEIPT).await;
    both.same("eth_getTransactionByHash", json!([hash]), TRANSACTION).await;
    both.same("eth_getBlockByNumber", json!(["latest", false]), BLOCK).await;
    let token: Address = serde_json::from_value(receipt["contractAddress"].clone()).unwrap();
    both.same("eth_getCode", json!([token, "latest"]), &[]).await;
    both.same("eth_getCode", json!([stranger(), "latest"]), &[]).await;

    // Calls of it, and what they leave.
    let mint = TestToken::mintCall { to: from, amount: U256::from(500) }.abi_encode();
    next(START + 200).await;
    let call = transaction(&wallet, 1, TxKind::Call(token), mint.into());
    let hash = both.same("eth_sendRawTransaction", call.clone(), &[]).await;
    let receipt = both.same("eth_getTransactionReceipt", json!([hash]), RECEIPT).await;
    let log = &receipt["logs"][0];
    for field in ["address", "topics", "data", "logIndex", "transactionHash", "removed", "blockTimestamp"] {
        let [ours, theirs] = both.ask("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(ours["result"]["logs"][0][field], theirs["result"]["logs"][0][field], "{field}");
    }
    for filter in [
        json!({ "fromBlock": "0x0" }),
        json!({ "fromBlock": "0x0", "toBlock": "latest", "address": token, "topics": [log["topics"][0]] }),
        json!({ "fromBlock": "0x0", "address": [token, from], "topics": [null, null, [log["topics"][2]]] }),
        json!({ "fromBlock": "0x0", "topics": [null, log["topics"][2]] }),
        json!({ "fromBlock": "0x0", "toBlock": "0x1" }),
        json!({ "fromBlock": "0x0", "address": stranger() }),
    ] {
        let [ours, theirs] = both.ask("eth_getLogs", json!([filter])).await;
        let hashes = |answer: &Value| -> Vec<Value> {
            let logs = answer["result"].as_array().unwrap().iter();
            logs.map(|log| json!([log["transactionHash"], log["logIndex"], log["blockNumber"]])).collect()
        };
        assert_eq!(hashes(&ours), hashes(&theirs), "{filter}");
    }
    both.same("eth_getBlockByNumber", json!(["0x2", false]), BLOCK).await;
    both.same("eth_getTransactionCount", json!([from, "latest"]), &[]).await;
    both.same("eth_getTransactionCount", json!([from, "0x1"]), &[]).await;
    both.same("eth_getBalance", json!([from, "latest"]), &[]).await;
    both.same("eth_getBalance", json!([stranger(), "latest"]), &[]).await;
    both.same("eth_getStorageAt", json!([token, "0x2", "latest"]), &[]).await;
    let supply = json!({ "to": token, "data": Bytes::from(TestToken::totalSupplyCall {}.abi_encode()) });
    both.same("eth_call", json!([supply, "latest"]), &[]).await;
    both.same("eth_call", json!([supply, "0x1"]), &[]).await;
    both.same("eth_gasPrice", json!([]), &[]).await;
    both.same("eth_maxPriorityFeePerGas", json!([]), &[]).await;
    both.same(
        "eth_feeHistory",
        json!(["0x2", "latest", []]),
        &["oldestBlock", "baseFeePerGas", "gasUsedRatio"],
    )
    .await;

    // An estimate is enough, and not much more.
    let transfer = |value: u64| {
        let data = TestToken::transferCall { to: stranger(), value: U256::from(value) }.abi_encode();
        json!({ "from": from, "to": token, "data": Bytes::from(data) })
    };
    let estimates = both.ask("eth_estimateGas", json!([transfer(5)])).await.map(|answer| {
        u64::from_str_radix(answer["result"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    });
    assert!(estimates[0].abs_diff(estimates[1]) < estimates[1] / 20, "{estimates:?}");

    // What is refused.
    both.refuse("eth_call", json!([transfer(501), "latest"])).await;
    both.refuse("eth_estimateGas", json!([transfer(501)])).await;
    both.refuse("eth_nothing", json!([])).await;
    both.refuse("eth_getBalance", json!(["0x12", "latest"])).await;
    let low = both
        .refuse("eth_sendRawTransaction", transaction(&wallet, 0, TxKind::Call(token), Bytes::new()))
        .await;
    assert!(low.iter().all(|message| message.contains("nonce too low")), "{low:?}");

    // A transaction that reverts is in a block, and pays.
    let data: Bytes = TestToken::transferCall { to: stranger(), value: U256::from(501) }.abi_encode().into();
    next(START + 300).await;
    let call = transaction(&wallet, 2, TxKind::Call(token), data);
    let hash = both.same("eth_sendRawTransaction", call, &[]).await;
    let receipt = both.same("eth_getTransactionReceipt", json!([hash]), RECEIPT).await;
    assert_eq!(receipt["status"], "0x0");
    both.same("eth_getBalance", json!([from, "latest"]), &[]).await;
    next(START + 400).await;
    both.ask("evm_mine", json!([])).await;
    both.same("eth_getBlockByNumber", json!(["latest", true]), BLOCK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_have_the_same_shape() {
    let (both, _anvil, _server, _) = sides().await;
    let batch = r#"[{"jsonrpc":"2.0","id":7,"method":"eth_chainId"},{"jsonrpc":"2.0","id":"x","method":"eth_nothing"}]"#;
    let [ours, theirs] = [both.ours.post(batch.into()).await, both.theirs.post(batch.into()).await];
    assert_eq!(ours[0], theirs[0]);
    assert_eq!(ours[1]["id"], theirs[1]["id"]);
    assert_eq!(ours[1]["error"]["code"], theirs[1]["error"]["code"]);
}

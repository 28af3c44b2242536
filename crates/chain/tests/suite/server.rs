//! The development chain through alloy's own provider, and through broken HTTP.

use std::sync::Arc;
use std::time::Duration;

use alloy_network::TransactionBuilder;
use alloy_primitives::{Address, U256};
use alloy_provider::{Provider, ProviderBuilder};
use alloy_rpc_types_eth::{BlockNumberOrTag, Filter, TransactionRequest};
use alloy_signer_local::PrivateKeySigner;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tombola_chain::devchain::{DevChain, Genesis, StateError};

use crate::world::{World, ask, genesis, serve, stranger};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_with_fillers_pays_and_reads() {
    let chain = Arc::new(DevChain::new(genesis()));
    let server = serve(&chain).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signer = PrivateKeySigner::from_slice(&*genesis().key(0)).unwrap();
    let from = signer.address();
    assert_eq!(from, genesis().address(0));
    let provider = ProviderBuilder::new().wallet(signer).connect_http(server.url().parse().unwrap());
    assert_eq!(provider.get_accounts().await.unwrap().len(), 6);
    let before = provider.get_balance(from).await.unwrap();
    let request = TransactionRequest::default().with_to(stranger()).with_value(U256::from(5));
    let receipt = provider.send_transaction(request).await.unwrap().get_receipt().await.unwrap();
    assert!(receipt.status());
    assert_eq!((receipt.gas_used, receipt.block_number), (21_000, Some(1)));
    assert_eq!(provider.get_balance(stranger()).await.unwrap(), U256::from(5));
    let cost = U256::from(21_000) * U256::from(receipt.effective_gas_price) + U256::from(5);
    assert_eq!(provider.get_balance(from).await.unwrap(), before - cost);
    let found = provider.get_transaction_by_hash(receipt.transaction_hash).await.unwrap().unwrap();
    assert_eq!((found.block_number, found.inner.signer()), (Some(1), from));
    let block = provider.get_block_by_number(BlockNumberOrTag::Latest).full().await.unwrap().unwrap();
    assert_eq!(block.header.hash, block.header.inner.hash_slow(), "the hash is that of the header");
    assert!(provider.get_logs(&Filter::new().from_block(0)).await.unwrap().is_empty());
    assert_eq!(provider.get_transaction_count(from).await.unwrap(), 1);
    assert_eq!(provider.get_balance(from).number(0).await.unwrap(), before, "the past is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_is_the_same_after_it_was_written_and_read() {
    let world = World::new().await;
    world.issuer.deposit(&world.contracts, world.issuer.address(), 1234).await.unwrap();
    world.pass(500);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    world.chain.save(&path).unwrap();
    let found = Arc::new(DevChain::open(&path).unwrap().unwrap());
    assert_eq!((found.head(), found.genesis()), (world.chain.head(), world.chain.genesis()));
    let server = serve(&found).await;
    let operator = crate::world::operator(&server.url(), &world.keys[1]);
    let balances = operator.balances(&world.contracts, operator.address()).await.unwrap();
    assert_eq!(balances.deposit, 1234);
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(DevChain::open(&path), Err(StateError::Format { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_taken_back_takes_its_effects_with_it() {
    let world = World::new().await;
    let (number, _) = world.chain.head();
    world.issuer.deposit(&world.contracts, world.issuer.address(), 1234).await.unwrap();
    assert_eq!(world.chain.head().0, number + 1);
    world.chain.roll_back(1).unwrap();
    let balances = world.issuer.balances(&world.contracts, world.issuer.address()).await.unwrap();
    assert_eq!((balances.deposit, balances.tokens), (0, U256::from(1_000_000)));
    world.issuer.deposit(&world.contracts, world.issuer.address(), 7).await.unwrap();
    assert!(world.chain.roll_back(1000).is_err());
}

#[test]
fn transactions_that_cannot_be_executed_are_refused_in_the_usual_words() {
    let chain = DevChain::new(genesis());
    let key = genesis().key(0);
    let wallet = tombola_chain::Wallet::from_bytes(&key).unwrap();
    let send = |change: &dyn Fn(&mut alloy_consensus::TxEip1559)| {
        let mut transaction = alloy_consensus::TxEip1559 {
            chain_id: 31_337,
            nonce: 0,
            gas_limit: 21_000,
            max_fee_per_gas: 2_000_000_000,
            max_priority_fee_per_gas: 1,
            to: stranger().into(),
            value: U256::from(1),
            access_list: Default::default(),
            input: Default::default(),
        };
        change(&mut transaction);
        ask(&chain, "eth_sendRawTransaction", &json!([wallet.sign(transaction).raw]))["error"]["message"]
            .to_string()
    };
    for (change, words) in [
        ((|t| t.nonce = 1) as fn(&mut alloy_consensus::TxEip1559), "nonce too high"),
        (|t| t.chain_id = 1, "chain id"),
        (|t| t.gas_limit = 20_999, "intrinsic gas too low"),
        (|t| t.gas_limit = (1 << 24) + 1, "gas limit too high"),
        (|t| t.max_fee_per_gas = 2, "max fee per gas less than block base fee"),
        (|t| t.max_priority_fee_per_gas = u128::MAX, "higher than max fee"),
        (|t| t.value = U256::MAX >> 4, "insufficient funds"),
        (|_| {}, "null"),
        (|_| {}, "already known"),
        (|t| t.value = U256::from(2), "nonce too low"),
    ] {
        let message = send(&change);
        assert!(message.contains(words), "{message} instead of {words}");
    }
    assert_eq!(chain.head().0, 1, "what is refused makes no block");
}

#[test]
fn the_same_genesis_and_transactions_give_the_same_hashes() {
    let genesis = Genesis { time: 1_900_000_000, ..genesis() };
    let hash = || {
        let chain = DevChain::new(genesis.clone());
        ask(&chain, "evm_setNextBlockTimestamp", &json!([1_900_000_100_u64]));
        chain.mine();
        chain.head().1
    };
    assert_eq!(hash(), hash());
    assert_ne!(genesis.address(0), genesis.address(1));
    assert_ne!(genesis.address(0), Address::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_http_and_long_requests_are_refused() {
    let chain = Arc::new(DevChain::new(genesis()));
    let server = serve(&chain).await;
    let address = server.address();
    let talk = |text: Vec<u8>| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(&text).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(300), read).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(talk(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()).await.contains(" 405 "));
    assert!(talk(vec![0xff; 100]).await.contains(" 400 "));
    let long =
        format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", 5 << 20);
    let answer = talk([long.into_bytes(), vec![b'['; 5 << 20]].concat()).await;
    assert!(answer.is_empty() || answer.contains(" 413 "), "{answer}");
    let deep = vec![b'['; 100_000];
    let post =
        format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", deep.len());
    assert!(talk([post.into_bytes(), deep].concat()).await.contains("-32700"));
}

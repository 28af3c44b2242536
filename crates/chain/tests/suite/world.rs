//! A chain with contracts and accounts.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use tokio::net::TcpListener;
use tombola_chain::devchain::{DevChain, Genesis, Server};
use tombola_chain::ops::{Contracts, EscrowTerms, Operator};
use tombola_chain::{EvmConfig, Wallet};
use tombola_tickets::{ClassNumber, Domain, PriceClass, UnixSeconds, WinProbability};

pub(crate) const CHAIN_ID: u64 = 31_337;
pub(crate) const DAY: u32 = 86_400;
pub(crate) const FACE: u128 = 1_000;

pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn genesis() -> Genesis {
    Genesis { chain_id: CHAIN_ID, seed: "tests".into(), accounts: 6, time: now() }
}

/// Of the accounts of [`Parties`].
pub(crate) fn keys() -> [[u8; 32]; 4] {
    [0, 1, 2, 3].map(|number| *genesis().key(number))
}

pub(crate) async fn serve(chain: &Arc<DevChain>) -> Server {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    chain.start(listener).unwrap()
}

/// Contracts on a chain, and accounts: the one that deploys and has all the money; who pays; who is paid; who claims for it.
pub(crate) struct Parties {
    pub(crate) rich: Operator,
    pub(crate) issuer: Operator,
    pub(crate) recipient: Operator,
    pub(crate) redeemer: Arc<Wallet>,
    pub(crate) contracts: Contracts,
    pub(crate) keys: [[u8; 32]; 4],
}

/// Parties on a development chain of their own.
pub(crate) struct World {
    pub(crate) chain: Arc<DevChain>,
    _server: Server,
    pub(crate) url: String,
    parties: Parties,
}

impl Deref for World {
    type Target = Parties;

    fn deref(&self) -> &Parties {
        &self.parties
    }
}

pub(crate) fn operator(url: &str, key: &[u8; 32]) -> Operator {
    let wallet = Arc::new(Wallet::from_bytes(key).unwrap());
    Operator::new(&EvmConfig::new(url), CHAIN_ID, wallet).unwrap()
}

impl Parties {
    /// Deploys contracts, and gives tokens to the accounts, which have ether.
    pub(crate) async fn new(url: &str) -> Self {
        let keys = keys();
        let [rich, issuer, recipient] = [0, 1, 2].map(|at| operator(url, &keys[at]));
        let token = rich.deploy_token(18).await.unwrap();
        let terms = EscrowTerms {
            max_ticket_life: 2 * DAY,
            notice_period: 3 * DAY,
            genesis: now() - 1000,
            epoch_length: DAY,
            min_stake: 100,
        };
        let contracts = rich.deploy_escrow(token, &terms).await.unwrap();
        for operator in [&rich, &issuer, &recipient] {
            rich.mint(&contracts, operator.address(), 1_000_000).await.unwrap();
            operator.approve(&contracts, contracts.escrow, U256::MAX).await.unwrap();
            operator.approve(&contracts, contracts.registry, U256::MAX).await.unwrap();
        }
        let redeemer = Arc::new(Wallet::from_bytes(&keys[3]).unwrap());
        Self { rich, issuer, recipient, redeemer, contracts, keys }
    }

    pub(crate) fn domain(&self) -> Domain {
        Domain::new(CHAIN_ID, self.contracts.escrow)
    }

    /// A class in which every 64th ticket wins.
    pub(crate) async fn class(&self, life: u32) -> (ClassNumber, PriceClass) {
        let from = UnixSeconds(u32::try_from(now()).unwrap() - 10);
        let class = PriceClass {
            face_value: FACE,
            win_probability: WinProbability::MAX,
            valid_from: from,
            expiry: UnixSeconds(from.0 + life),
            epoch: 0,
        };
        (self.rich.register_class(&self.contracts, &class).await.unwrap(), class)
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let chain = Arc::new(DevChain::new(genesis()));
        let server = serve(&chain).await;
        let url = server.url();
        let parties = Parties::new(&url).await;
        Self { chain, _server: server, url, parties }
    }

    /// A method that is not wrapped.
    pub(crate) fn ask(&self, method: &str, params: serde_json::Value) -> serde_json::Value {
        ask(&self.chain, method, &params)
    }

    pub(crate) fn pass(&self, seconds: u32) {
        self.ask("evm_increaseTime", serde_json::json!([seconds]));
        self.chain.mine();
    }
}

pub(crate) fn ask(chain: &DevChain, method: &str, params: &serde_json::Value) -> serde_json::Value {
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = chain.answer(body.to_string().as_bytes()).unwrap();
    serde_json::from_str(&answer).unwrap()
}

pub(crate) fn identity(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

pub(crate) fn stranger() -> Address {
    Address::repeat_byte(0x77)
}

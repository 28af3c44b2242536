//! The money of a local network: a chain for development in a process of its own, contracts, and an account with all that it
//! needs for every node and client.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tombola_chain::devchain::Genesis;
use tombola_chain::keystore::{Keystore, KeystoreError, Password, Work};
use tombola_chain::ops::{Contracts, EscrowTerms, Operator, OpsError};
use tombola_chain::{EvmConfig, Wallet};
use tombola_node::clock::unix_now;
use tombola_node::payment::PaymentConfig;
use tombola_tickets::{Address, ClassNumber, PriceClass, UnixSeconds, WinProbability};
use tombola_topology::{ChainAddress, Payment};

use super::child::Child;
use super::network::LocalError;

/// How long the chain may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
const CHAIN_ID: u64 = 31_337;
/// What a hop keeps of each packet, in the smallest unit of the token: a millionth of one with 18 decimals.
const FEE: u128 = 1_000_000_000_000;
/// One ticket in so many wins: as many as a class may have, so that windows end and are claimed within a minute.
const ONE_IN: u32 = 64;
/// What each deposit and each reserve has: a thousand tokens, more than a day's traffic.
const PLENTY: u128 = 1_000 * 1_000_000_000_000_000_000;
/// What an account has to pay gas with, in wei: ten of the chain's own coins.
const GAS_MONEY: u128 = 10 * 1_000_000_000_000_000_000;
const DAY: u32 = 86_400;

/// The chain and who may spend on it.
pub(super) struct Bank {
    runtime: Runtime,
    operator: Operator,
    contracts: Contracts,
    url: String,
    classes: Vec<ClassNumber>,
    /// The chain's process.
    chain: Child,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank")
            .field("url", &self.url)
            .field("contracts", &self.contracts)
            .finish_non_exhaustive()
    }
}

impl Bank {
    /// Starts a chain, deploys the contracts, and registers a price class for each link of a route through `layers` layers.
    pub(super) fn open(binary: &Path, layers: u8) -> Result<Self, LocalError> {
        let port = free_port().map_err(LocalError::Ports)?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let args = ["devchain", "--exit-with-stdin", "--listen", &listen];
        let mut chain = Child::spawn("the chain", binary, &args)?;
        let deadline = Instant::now() + PATIENCE;
        while chain.line(Duration::from_millis(100))?.is_none() {
            if Instant::now() > deadline {
                return Err(LocalError::Late {
                    name: "the chain".to_owned(),
                    what: "has not come up",
                    patience: PATIENCE,
                    last_words: chain.last_words(),
                });
            }
        }
        let url = format!("http://{listen}");
        let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = builder.map_err(LocalError::Ports)?;
        let genesis = Genesis { chain_id: CHAIN_ID, seed: "tombola".to_owned(), accounts: 10, time: 0 };
        let wallet = Arc::new(Wallet::from_bytes(&genesis.key(0)).map_err(|_| LocalError::NoBinary)?);
        let operator = Operator::new(&EvmConfig::new(&url), CHAIN_ID, wallet)?;
        let (contracts, classes) = runtime.block_on(deploy(&operator, layers))?;
        Ok(Self { runtime, operator, contracts, url, classes, chain })
    }

    /// What the network document says.
    pub(super) fn payment(&self) -> Payment {
        Payment {
            chain_id: CHAIN_ID,
            escrow: ChainAddress(self.contracts.escrow.into()),
            classes: self.classes.iter().map(|class| class.0).collect(),
        }
    }

    /// Makes a key for whoever lives in a folder, with money for gas; returns its account and its configuration.
    pub(super) fn account(&self, folder: &Path) -> Result<(Address, PaymentConfig), LocalError> {
        let (keystore, password) = (PathBuf::from("chain.json"), PathBuf::from("chain.password"));
        let secret = Password::generate(&folder.join(&password))?;
        // The key of a chain that ends with this network need not be hard to guess.
        let wallet: Wallet = Keystore::new(folder.join(&keystore)).create(&secret, Work::Light)?;
        let account = wallet.address();
        self.runtime.block_on(self.operator.send_wei(account, GAS_MONEY.try_into().unwrap_or_default()))?;
        let config = PaymentConfig {
            rpc_url: self.url.clone(),
            keystore,
            password,
            account: None,
            // Nothing is ever reorganised there.
            confirmations: 0,
            start_block: 0,
            poll: Duration::from_secs(1),
            redeem_spread: Duration::ZERO,
            account_reserves: None,
        };
        Ok((account, config))
    }

    /// Gives an issuer a deposit.
    pub(super) fn deposit(&self, issuer: Address) -> Result<(), LocalError> {
        self.runtime.block_on(self.operator.deposit(&self.contracts, issuer, PLENTY))?;
        Ok(())
    }

    /// Gives an issuer a reserve for a recipient.
    pub(super) fn reserve(&self, issuer: Address, recipient: Address) -> Result<(), LocalError> {
        self.runtime.block_on(self.operator.fund_reserve(&self.contracts, issuer, recipient, PLENTY))?;
        Ok(())
    }

    /// The chain's process.
    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.chain
    }
}

async fn deploy(operator: &Operator, layers: u8) -> Result<(Contracts, Vec<ClassNumber>), OpsError> {
    let token = operator.deploy_token(18).await?;
    let now = u32::try_from(unix_now()).unwrap_or(u32::MAX);
    let terms = EscrowTerms {
        max_ticket_life: 9 * DAY,
        notice_period: 10 * DAY,
        genesis: u64::from(now - DAY),
        epoch_length: 9 * DAY,
        min_stake: 1,
    };
    let contracts = operator.deploy_escrow(token, &terms).await?;
    // Enough for everything that follows.
    operator.mint(&contracts, operator.address(), u128::MAX / 4).await?;
    operator.approve(&contracts, contracts.escrow, u128::MAX.try_into().unwrap_or_default()).await?;
    let mut classes = Vec::new();
    for link in 0..u128::from(layers) + 2 {
        let price = PriceClass {
            face_value: FEE * (u128::from(layers) + 2 - link) * u128::from(ONE_IN),
            win_probability: WinProbability::from_ratio(1, ONE_IN).unwrap_or(WinProbability::MAX),
            valid_from: UnixSeconds(now - DAY / 2),
            expiry: UnixSeconds(now + 8 * DAY),
            epoch: 0,
        };
        classes.push(operator.register_class(&contracts, &price).await?);
    }
    Ok((contracts, classes))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl From<OpsError> for LocalError {
    fn from(source: OpsError) -> Self {
        Self::Money(Box::new(source))
    }
}

impl From<KeystoreError> for LocalError {
    fn from(source: KeystoreError) -> Self {
        Self::Purse(Box::new(source))
    }
}

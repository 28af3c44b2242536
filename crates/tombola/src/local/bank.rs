//! The money of a local network: a chain for development, in a process of its own or one that is there; contracts; and an account
//! with all that it needs for every node and client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tombola_chain::devchain::Genesis;
use tombola_chain::keystore::{Keystore, KeystoreError, Password, Work};
use tombola_chain::ops::{Audit, Contracts, EscrowTerms, Operator, OpsError};
use tombola_chain::{EvmConfig, Wallet};
use tombola_client::Home;
use tombola_node::clock::unix_now;
use tombola_node::files;
use tombola_node::payment::PaymentConfig;
use tombola_tickets::{Address, ClassNumber, PriceClass, UnixSeconds, WinProbability};
use tombola_topology::{ChainAddress, Payment};

use super::child::Child;
use super::network::{Chain, Funder, LocalError};
use super::ports;

/// How long the chain may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const CHAIN_ID: u64 = 31_337;
/// The key of the first account of "test test test test test test test test test test test junk", by which Anvil, Hardhat and
/// others begin. No secret: nothing of worth may ever be sent there.
const FIRST_OF_ALL: [u8; 32] = [
    0xac, 0x09, 0x74, 0xbe, 0xc3, 0x9a, 0x17, 0xe3, 0x6b, 0xa4, 0xa6, 0xb4, 0xd2, 0x38, 0xff, 0x94, 0x4b,
    0xac, 0xb4, 0x78, 0xcb, 0xed, 0x5e, 0xfc, 0xae, 0x78, 0x4d, 0x7b, 0xf4, 0xf2, 0xff, 0x80,
];
/// What a hop keeps of each packet, in the smallest unit of the token: a millionth of one with 18 decimals.
const FEE: u128 = 1_000_000_000_000;
/// One ticket in so many wins: as many as a class may have, so that windows end and are claimed within a minute.
pub(super) const ONE_IN: u32 = 64;
/// What each deposit and each reserve has: a thousand tokens, more than a day's traffic.
const PLENTY: u128 = 1_000 * 1_000_000_000_000_000_000;
/// What an account has to pay gas with, in wei: ten of the chain's own coins.
const GAS_MONEY: u128 = 10 * 1_000_000_000_000_000_000;
const DAY: u32 = 86_400;

/// Somebody who can pay for things on a chain for development.
pub(crate) struct Till {
    runtime: Runtime,
    operator: Operator,
    contracts: Contracts,
    url: String,
    /// Blocks that must follow before something counts. None on a chain of its own: nothing is ever reorganised there.
    confirmations: u64,
    /// The contracts were deployed in a later block.
    start_block: u64,
}

/// The contracts of a network, and who may pay for it.
pub(super) struct Bank {
    till: Till,
    chain_id: u64,
    classes: Vec<ClassNumber>,
    /// The chain's process, if it is the network's own.
    chain: Option<Child>,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank").field("contracts", &self.till.contracts).finish_non_exhaustive()
    }
}

/// Who pays when nobody is named: the first account of a chain of ours, or else of the others.
fn known_funders() -> Result<[Wallet; 2], LocalError> {
    let genesis = Genesis { chain_id: CHAIN_ID, seed: "tombola".to_owned(), accounts: 1, time: 0 };
    let wallet = |key: &[u8; 32]| Wallet::from_bytes(key).map_err(|_| LocalError::NoBinary);
    Ok([wallet(&genesis.key(0))?, wallet(&FIRST_OF_ALL)?])
}

fn runtime() -> Result<Runtime, LocalError> {
    // A thread of its own: connections that the server has closed must be noticed between calls, too.
    let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    builder.map_err(LocalError::Ports)
}

/// The first of those who could pay that has money, on whichever chain that is.
fn find_operator(
    runtime: &Runtime,
    url: &str,
    funder: Option<&Funder>,
) -> Result<(Operator, u64), LocalError> {
    let wallets = match funder {
        Some(Funder { keystore, password }) => {
            vec![Keystore::new(keystore).open(&Password::read(password)?)?]
        }
        None => known_funders()?.into(),
    };
    let config = EvmConfig::new(url);
    let chain_id = runtime.block_on(Operator::chain_id(&config))?;
    let mut poor = Address::ZERO;
    for wallet in wallets {
        let operator = Operator::new(&config, chain_id, Arc::new(wallet))?;
        poor = operator.address();
        if !runtime.block_on(operator.wei(poor))?.is_zero() {
            return Ok((operator, chain_id));
        }
    }
    Err(LocalError::NoFunds { account: poor, url: url.to_owned() })
}

impl Bank {
    /// Finds a chain or starts one, deploys the contracts, and registers a price class for each link of a route through
    /// `layers` layers. `None`: nothing is paid for.
    pub(super) fn open(chain: &Chain, binary: &Path, layers: u8) -> Result<Option<Self>, LocalError> {
        let (url, process, funder, confirmations) = match chain {
            Chain::None => return Ok(None),
            Chain::Own => {
                let (url, process) = start_chain(binary)?;
                (url, Some(process), None, 0)
            }
            Chain::At { url, funder, confirmations } => (url.clone(), None, funder.as_ref(), *confirmations),
        };
        let runtime = runtime()?;
        let (operator, chain_id) = find_operator(&runtime, &url, funder)?;
        let start_block = runtime.block_on(operator.block())?;
        let (contracts, classes) = runtime.block_on(deploy(&operator, layers))?;
        let till = Till { runtime, operator, contracts, url, confirmations, start_block };
        Ok(Some(Self { till, chain_id, classes, chain: process }))
    }

    /// What the network document says.
    pub(super) fn payment(&self) -> Payment {
        Payment {
            chain_id: self.chain_id,
            escrow: ChainAddress(self.till.contracts.escrow.into()),
            classes: self.classes.iter().map(|class| class.0).collect(),
        }
    }

    /// Pays.
    pub(super) fn till(&self) -> &Till {
        &self.till
    }

    /// Where the chain is.
    pub(super) fn url(&self) -> &str {
        &self.till.url
    }

    /// The chain's process, if it is the network's own.
    pub(super) fn process(&mut self) -> Option<&mut Child> {
        self.chain.as_mut()
    }
}

impl Till {
    /// For a network that is there: the contracts of its document's escrow.
    pub(crate) fn of(
        url: &str,
        funder: Option<&Funder>,
        confirmations: u64,
        escrow: Address,
    ) -> Result<Self, LocalError> {
        let runtime = runtime()?;
        let (operator, _) = find_operator(&runtime, url, funder)?;
        let contracts = runtime.block_on(operator.contracts(escrow))?;
        // Whoever it is that pays may have been another one before.
        runtime.block_on(stock(&operator, &contracts))?;
        let url = url.to_owned();
        Ok(Self { runtime, operator, contracts, url, confirmations, start_block: 0 })
    }

    /// Makes a key for whoever lives in a folder, with money for gas; returns its account and its configuration.
    pub(super) fn account(&self, folder: &Path) -> Result<(Address, PaymentConfig), LocalError> {
        let (keystore, password) = (PathBuf::from("chain.json"), PathBuf::from("chain.password"));
        let secret = Password::generate(&folder.join(&password))?;
        // The key of a chain for development need not be hard to guess.
        let wallet: Wallet = Keystore::new(folder.join(&keystore)).create(&secret, Work::Light)?;
        let account = wallet.address();
        self.runtime.block_on(self.operator.send_wei(account, GAS_MONEY.try_into().unwrap_or_default()))?;
        let config = PaymentConfig {
            rpc_url: self.url.clone(),
            keystore,
            password,
            account: None,
            confirmations: self.confirmations,
            start_block: self.start_block,
            poll: Duration::from_secs(1),
            redeem_spread: Duration::ZERO,
            token_price: None,
            least_return_percent: None,
            max_fee_gwei: None,
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

    /// Gives a client an account with a reserve for its gateway, and returns the account.
    pub(crate) fn equip(&self, home: &Path) -> Result<Address, LocalError> {
        let client =
            |source| LocalError::Client { name: home.display().to_string(), source: Box::new(source) };
        let opened = Home::open(home).map_err(client)?;
        let epoch = opened.view().epoch();
        let gateway = epoch.index_of(&opened.gateway()).and_then(|index| epoch.node(index)?.account);
        let (account, config) = self.account(home)?;
        let at = |source| LocalError::Folder { path: home.to_owned(), source };
        let text = toml::to_string(&config).map_err(|error| at(io::Error::other(error)))?;
        if let Some(gateway) = gateway {
            self.reserve(account, Address::from(gateway.0))?;
        }
        // Last: a client that has it can pay.
        files::replace(&home.join("payment.toml"), text.as_bytes(), 0o644).map_err(at)?;
        Ok(account)
    }

    /// All money that there is.
    pub(super) fn audit(&self) -> Result<Audit, LocalError> {
        Ok(self.runtime.block_on(self.operator.audit(&self.contracts, self.start_block))?)
    }
}

/// Lets an account pay out of a full purse.
async fn stock(operator: &Operator, contracts: &Contracts) -> Result<(), OpsError> {
    // Enough for everything that follows.
    operator.mint(contracts, operator.address(), u128::MAX / 1024).await?;
    operator.approve(contracts, contracts.escrow, u128::MAX.try_into().unwrap_or_default()).await
}

fn start_chain(binary: &Path) -> Result<(String, Child), LocalError> {
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
    Ok((format!("http://{listen}"), chain))
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
    stock(operator, &contracts).await?;
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

fn free_port() -> io::Result<u16> {
    ports::bind_any(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?
        .local_addr()
        .map(|address| address.port())
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

//! The account of a section `[payment]`, for who acts with it by hand: the keys, the chain, the contracts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tombola_chain::keystore::{Keystore, Password};
use tombola_chain::ops::{Contracts, Operator};
use tombola_chain::{Evm, EvmConfig, Ledger, Units, Wallet};
use tombola_tickets::Address;
use tombola_topology::{ChainAddress, Network};

use crate::payment::{PaymentConfig, domain_of};

/// An account, its key, and the chain, which is the one that the network document names.
#[derive(Debug)]
pub struct OpenAccount {
    /// The account that pays and is paid.
    pub own: Address,
    /// Acts with the key of the keystore, which is the account's own or one that it has named.
    pub operator: Operator,
    /// The contracts of the network.
    pub contracts: Contracts,
    /// The token's.
    pub units: Units,
    pub(crate) evm: Evm,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) config: PaymentConfig,
}

impl PaymentConfig {
    /// The account that a key acts for.
    ///
    /// # Errors
    /// The key `account` is no address.
    pub fn account_of(&self, key: Address) -> Result<Address> {
        let Some(text) = &self.account else { return Ok(key) };
        let account: ChainAddress =
            text.parse().context("the key \"payment.account\" of the configuration")?;
        Ok(Address::from(account.0))
    }

    /// The key of the keystore, for transactions; paths start at `base`.
    ///
    /// # Errors
    /// Keystore or password are unusable.
    pub fn wallet(&self, base: &Path) -> Result<Wallet> {
        let password = Password::read(&base.join(&self.password))?;
        Ok(Keystore::new(base.join(&self.keystore)).open(&password)?)
    }
}

impl OpenAccount {
    /// Opens the key, and finds out whether the chain is the right one. Transactions are waited for until they are final, each
    /// step no longer than `patience`.
    ///
    /// # Errors
    /// A key or the chain is unusable, or the chain is another one than the document names.
    pub async fn open(
        config: &PaymentConfig,
        base: &Path,
        network: &Network,
        patience: Duration,
    ) -> Result<Self> {
        let domain = domain_of(network)?;
        let wallet = Arc::new(config.wallet(base)?);
        let own = config.account_of(wallet.address())?;
        let chain = EvmConfig::new(&config.rpc_url);
        let evm = Evm::new(&chain, domain)?;
        evm.check().await?;
        let operator = Operator::new(&chain, domain.chain_id(), Arc::clone(&wallet))?
            .with_patience(patience)
            .with_confirmations(config.confirmations);
        let contracts = operator.contracts(domain.escrow()).await?;
        let units = operator.units(&contracts).await?;
        Ok(Self { own, operator, contracts, units, evm, wallet, config: config.clone() })
    }

    /// The address of the key.
    #[must_use]
    pub fn key(&self) -> Address {
        self.wallet.address()
    }

    /// Whether the key is the account's own, which may do everything.
    #[must_use]
    pub fn is_own_key(&self) -> bool {
        self.key() == self.own
    }

    /// How it pays and is paid.
    #[must_use]
    pub fn config(&self) -> &PaymentConfig {
        &self.config
    }
}

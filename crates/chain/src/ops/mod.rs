//! What an account does on the chain by itself: deploy, deposit, reserve, stake, withdraw, and look at what it has.
//!
//! Each operation waits until it is in a block. A revert is told in words, mostly before anything is sent: the server is
//! asked first what the transaction would use.

mod actions;
mod audit;
mod balances;
mod deploy;

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use alloy_sol_types::{SolCall, SolEvent};
use serde_json::json;
use thiserror::Error;
use tokio::sync::Mutex;

pub use audit::Audit;
pub use balances::Balances;
pub use deploy::{Contracts, EscrowTerms};

use crate::artifacts::ArtifactError;
use crate::bindings::Registry::Role;
use crate::evm::{self, EvmConfig, UrlError, rpc::Rpc};
use crate::ledger::{LedgerError, Refusal};
use crate::wallet::Wallet;

/// What a transaction may use at most (EIP-7825).
pub const MOST_GAS: u64 = 1 << 24;

/// Why an operation did not happen, or may not have.
#[derive(Debug, Error)]
pub enum OpsError {
    /// There is no such server.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The chain or the contract does not want it. Nothing was changed.
    #[error("{what}: {source}")]
    Ledger {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: LedgerError,
    },
    /// It was executed and reverted: what was asked before has changed meanwhile. Only the fee is gone.
    #[error("{what}: the transaction {hash} reverted, though it would not have a moment before; try again")]
    Reverted {
        /// What was to be done.
        what: &'static str,
        /// The transaction.
        hash: B256,
    },
    /// It was sent, and is in no block yet.
    #[error(
        "{what}: the transaction {hash} is in no block after {waited:?}; it may still come: look before you repeat it"
    )]
    Late {
        /// What was to be done.
        what: &'static str,
        /// The transaction.
        hash: B256,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The receipt does not have what it must.
    #[error("{what}: the receipt of {hash} does not say what it must; is this another contract?")]
    Receipt {
        /// What was to be done.
        what: &'static str,
        /// The transaction.
        hash: B256,
    },
    /// Our fault.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// An account that acts.
#[derive(Debug)]
pub struct Operator {
    rpc: Rpc,
    wallet: Arc<Wallet>,
    chain_id: u64,
    patience: Duration,
    /// One transaction after the other: each takes the next number.
    turn: Mutex<()>,
}

/// A transaction in a block.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    hash: B256,
    receipt: evm::Receipt,
}

impl Operator {
    /// The account of a key on a chain. A transaction is waited for a minute.
    ///
    /// # Errors
    ///
    /// The URL is none.
    pub fn new(config: &EvmConfig, chain_id: u64, wallet: Arc<Wallet>) -> Result<Self, OpsError> {
        let rpc = Rpc::new(&config.url, config.timeout)?;
        Ok(Self { rpc, wallet, chain_id, patience: Duration::from_secs(60), turn: Mutex::new(()) })
    }

    /// Waits longer for transactions, or less long.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The id of the chain that a server has, before there is an operator on it.
    ///
    /// # Errors
    ///
    /// The URL is none, or the server does not answer.
    pub async fn chain_id(config: &EvmConfig) -> Result<u64, OpsError> {
        let rpc = Rpc::new(&config.url, config.timeout)?;
        let id = evm::chain_id(&rpc).await;
        id.map_err(|source| OpsError::Ledger { what: "asking which chain it is", source })
    }

    /// The number of the latest block.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn block(&self) -> Result<u64, OpsError> {
        let number = evm::block_number(&self.rpc).await;
        number.map_err(|source| OpsError::Ledger { what: "asking for the latest block", source })
    }

    /// Whose account it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.wallet.address()
    }

    /// Asks a contract.
    pub(crate) async fn read<C: SolCall>(&self, to: Address, call: &C) -> Result<C::Return, OpsError> {
        let found = evm::read(&self.rpc, to, call, "latest".into()).await;
        found.map_err(|source| OpsError::Ledger { what: C::SIGNATURE, source })
    }

    /// Calls a contract in a transaction, and waits for it.
    async fn call<C: SolCall>(&self, to: Address, call: &C) -> Result<Done, OpsError> {
        self.transact(C::SIGNATURE, TxKind::Call(to), U256::ZERO, call.abi_encode().into()).await
    }

    /// Sends a transaction, and waits for it.
    async fn transact(
        &self,
        what: &'static str,
        to: TxKind,
        value: U256,
        data: Bytes,
    ) -> Result<Done, OpsError> {
        let _turn = self.turn.lock().await;
        let failed = |source| OpsError::Ledger { what, source };
        let transaction = self.prepare(to, value, data).await.map_err(failed)?;
        let signed = self.wallet.sign(transaction);
        let sent: Result<B256, _> = self.rpc.ask("eth_sendRawTransaction", (signed.raw,)).await;
        match sent {
            // An answer that was lost does not say that the transaction was, too.
            Ok(_)
            | Err(
                LedgerError::Transaction { reason: Refusal::Known, .. } | LedgerError::Unavailable { .. },
            ) => {}
            Err(error) => return Err(failed(error)),
        }
        self.wait(what, signed.hash).await
    }

    async fn prepare(&self, to: TxKind, value: U256, data: Bytes) -> Result<TxEip1559, LedgerError> {
        let mut request = json!({ "from": self.address(), "value": value, "data": data });
        if let TxKind::Call(to) = to {
            request["to"] = json!(to);
        }
        let gas: U64 = self.rpc.ask("eth_estimateGas", (request,)).await?;
        let fees = evm::fees(&self.rpc).await?;
        let nonce: U64 = self.rpc.ask("eth_getTransactionCount", (self.address(), "pending")).await?;
        // Somebody else's transaction before ours may cost it some more.
        let gas_limit = (gas.to::<u64>() / 5).saturating_add(gas.to()).min(MOST_GAS);
        Ok(TxEip1559 {
            chain_id: self.chain_id,
            nonce: nonce.to(),
            gas_limit,
            // The base fee can double in six blocks.
            max_fee_per_gas: fees.base.saturating_mul(2).saturating_add(fees.tip),
            max_priority_fee_per_gas: fees.tip,
            to,
            value,
            access_list: Default::default(),
            input: data,
        })
    }

    async fn wait(&self, what: &'static str, hash: B256) -> Result<Done, OpsError> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            match evm::receipt(&self.rpc, hash).await {
                Ok(Some(receipt)) if receipt.status == U64::from(1) => return Ok(Done { hash, receipt }),
                Ok(Some(_)) => return Err(OpsError::Reverted { what, hash }),
                Ok(None) => {}
                Err(error) if error.is_outage() => {}
                Err(source) => return Err(OpsError::Ledger { what, source }),
            }
            if begun.elapsed() > self.patience {
                return Err(OpsError::Late { what, hash, waited: self.patience });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

impl Done {
    /// The event that this contract reported.
    fn event<E: SolEvent>(&self, what: &'static str, contract: Address) -> Result<E, OpsError> {
        let logs = self.receipt.logs.iter().filter(|log| log.address == contract);
        let decoded = logs.filter_map(|log| E::decode_raw_log(log.topics.iter().copied(), &log.data).ok());
        decoded.last().ok_or(OpsError::Receipt { what, hash: self.hash })
    }

    /// The contract that was created.
    fn created(&self, what: &'static str) -> Result<Address, OpsError> {
        self.receipt.contract_address.ok_or(OpsError::Receipt { what, hash: self.hash })
    }

    /// Gas that was used.
    fn gas(&self) -> u64 {
        self.receipt.gas_used.to()
    }
}

/// What a node does, as the registry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Mixes.
    Mix,
    /// Serves clients.
    Gateway,
}

impl From<NodeRole> for Role {
    fn from(role: NodeRole) -> Self {
        match role {
            NodeRole::Mix => Self::Mix,
            NodeRole::Gateway => Self::Gateway,
        }
    }
}

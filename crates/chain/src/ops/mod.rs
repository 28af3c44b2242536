//! What an account does on the chain by itself: deploy, deposit, reserve, stake, withdraw, and look at what it has.
//!
//! Each operation waits until it is in a block, and as many blocks have followed as are asked for. A revert is told in words, mostly before anything is sent: the server is
//! asked first what the transaction would use.

mod actions;
mod audit;
mod balances;
mod deploy;
mod history;

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use alloy_sol_types::{SolCall, SolEvent};
use serde_json::json;
use thiserror::Error;

pub use audit::Audit;
pub use balances::Balances;
pub use deploy::{Contracts, EscrowTerms};
pub use history::{Redemption, Redemptions, Reserve};

use crate::artifacts::ArtifactError;
use crate::bindings::Registry::Role;
use crate::evm::{self, EvmConfig, UrlError, rpc::Rpc};
use crate::ledger::{LedgerError, Refusal};
use crate::turn::Turn;
use crate::wallet::Wallet;

/// What a transaction may use at most (EIP-7825).
pub const MOST_GAS: u64 = 1 << 24;

/// Servers have receipts a moment later than they count transactions; those behind one address may differ for longer.
const RECEIPT_LAG: Duration = Duration::from_secs(30);

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
    /// It is in a block, and not as many blocks follow as are asked for.
    #[error(
        "{what}: the transaction {hash} is in block {block}, which {followed} of {confirmations} blocks follow, and no other one \
         comes; look before you repeat it"
    )]
    Unconfirmed {
        /// What was to be done.
        what: &'static str,
        /// The transaction.
        hash: B256,
        /// Its block.
        block: u64,
        /// Blocks behind it.
        followed: u64,
        /// As many as must be.
        confirmations: u64,
    },
    /// It never will be executed.
    #[error(
        "{what}: another transaction of this key took the place of {hash}; nothing was changed, try again"
    )]
    Replaced {
        /// What was to be done.
        what: &'static str,
        /// The transaction.
        hash: B256,
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
    confirmations: u64,
    /// One transaction after the other: each takes the next number.
    turn: Turn,
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
        let patience = Duration::from_secs(60);
        Ok(Self { rpc, wallet, chain_id, patience, confirmations: 0, turn: Turn::default() })
    }

    /// Waits longer for transactions, or less long.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Takes turns with whoever else sends with this key.
    #[must_use]
    pub fn with_turn(mut self, turn: Turn) -> Self {
        self.turn = turn;
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
        let block = evm::last_block(&self.rpc).await;
        let block =
            block.map_err(|source| OpsError::Ledger { what: "asking for the latest block", source })?;
        Ok(block.number)
    }

    /// Waits for each transaction until so many blocks have followed its own; with none, which is usual here, until it is in one.
    #[must_use]
    pub const fn with_confirmations(mut self, confirmations: u64) -> Self {
        self.confirmations = confirmations;
        self
    }

    /// Whether a transaction of this key was sent and is in no block yet.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn is_waiting(&self) -> Result<bool, OpsError> {
        let failed = |source| OpsError::Ledger { what: "counting transactions", source };
        let address = self.address();
        let sent: U64 =
            self.rpc.ask("eth_getTransactionCount", (address, "pending")).await.map_err(failed)?;
        Ok(sent.to::<u64>() > evm::nonce(&self.rpc, address).await.map_err(failed)?)
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
        let mut turn = self.turn.take().await;
        let failed = |source| OpsError::Ledger { what, source };
        let transaction = self.prepare(to, value, data).await.map_err(failed)?;
        let nonce = transaction.nonce;
        turn.note(nonce);
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
        self.wait(what, signed.hash, nonce).await
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

    /// Until it is where it must be. A block that is taken back is waited for again.
    async fn wait(&self, what: &'static str, hash: B256, nonce: u64) -> Result<Done, OpsError> {
        let mut since = Instant::now();
        let (mut pause, mut seen, mut passed_over) = (Duration::from_millis(20), None, None);
        loop {
            match self.look(what, hash, nonce).await {
                Ok(Look::There(receipt, followed)) if followed >= self.confirmations => {
                    return Ok(Done { hash, receipt });
                }
                Ok(look) => {
                    let place = look.place();
                    passed_over = match look {
                        Look::PassedOver => passed_over.or(Some(Instant::now())),
                        Look::Nowhere | Look::There(..) => None,
                    };
                    if passed_over.is_some_and(|since| since.elapsed() > RECEIPT_LAG) {
                        return Err(OpsError::Replaced { what, hash });
                    }
                    if place != seen {
                        (since, seen) = (Instant::now(), place);
                    }
                }
                Err(OpsError::Ledger { source, .. }) if source.is_outage() => {}
                Err(error) => return Err(error),
            }
            if since.elapsed() > self.patience {
                let (waited, confirmations) = (self.patience, self.confirmations);
                return Err(match seen {
                    Some((block, followed)) => {
                        OpsError::Unconfirmed { what, hash, block, followed, confirmations }
                    }
                    None => OpsError::Late { what, hash, waited },
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn look(&self, what: &'static str, hash: B256, nonce: u64) -> Result<Look, OpsError> {
        let failed = |source| OpsError::Ledger { what, source };
        // Before the receipt: what is executed in between has its receipt then.
        let next = evm::nonce(&self.rpc, self.wallet.address()).await.map_err(failed)?;
        match evm::receipt(&self.rpc, hash).await.map_err(failed)? {
            Some(receipt) if receipt.status == U64::from(1) => {
                let last = evm::last_block(&self.rpc).await.map_err(failed)?.number;
                let followed = last.saturating_sub(receipt.block_number.to());
                Ok(Look::There(receipt, followed))
            }
            Some(_) => Err(OpsError::Reverted { what, hash }),
            None if next > nonce => Ok(Look::PassedOver),
            None => Ok(Look::Nowhere),
        }
    }
}

/// Where a transaction is.
enum Look {
    Nowhere,
    /// Its number was used, and its receipt is not there: either by another one, or the server is not that far yet.
    PassedOver,
    /// In a block, which so many follow.
    There(evm::Receipt, u64),
}

impl Look {
    fn place(&self) -> Option<(u64, u64)> {
        match self {
            Self::Nowhere | Self::PassedOver => None,
            Self::There(receipt, followed) => Some((receipt.block_number.to(), *followed)),
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

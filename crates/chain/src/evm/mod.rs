//! A chain with an EVM, over JSON-RPC.

mod events;
mod reading;
pub(crate) mod rpc;
mod till;
mod wire;

use core::fmt;
use core::time::Duration;
use std::sync::OnceLock;

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_sol_types::SolCall;
use serde_json::json;
use tombola_tickets::Domain;

pub(crate) use events::logs;
pub use rpc::UrlError;
pub use till::EvmTill;
pub(crate) use wire::{Receipt, ReceiptLog, WireLog};

use crate::ledger::{Block, LedgerError};
use rpc::Rpc;
use wire::hex;

/// Which chain, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct EvmConfig {
    /// Of a JSON-RPC, `http://` or `https://`. May have a key in it, and is never shown.
    pub url: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl EvmConfig {
    /// With a timeout of ten seconds.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), timeout: Duration::from_secs(10) }
    }
}

impl fmt::Debug for EvmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvmConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// An escrow on an EVM chain.
#[derive(Clone, Debug)]
pub struct Evm {
    rpc: Rpc,
    domain: Domain,
    /// Asked for once: the escrow never has another one.
    registry: OnceLock<Address>,
}

impl Evm {
    /// Nothing is asked yet: see [`Ledger::check`](crate::Ledger::check).
    ///
    /// # Errors
    ///
    /// See [`UrlError`].
    pub fn new(config: &EvmConfig, domain: Domain) -> Result<Self, UrlError> {
        Ok(Self { rpc: Rpc::new(&config.url, config.timeout)?, domain, registry: OnceLock::new() })
    }

    /// Which escrow, on which chain.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    async fn read<C: SolCall>(&self, to: Address, call: &C, at: u64) -> Result<C::Return, LedgerError> {
        read(&self.rpc, to, call, hex(at)).await
    }

    async fn escrow<C: SolCall>(&self, call: &C, at: u64) -> Result<C::Return, LedgerError> {
        self.read(self.domain.escrow(), call, at).await
    }
}

/// Calls a function of a contract, whose effects are forgotten.
pub(crate) async fn read<C: SolCall>(
    rpc: &Rpc,
    to: Address,
    call: &C,
    at: serde_json::Value,
) -> Result<C::Return, LedgerError> {
    let request = json!({ "to": to, "data": Bytes::from(call.abi_encode()) });
    let output: Bytes = rpc.ask("eth_call", (request, at)).await?;
    // What is called returns something, always: only an account without code has nothing to say.
    if output.is_empty() {
        return Err(LedgerError::NoContract(to));
    }
    C::abi_decode_returns(&output).map_err(|error| LedgerError::Answer {
        method: "eth_call",
        what: format!("{}: {error}", C::SIGNATURE),
    })
}

/// The id of the chain.
pub(crate) async fn chain_id(rpc: &Rpc) -> Result<u64, LedgerError> {
    let id: U64 = rpc.ask("eth_chainId", ()).await?;
    Ok(id.to())
}

/// All that these contracts have reported since a block.
pub(crate) async fn all_logs(
    rpc: &Rpc,
    contracts: &[Address],
    from: u64,
) -> Result<Vec<ReceiptLog>, LedgerError> {
    let filter = json!({ "address": contracts, "fromBlock": hex(from), "toBlock": "latest" });
    rpc.ask("eth_getLogs", (filter,)).await
}

/// The last block.
pub(crate) async fn last_block(rpc: &Rpc) -> Result<Block, LedgerError> {
    let block: Option<wire::WireBlock> = rpc.ask("eth_getBlockByNumber", ("latest", false)).await?;
    let none = || LedgerError::Answer { method: "eth_getBlockByNumber", what: "no last block".into() };
    block.map(Block::from).ok_or_else(none)
}

/// What an account has of the chain's own money, in wei.
pub(crate) async fn balance(rpc: &Rpc, account: Address) -> Result<U256, LedgerError> {
    rpc.ask("eth_getBalance", (account, "latest")).await
}

/// How many transactions of an account were executed: the number of the next one.
pub(crate) async fn nonce(rpc: &Rpc, account: Address) -> Result<u64, LedgerError> {
    let nonce: U64 = rpc.ask("eth_getTransactionCount", (account, "latest")).await?;
    Ok(nonce.to())
}

/// The receipt of a transaction, if it was executed.
pub(crate) async fn receipt(rpc: &Rpc, hash: B256) -> Result<Option<Receipt>, LedgerError> {
    rpc.ask("eth_getTransactionReceipt", (hash,)).await
}

/// What gas costs: the base fee of the next block, and the server's idea of a tip.
pub(crate) async fn fees(rpc: &Rpc) -> Result<crate::ledger::Fees, LedgerError> {
    let history: wire::FeeHistory = rpc.ask("eth_feeHistory", (U64::from(1), "latest", [50.0])).await?;
    let base = history.base_fee_per_gas.last().copied().unwrap_or_default().to();
    // A chain without the method has no tips.
    let tip: Result<alloy_primitives::U128, _> = rpc.ask("eth_maxPriorityFeePerGas", ()).await;
    let tip = match tip {
        Ok(tip) => tip.to(),
        Err(LedgerError::Refused { .. }) => 0,
        Err(error) => return Err(error),
    };
    Ok(crate::ledger::Fees { base, tip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_in_an_address_is_not_shown() {
        let config = EvmConfig::new("https://example.org/v3/c0ffee");
        let shown = format!("{config:?}");
        assert!(shown.contains("10s") && !shown.contains("c0ffee"), "{shown}");
    }
}

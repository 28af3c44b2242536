//! The chain as a [`Till`].

use std::sync::Arc;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use serde_json::json;
use tombola_tickets::{UnixSeconds, WindowNumber};

use super::{Evm, fees, nonce, receipt};
use crate::ledger::{Executed, Fees, Ledger, LedgerError, Payment, Till};
use crate::wallet::{SignedTransaction, Wallet};

/// An escrow, and the key of a redeemer.
#[derive(Clone, Debug)]
pub struct EvmTill {
    evm: Evm,
    wallet: Arc<Wallet>,
}

impl EvmTill {
    /// The key should do nothing else: transactions that others send from it get into the way.
    #[must_use]
    pub const fn new(evm: Evm, wallet: Arc<Wallet>) -> Self {
        Self { evm, wallet }
    }

    fn sign(&self, payment: &Payment) -> SignedTransaction {
        self.wallet.sign(TxEip1559 {
            chain_id: self.evm.domain.chain_id(),
            nonce: payment.nonce,
            gas_limit: payment.gas,
            max_fee_per_gas: payment.max_fee,
            max_priority_fee_per_gas: payment.max_tip,
            to: TxKind::Call(self.evm.domain.escrow()),
            value: U256::ZERO,
            access_list: Default::default(),
            input: payment.data.clone(),
        })
    }
}

impl Till for EvmTill {
    async fn estimate(&self, data: &Bytes) -> Result<u64, LedgerError> {
        let request = json!({ "from": self.wallet.address(), "to": self.evm.domain.escrow(), "data": data });
        let gas: U64 = self.evm.rpc.ask("eth_estimateGas", (request,)).await?;
        Ok(gas.to())
    }

    async fn fees(&self) -> Result<Fees, LedgerError> {
        fees(&self.evm.rpc).await
    }

    async fn nonce(&self) -> Result<u64, LedgerError> {
        nonce(&self.evm.rpc, self.wallet.address()).await
    }

    fn hash(&self, payment: &Payment) -> B256 {
        self.sign(payment).hash
    }

    async fn send(&self, payment: &Payment) -> Result<(), LedgerError> {
        let raw = self.sign(payment).raw;
        let _: B256 = self.evm.rpc.ask("eth_sendRawTransaction", (raw,)).await?;
        Ok(())
    }

    async fn executed(&self, hash: B256) -> Result<Option<Executed>, LedgerError> {
        let found = receipt(&self.evm.rpc, hash).await?;
        Ok(found.map(|receipt| Executed {
            block: receipt.block_number.to(),
            success: receipt.status == U64::from(1),
        }))
    }

    async fn height(&self) -> Result<u64, LedgerError> {
        self.evm.block_number().await
    }

    async fn time(&self, number: u64) -> Result<Option<UnixSeconds>, LedgerError> {
        Ok(self.evm.block(number).await?.map(|block| block.time))
    }

    async fn payment_of(
        &self,
        issuer: Address,
        recipient: Address,
        window: WindowNumber,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, u128)>, LedgerError> {
        self.evm.payment_of(issuer, recipient, window, from, to).await
    }
}

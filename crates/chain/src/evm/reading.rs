//! The chain as a [`Ledger`].

use alloy_primitives::{Address, B256, Bytes, U64};
use tombola_tickets::{ClassNumber, PriceClass, UnixSeconds, WinProbability};

use super::wire::{WireBlock, hex, seconds};
use super::{Evm, chain_id, last_block, read};
use crate::bindings::Escrow;
use crate::ledger::{Accounts, Block, CheckError, Ledger, LedgerError, Logged, SignerState};

impl Evm {
    /// The registry that the escrow created.
    pub(super) async fn registry(&self) -> Result<Address, LedgerError> {
        if let Some(registry) = self.registry.get() {
            return Ok(*registry);
        }
        let found = read(&self.rpc, self.domain.escrow(), &Escrow::registryCall {}, "latest".into()).await?;
        Ok(*self.registry.get_or_init(|| found))
    }

    async fn block_by(&self, id: serde_json::Value) -> Result<Option<Block>, LedgerError> {
        let block: Option<WireBlock> = self.rpc.ask("eth_getBlockByNumber", (id, false)).await?;
        Ok(block.map(Block::from))
    }
}

impl Ledger for Evm {
    async fn check(&self) -> Result<(), CheckError> {
        let (found, expected) = (chain_id(&self.rpc).await?, self.domain.chain_id());
        if found != expected {
            return Err(CheckError::Chain { found, expected });
        }
        let escrow = self.domain.escrow();
        let code: Bytes = self.rpc.ask("eth_getCode", (escrow, "latest")).await?;
        if code.is_empty() {
            return Err(CheckError::NoEscrow(escrow));
        }
        match read(&self.rpc, escrow, &Escrow::domainSeparatorCall {}, "latest".into()).await {
            Ok(separator) if separator == self.domain.separator() => Ok(()),
            Ok::<B256, _>(_)
            | Err(LedgerError::Reverted(_) | LedgerError::NoContract(_) | LedgerError::Answer { .. }) => {
                Err(CheckError::OtherContract(escrow))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn head(&self) -> Result<Block, LedgerError> {
        last_block(&self.rpc).await
    }

    async fn block(&self, number: u64) -> Result<Option<Block>, LedgerError> {
        self.block_by(hex(number)).await
    }

    async fn events(&self, accounts: &Accounts, from: u64, to: u64) -> Result<Vec<Logged>, LedgerError> {
        self.events_of(accounts, from, to).await
    }

    async fn signers_added(&self, issuer: Address, from: u64, to: u64) -> Result<Vec<Address>, LedgerError> {
        self.signers_of(issuer, from, to).await
    }

    async fn deposit(&self, issuer: Address, at: u64) -> Result<u128, LedgerError> {
        let found = self.escrow(&Escrow::depositOfCall { issuer }, at).await?;
        Ok(found.balance.saturating_sub(found.unlocking))
    }

    async fn guarantee(&self, issuer: Address, recipient: Address, at: u64) -> Result<u128, LedgerError> {
        let found = self.escrow(&Escrow::guaranteeOfCall { issuer, recipient }, at).await?;
        Ok(found.try_into().unwrap_or(u128::MAX))
    }

    async fn signer(
        &self,
        issuer: Address,
        signer: Address,
        at: u64,
    ) -> Result<Option<SignerState>, LedgerError> {
        let found = self.escrow(&Escrow::signerOfCall { issuer, signer }, at).await?;
        Ok((found.lastExpiry != 0).then(|| SignerState {
            last_expiry: (found.lastExpiry != u64::MAX).then(|| seconds(found.lastExpiry)),
            cap: (found.cap != u128::MAX).then_some(found.cap),
        }))
    }

    async fn class(&self, class: ClassNumber, at: u64) -> Result<Option<PriceClass>, LedgerError> {
        let found = self.escrow(&Escrow::classOfCall { class: class.0 }, at).await?;
        if found.face == 0 {
            return Ok(None);
        }
        let win_probability = WinProbability::new(found.winProbability).map_err(|error| {
            LedgerError::Answer { method: "eth_call", what: format!("class {}: {error}", class.0) }
        })?;
        Ok(Some(PriceClass {
            face_value: found.face,
            win_probability,
            valid_from: UnixSeconds(found.validFrom),
            expiry: UnixSeconds(found.expiry),
            epoch: found.epoch,
        }))
    }
}

impl Evm {
    /// The number of the last block.
    ///
    /// # Errors
    ///
    /// See [`LedgerError`].
    pub async fn block_number(&self) -> Result<u64, LedgerError> {
        let number: U64 = self.rpc.ask("eth_blockNumber", ()).await?;
        Ok(number.to())
    }
}

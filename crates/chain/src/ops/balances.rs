//! What an account has.

use alloy_primitives::{Address, U256};
use tombola_tickets::{ClassNumber, PriceClass, UnixSeconds, WinProbability};

use super::{Contracts, Operator, OpsError};
use crate::bindings::{Escrow, Registry, TestToken};
use crate::evm;
use crate::ledger::LedgerError;
use crate::units::Units;

/// What an account has, in the smallest unit of the token unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    /// What gas is paid with, in wei.
    pub wei: U256,
    /// Tokens in its own hands.
    pub tokens: U256,
    /// Its deposit, what is under notice included.
    pub deposit: u128,
    /// Of that, what is under notice.
    pub unlocking: u128,
    /// When that may leave, in Unix seconds; 0 without notice.
    pub unlocks_at: u64,
    /// Earned by claims and not withdrawn.
    pub credits: u128,
    /// Drawn from stakes and not withdrawn.
    pub stake_credits: u128,
    /// What is left of its stake.
    pub stake: u128,
    /// When the stake may leave, in Unix seconds; 0 while it has not left.
    pub stake_leaves_at: u64,
}

impl Operator {
    /// What an account has now.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn balances(&self, contracts: &Contracts, account: Address) -> Result<Balances, OpsError> {
        let &Contracts { token, escrow, registry } = contracts;
        let wei = self.wei(account).await?;
        let deposit = self.read(escrow, &Escrow::depositOfCall { issuer: account }).await?;
        let node = self.read(registry, &Registry::nodeOfCall { account }).await?;
        Ok(Balances {
            wei,
            tokens: self.read(token, &TestToken::balanceOfCall { account }).await?,
            deposit: deposit.balance,
            unlocking: deposit.unlocking,
            unlocks_at: deposit.from,
            credits: self.read(escrow, &Escrow::creditOfCall { account }).await?,
            stake_credits: self.read(registry, &Registry::creditOfCall { account }).await?,
            stake: node.left,
            stake_leaves_at: node.releaseAt.to(),
        })
    }

    /// What an account has of the chain's own money, in wei.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn wei(&self, account: Address) -> Result<U256, OpsError> {
        let wei = evm::balance(&self.rpc, account).await;
        wei.map_err(|source| OpsError::Ledger { what: "reading a balance", source })
    }

    /// The token's decimals and symbol, as far as it has them: both are optional in the standard.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn units(&self, contracts: &Contracts) -> Result<Units, OpsError> {
        let decimals = said(self.read(contracts.token, &TestToken::decimalsCall {}).await)?;
        let symbol = said(self.read(contracts.token, &TestToken::symbolCall {}).await)?;
        let (decimals, symbol) = (decimals.unwrap_or_default(), symbol.unwrap_or_default());
        Ok(Units::new(decimals, &symbol))
    }

    /// What a contract may take of an account's tokens.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn allowance(
        &self,
        contracts: &Contracts,
        owner: Address,
        spender: Address,
    ) -> Result<U256, OpsError> {
        self.read(contracts.token, &TestToken::allowanceCall { owner, spender }).await
    }

    /// Which key claims for an account, and where its money goes when it leaves.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn roles(
        &self,
        contracts: &Contracts,
        account: Address,
    ) -> Result<(Address, Address), OpsError> {
        let redeemer = self.read(contracts.escrow, &Escrow::redeemerOfCall { recipient: account }).await?;
        Ok((redeemer, self.read(contracts.escrow, &Escrow::payoutOfCall { account }).await?))
    }

    /// What time the last block says it is, in Unix seconds.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn chain_time(&self) -> Result<u64, OpsError> {
        let block = evm::last_block(&self.rpc).await;
        let block = block.map_err(|source| OpsError::Ledger { what: "reading the last block", source })?;
        Ok(u64::from(block.time.0))
    }

    /// A reserve, and when it may leave, in Unix seconds; 0 without notice.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn reserve(
        &self,
        contracts: &Contracts,
        issuer: Address,
        recipient: Address,
    ) -> Result<(u128, u64), OpsError> {
        let found = self.read(contracts.escrow, &Escrow::reserveOfCall { issuer, recipient }).await?;
        Ok((found.balance, found.from))
    }

    /// A price class, if there is one.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn class(
        &self,
        contracts: &Contracts,
        class: ClassNumber,
    ) -> Result<Option<PriceClass>, OpsError> {
        let found = self.read(contracts.escrow, &Escrow::classOfCall { class: class.0 }).await?;
        let win_probability = WinProbability::new(found.winProbability).ok();
        Ok(win_probability.filter(|_| found.face > 0).map(|win_probability| PriceClass {
            face_value: found.face,
            win_probability,
            valid_from: UnixSeconds(found.validFrom),
            expiry: UnixSeconds(found.expiry),
            epoch: found.epoch,
        }))
    }

    /// The registry's current epoch.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn current_epoch(&self, contracts: &Contracts) -> Result<u32, OpsError> {
        self.read(contracts.registry, &Registry::currentEpochCall {}).await
    }
}

/// What a contract says, if it has the function.
fn said<T>(answer: Result<T, OpsError>) -> Result<Option<T>, OpsError> {
    match answer {
        Ok(said) => Ok(Some(said)),
        Err(OpsError::Ledger {
            source: LedgerError::Reverted(_) | LedgerError::NoContract(_) | LedgerError::Answer { .. },
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

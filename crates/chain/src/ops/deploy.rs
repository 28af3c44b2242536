//! New contracts, and those that an escrow belongs to.

use alloy_primitives::{Address, TxKind, U256};

use super::{Operator, OpsError};
use crate::artifacts;
use crate::bindings::Escrow;

/// The contracts of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contracts {
    /// In which everything is paid.
    pub token: Address,
    /// Deposits, reserves, claims.
    pub escrow: Address,
    /// Stakes.
    pub registry: Address,
}

/// Periods of an escrow, in seconds, and the least stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowTerms {
    /// From a class's `validFrom` to its `expiry`, at most.
    pub max_ticket_life: u32,
    /// Between announcing that money leaves and its leaving; longer.
    pub notice_period: u32,
    /// When epoch 0 begins, in Unix seconds.
    pub genesis: u64,
    /// How long epochs are.
    pub epoch_length: u32,
    /// What a node stakes at least, in the smallest unit of the token.
    pub min_stake: u128,
}

impl Operator {
    /// Deploys a token that anybody mints.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn deploy_token(&self, decimals: u8) -> Result<Address, OpsError> {
        let what = "deploying the token";
        let code = artifacts::test_token(decimals)?;
        self.transact(what, TxKind::Create, U256::ZERO, code).await?.created(what)
    }

    /// Deploys an escrow, which creates its registry.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn deploy_escrow(&self, token: Address, terms: &EscrowTerms) -> Result<Contracts, OpsError> {
        let what = "deploying the escrow";
        let code = artifacts::escrow(&Escrow::constructorCall {
            token_: token,
            maxTicketLife_: terms.max_ticket_life,
            noticePeriod_: terms.notice_period,
            genesis: terms.genesis,
            epochLength: terms.epoch_length,
            minStake: terms.min_stake,
        })?;
        let escrow = self.transact(what, TxKind::Create, U256::ZERO, code).await?.created(what)?;
        self.contracts(escrow).await
    }

    /// The contracts that belong to an escrow.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn contracts(&self, escrow: Address) -> Result<Contracts, OpsError> {
        let token = self.read(escrow, &Escrow::tokenCall {}).await?;
        let registry = self.read(escrow, &Escrow::registryCall {}).await?;
        Ok(Contracts { token, escrow, registry })
    }
}

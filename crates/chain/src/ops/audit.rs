//! All money of an escrow and its registry, from what they reported and from what they hold now: two ways that must agree.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, LogData, U256};
use alloy_sol_types::SolEventInterface;

use super::{Contracts, Operator, OpsError};
use crate::bindings::Escrow::EscrowEvents;
use crate::bindings::Registry::RegistryEvents;
use crate::bindings::{Escrow, Registry, TestToken};
use crate::evm;
use crate::ledger::LedgerError;

/// All money of an escrow and its registry, in the smallest unit of the token.
///
/// ```text
/// deposited = held + withdrawn + credited + burned        tokens = held + credited + burned
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// What has ever come in as deposits, reserves and stakes, as events say.
    pub deposited: u128,
    /// What has left, as events say.
    pub withdrawn: u128,
    /// What deposits, reserves and stakes are now, as the contracts say.
    pub held: u128,
    /// What was earned and has not left, as the contracts say.
    pub credited: u128,
    /// What was taken of stakes for good.
    pub burned: u128,
    /// What both contracts have of the token.
    pub tokens: U256,
    /// What claims have paid, by recipient, as events say.
    pub earned: BTreeMap<Address, u128>,
    /// What claims have cost, by issuer, as events say.
    pub spent: BTreeMap<Address, u128>,
}

impl Audit {
    /// Whether both ways agree, to the last unit.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.deposited == self.held + self.withdrawn + self.credited + self.burned
            && self.tokens == U256::from(self.held + self.credited + self.burned)
    }
}

/// Whose money is looked up.
#[derive(Debug, Default)]
struct Accounts {
    all: BTreeSet<Address>,
    reserves: BTreeSet<(Address, Address)>,
}

impl Operator {
    /// Counts all money, from block `from` on: that in which the escrow was deployed, or an earlier one. Asks for all events in
    /// one go, and for every account by itself: for chains of development.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn audit(&self, contracts: &Contracts, from: u64) -> Result<Audit, OpsError> {
        let what = "counting the money";
        let failed = |source| OpsError::Ledger { what, source };
        let logs = evm::all_logs(&self.rpc, &[contracts.escrow, contracts.registry], from).await;
        let (mut audit, mut accounts) = (Audit::default(), Accounts::default());
        for log in logs.map_err(failed)? {
            let data = LogData::new_unchecked(log.topics, log.data);
            let log = alloy_primitives::Log { address: log.address, data };
            let read = if log.address == contracts.escrow {
                EscrowEvents::decode_log(&log).map(|event| audit.escrow(&mut accounts, event.data))
            } else {
                RegistryEvents::decode_log(&log).map(|event| audit.registry(&mut accounts, event.data))
            };
            read.map_err(|error| {
                failed(LedgerError::Answer { method: "eth_getLogs", what: error.to_string() })
            })?;
        }
        let &Contracts { token, escrow, registry } = contracts;
        for account in accounts.all {
            audit.held += self.read(escrow, &Escrow::depositOfCall { issuer: account }).await?.balance;
            audit.held += self.read(registry, &Registry::nodeOfCall { account }).await?.left;
            audit.credited += self.read(escrow, &Escrow::creditOfCall { account }).await?;
            audit.credited += self.read(registry, &Registry::creditOfCall { account }).await?;
        }
        for (issuer, recipient) in accounts.reserves {
            audit.held += self.read(escrow, &Escrow::reserveOfCall { issuer, recipient }).await?.balance;
        }
        for account in [escrow, registry] {
            audit.tokens += self.read(token, &TestToken::balanceOfCall { account }).await?;
        }
        Ok(audit)
    }
}

impl Audit {
    fn escrow(&mut self, accounts: &mut Accounts, event: EscrowEvents) {
        match event {
            EscrowEvents::Deposited(e) => {
                self.deposited += amount(e.amount);
                accounts.all.insert(e.issuer);
            }
            EscrowEvents::ReserveFunded(e) => {
                self.deposited += amount(e.amount);
                accounts.all.extend([e.issuer, e.recipient]);
                accounts.reserves.insert((e.issuer, e.recipient));
            }
            EscrowEvents::DepositWithdrawn(e) => self.withdrawn += amount(e.amount),
            EscrowEvents::ReserveWithdrawn(e) => self.withdrawn += amount(e.amount),
            EscrowEvents::CreditsWithdrawn(e) => self.withdrawn += amount(e.amount),
            EscrowEvents::Redeemed(e) => {
                *self.earned.entry(e.recipient).or_default() += amount(e.paid);
                *self.spent.entry(e.issuer).or_default() += amount(e.paid);
                accounts.all.extend([e.issuer, e.recipient]);
            }
            _ => {}
        }
    }

    fn registry(&mut self, accounts: &mut Accounts, event: RegistryEvents) {
        match event {
            RegistryEvents::Joined(e) => {
                self.deposited += amount(e.stake);
                accounts.all.insert(e.account);
            }
            RegistryEvents::Penalised(e) => self.burned += amount(e.burned),
            RegistryEvents::ShareDrawn(e) => accounts.all.extend([e.issuer, e.recipient]),
            RegistryEvents::StakeWithdrawn(e) => self.withdrawn += amount(e.amount),
            RegistryEvents::CreditsWithdrawn(e) => self.withdrawn += amount(e.amount),
            RegistryEvents::Left(_) => {}
        }
    }
}

/// The contracts count in 128 bits.
fn amount(amount: U256) -> u128 {
    amount.try_into().unwrap_or(u128::MAX)
}

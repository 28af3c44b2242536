//! What became of an account's money, from the events of the contracts.

use std::collections::BTreeSet;

use alloy_primitives::{Address, U64};
use alloy_sol_types::SolEvent;
use serde_json::{Value, json};
use tombola_tickets::WindowNumber;

use super::{Contracts, Operator, OpsError};
use crate::bindings::Escrow;
use crate::evm::{self, WireLog};
use crate::ledger::LedgerError;

/// Blocks that are read at once; fewer, where the server wants it.
const RANGE: u64 = 2000;

/// A reserve of an issuer for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Who may rely on it.
    pub recipient: Address,
    /// What is in it, in the smallest unit of the token.
    pub balance: u128,
    /// When it may leave, in Unix seconds; 0 without notice.
    pub leaves_at: u64,
}

/// A window that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// Who paid.
    pub issuer: Address,
    /// Who was paid.
    pub recipient: Address,
    /// Which window.
    pub window: WindowNumber,
    /// How much, in the smallest unit of the token.
    pub paid: u128,
    /// In which block.
    pub block: u64,
}

/// What was redeemed, as far as it was read: reading goes on where it stopped.
#[derive(Clone, Debug, Default)]
pub struct Redemptions {
    /// The windows for which an account was paid, in the order in which they were claimed.
    pub earned: Vec<Redemption>,
    /// Those for which it has paid.
    pub spent: Vec<Redemption>,
    /// The first block that was not read.
    next: u64,
}

fn answer(what: &str) -> LedgerError {
    LedgerError::Answer { method: "eth_getLogs", what: what.to_owned() }
}

fn decode<E: SolEvent>(log: &WireLog) -> Result<E, LedgerError> {
    E::decode_raw_log(log.topics.iter().copied(), &log.data).map_err(|error| answer(&error.to_string()))
}

impl Operator {
    /// The reserves that an account has, in order of the recipients. `start`: the block in which the escrow was deployed, or an
    /// earlier one.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn reserves(
        &self,
        contracts: &Contracts,
        issuer: Address,
        start: u64,
    ) -> Result<Vec<Reserve>, OpsError> {
        let topics = json!([Escrow::ReserveFunded::SIGNATURE_HASH, issuer.into_word()]);
        let funded: Vec<Escrow::ReserveFunded> = self.events(contracts.escrow, topics, start).await?;
        let recipients: BTreeSet<Address> = funded.iter().map(|event| event.recipient).collect();
        let mut reserves = Vec::new();
        for recipient in recipients {
            let (balance, leaves_at) = self.reserve(contracts, issuer, recipient).await?;
            if balance > 0 || leaves_at > 0 {
                reserves.push(Reserve { recipient, balance, leaves_at });
            }
        }
        Ok(reserves)
    }

    /// What was put into a reserve, all in all.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn funded(
        &self,
        contracts: &Contracts,
        issuer: Address,
        recipient: Address,
        start: u64,
    ) -> Result<u128, OpsError> {
        let hash = Escrow::ReserveFunded::SIGNATURE_HASH;
        let topics = json!([hash, issuer.into_word(), recipient.into_word()]);
        let funded: Vec<Escrow::ReserveFunded> = self.events(contracts.escrow, topics, start).await?;
        let amounts = funded.iter().map(|event| u128::try_from(event.amount).unwrap_or(u128::MAX));
        Ok(amounts.fold(0, u128::saturating_add))
    }

    /// The windows for which an account was paid, and those for which it has paid, in the order in which they were claimed.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn redemptions(
        &self,
        contracts: &Contracts,
        account: Address,
        start: u64,
    ) -> Result<(Vec<Redemption>, Vec<Redemption>), OpsError> {
        let mut found = Redemptions::default();
        self.read_redemptions(contracts.escrow, account, start, &mut found).await?;
        Ok((found.earned, found.spent))
    }

    /// The same, with what was read before, and kept though something fails: repeat it, and it goes on from there.
    ///
    /// # Errors
    ///
    /// See [`OpsError`].
    pub async fn read_redemptions(
        &self,
        escrow: Address,
        account: Address,
        start: u64,
        found: &mut Redemptions,
    ) -> Result<(), OpsError> {
        let (hash, account) = (Escrow::Redeemed::SIGNATURE_HASH, account.into_word());
        let (head, mut range) = (self.head().await?, RANGE);
        found.next = found.next.max(start);
        while found.next <= head {
            let (from, to) = (found.next, head.min(found.next.saturating_add(range - 1)));
            let both = async {
                let earned = self.redeemed(escrow, json!([hash, null, account]), from, to).await?;
                Ok((earned, self.redeemed(escrow, json!([hash, account]), from, to).await?))
            };
            match both.await {
                Ok((earned, spent)) => {
                    found.earned.extend(earned);
                    found.spent.extend(spent);
                    found.next = to + 1;
                    range = (range + range.div_ceil(8)).min(RANGE);
                }
                Err(LedgerError::TooMuch(_)) if range > 1 => range /= 2,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    async fn redeemed(
        &self,
        escrow: Address,
        topics: Value,
        from: u64,
        to: u64,
    ) -> Result<Vec<Redemption>, LedgerError> {
        let logs = evm::logs(&self.rpc, json!(escrow), topics, from, to).await?;
        let redemption = |log: &WireLog| {
            let event: Escrow::Redeemed = decode(log)?;
            let (window, paid) = (u32::try_from(event.window), u128::try_from(event.paid));
            let (Ok(window), Ok(paid)) = (window, paid) else {
                return Err(answer("a number that the contract cannot have"));
            };
            let (issuer, recipient) = (event.issuer, event.recipient);
            let block = log.block_number.to();
            Ok(Redemption { issuer, recipient, window: WindowNumber(window), paid, block })
        };
        logs.iter().map(redemption).collect()
    }

    async fn head(&self) -> Result<u64, OpsError> {
        let head: U64 = self.rpc.ask("eth_blockNumber", ()).await.map_err(failed)?;
        Ok(head.to())
    }

    async fn events<E: SolEvent>(
        &self,
        contract: Address,
        topics: Value,
        start: u64,
    ) -> Result<Vec<E>, OpsError> {
        let logs = self.logs(contract, topics, start).await?;
        logs.iter().map(decode).collect::<Result<_, _>>().map_err(failed)
    }

    /// All logs of a contract from a block to the last one, range by range.
    async fn logs(&self, contract: Address, topics: Value, start: u64) -> Result<Vec<WireLog>, OpsError> {
        let (head, mut from, mut range) = (self.head().await?, start, RANGE);
        let mut logs = Vec::new();
        while from <= head {
            let to = head.min(from.saturating_add(range - 1));
            match evm::logs(&self.rpc, json!(contract), topics.clone(), from, to).await {
                Ok(found) => {
                    logs.extend(found);
                    from = to + 1;
                    range = (range + range.div_ceil(8)).min(RANGE);
                }
                Err(LedgerError::TooMuch(_)) if range > 1 => range /= 2,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(logs)
    }
}

fn failed(source: LedgerError) -> OpsError {
    OpsError::Ledger { what: "reading events", source }
}

//! Logs of the contracts, and what they say.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, LogData, U256};
use alloy_sol_types::{SolEvent, SolEventInterface};
use serde_json::{Value, json};
use tombola_tickets::WindowNumber;

use super::Evm;
use super::rpc::Rpc;
use super::wire::{WireLog, hex};
use crate::bindings::Escrow::{self, EscrowEvents};
use crate::ledger::{Accounts, Event, LedgerError, Logged};

fn answer(what: impl Into<String>) -> LedgerError {
    LedgerError::Answer { method: "eth_getLogs", what: what.into() }
}

/// An address as a topic.
fn topic(address: &Address) -> B256 {
    address.into_word()
}

/// An amount; the contracts count in 128 bits.
fn amount(amount: U256) -> Result<u128, LedgerError> {
    amount.try_into().map_err(|_| answer("an amount of more than 128 bits"))
}

fn window(number: U256) -> Result<WindowNumber, LedgerError> {
    number.try_into().map(WindowNumber).map_err(|_| answer("a window's number of more than 32 bits"))
}

fn event(log: &WireLog, escrow: Address) -> Result<Event, LedgerError> {
    if log.address != escrow {
        return Ok(Event::Other);
    }
    let data = LogData::new_unchecked(log.topics.clone(), log.data.clone());
    Ok(match EscrowEvents::decode_log(&alloy_primitives::Log { address: log.address, data }) {
        Ok(decoded) => match decoded.data {
            EscrowEvents::Redeemed(e) => Event::Redeemed {
                issuer: e.issuer,
                recipient: e.recipient,
                window: window(e.window)?,
                paid: amount(e.paid)?,
            },
            EscrowEvents::Shortfall(e) => Event::Shortfall {
                issuer: e.issuer,
                recipient: e.recipient,
                window: window(e.window)?,
                from_reserve: amount(e.fromReserve)?,
                from_stake: amount(e.fromStake)?,
            },
            EscrowEvents::SignerAdded(e) => Event::Signer { issuer: e.issuer, signer: e.signer },
            EscrowEvents::SignerCapped(e) => Event::Signer { issuer: e.issuer, signer: e.signer },
            EscrowEvents::SignerRevocation(e) => Event::Signer { issuer: e.issuer, signer: e.signer },
            _ => Event::Other,
        },
        Err(error) => return Err(answer(error.to_string())),
    })
}

/// The logs of some blocks.
pub(crate) async fn logs(
    rpc: &Rpc,
    addresses: Value,
    topics: Value,
    from: u64,
    to: u64,
) -> Result<Vec<WireLog>, LedgerError> {
    let filter = json!({
        "address": addresses, "topics": topics, "fromBlock": hex(from), "toBlock": hex(to),
    });
    let logs: Vec<WireLog> = rpc.ask("eth_getLogs", (filter,)).await?;
    let within = |log: &WireLog| !log.removed && (from..=to).contains(&log.block_number.to());
    if logs.iter().all(within) { Ok(logs) } else { Err(answer("logs of other blocks than were asked for")) }
}

impl Evm {
    async fn logs(
        &self,
        addresses: Value,
        topics: Value,
        from: u64,
        to: u64,
    ) -> Result<Vec<WireLog>, LedgerError> {
        logs(&self.rpc, addresses, topics, from, to).await
    }

    /// What happened to these accounts: those that come first in an event, and us wherever we come.
    pub(super) async fn events_of(
        &self,
        accounts: &Accounts,
        from: u64,
        to: u64,
    ) -> Result<Vec<Logged>, LedgerError> {
        let registry = self.registry().await?;
        let escrow = self.domain.escrow();
        let first: Vec<_> = accounts.issuers.iter().chain([&accounts.own]).map(topic).collect();
        let both = json!([escrow, registry]);
        let mut logs = self.logs(both.clone(), json!([null, first]), from, to).await?;
        logs.extend(self.logs(both, json!([null, null, topic(&accounts.own)]), from, to).await?);
        let mut places = BTreeMap::new();
        for log in &logs {
            places.insert((log.block_number.to::<u64>(), log.log_index.to::<u64>()), event(log, escrow)?);
        }
        Ok(places.into_iter().map(|((block, index), event)| Logged { block, index, event }).collect())
    }

    /// The keys that were added for an issuer.
    pub(super) async fn signers_of(
        &self,
        issuer: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<Address>, LedgerError> {
        let topics = json!([Escrow::SignerAdded::SIGNATURE_HASH, topic(&issuer)]);
        let logs = self.logs(json!(self.domain.escrow()), topics, from, to).await?;
        let signer = |log: &WireLog| log.topics.get(2).map(|topic| Address::from_word(*topic));
        logs.iter().map(|log| signer(log).ok_or_else(|| answer("an event without its topics"))).collect()
    }

    /// What was paid for a window, and in which block, if it was claimed in these blocks.
    pub(super) async fn payment_of(
        &self,
        issuer: Address,
        recipient: Address,
        window: WindowNumber,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, u128)>, LedgerError> {
        let topics = json!([Escrow::Redeemed::SIGNATURE_HASH, topic(&issuer), topic(&recipient)]);
        let logs = self.logs(json!(self.domain.escrow()), topics, from, to).await?;
        for log in &logs {
            match event(log, self.domain.escrow())? {
                Event::Redeemed { window: found, paid, .. } if found == window => {
                    return Ok(Some((log.block_number.to(), paid)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

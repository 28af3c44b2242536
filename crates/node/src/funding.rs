//! Fills the reserves of a node's other accounts: those from which a mix node pays gateways for its own loops.
//!
//! How much an account needs follows from what it emits and from its tickets that are not claimed yet, so it is looked after
//! while it pays. What is left in a reserve when its epoch is over belongs to an account that is not used again: as little as
//! possible is put there at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tombola_chain::ops::{Contracts, Operator, OpsError};
use tombola_chain::{Evm, EvmConfig, Ledger, LedgerError, Refusal, Turn, Wallet};
use tombola_tickets::{Address, ClassNumber, Domain, PriceClass, rough_quantile};
use tombola_topology::{Parameters, UnixTime};

use crate::clock::unix_now;
use crate::metrics::{ACCOUNT_RESERVES_LACKING, ACCOUNT_RESERVES_TOPPED_UP_TOTAL};
use crate::payment::PaymentConfig;
use crate::shutdown::Shutdown;

/// How often reserves are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// And how soon again when the last look failed.
const AGAIN: Duration = Duration::from_secs(5);
/// A reserve is topped up when it does not last so long.
const LOW: Duration = Duration::from_secs(2 * 3600);
/// Then it is filled for so long, or for the rest of the epoch.
const FULL: Duration = Duration::from_secs(24 * 3600);

/// An account that pays one gateway, in one epoch.
#[derive(Clone, Debug)]
pub struct Need {
    /// The account.
    pub account: Address,
    /// The gateway's.
    pub gateway: Address,
    /// What its tickets are.
    pub class: ClassNumber,
    /// Packets that it emits in a second, on average.
    pub rate: f64,
    /// When it ends.
    pub until: UnixTime,
    /// Its tickets that are signed and may still be claimed.
    pub outstanding: Arc<AtomicU64>,
}

/// What an account emits in a second, on average: as every client, and the probes of its node.
#[must_use]
pub fn rate_of(parameters: &Parameters) -> f64 {
    let Parameters { main_interval, loop_interval, drop_interval, mix_loop_interval, .. } = parameters;
    let intervals = [main_interval, loop_interval, drop_interval, mix_loop_interval];
    intervals.iter().map(|interval| 1.0 / interval.as_secs_f64().max(1e-6)).sum()
}

impl Need {
    /// What its reserve must have so that it does not stop within `time`, in the smallest unit of the token.
    fn within(&self, class: &PriceClass, time: Duration, now: u64) -> u128 {
        let left = Duration::from_secs(self.until.0.saturating_sub(now)).min(time);
        let tickets = self.outstanding.load(Ordering::Relaxed) as f64 + self.rate * left.as_secs_f64();
        reserve(class, tickets)
    }
}

/// What so many tickets may cost but for one case in 10^9, a little more than an account stops at, and one winner, on which its gateway
/// insists.
fn reserve(class: &PriceClass, tickets: f64) -> u128 {
    let mean = tickets * (class.win_probability.get() as f64 / 2_f64.powi(64));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of winners")]
    let winners = rough_quantile(mean).ceil() as u64;
    class.face_value.saturating_mul(u128::from(winners) + 1)
}

/// Fills reserves, from the tokens and the credit of the node's account.
#[derive(Debug)]
pub struct Funder {
    operator: Operator,
    evm: Evm,
    own: Address,
    limit: Option<u128>,
    start: u64,
    confirmations: u64,
    contracts: Option<Contracts>,
    /// What was last said: that there is not enough, or that there is.
    lacking: bool,
    /// What was put into reserves of this epoch's accounts, as the chain says.
    given: BTreeMap<Address, u128>,
}

impl Funder {
    pub(crate) fn new(
        config: &PaymentConfig,
        domain: Domain,
        wallet: Arc<Wallet>,
        own: Address,
        turn: Turn,
    ) -> Result<Self> {
        let chain = EvmConfig::new(&config.rpc_url);
        let limit = config.account_reserves.as_deref().map(|text| text.parse::<u128>());
        let limit = limit.transpose().context(
            "the key \"payment.account_reserves\" of the configuration is an amount in the smallest unit, digits in quotes",
        )?;
        Ok(Self {
            operator: Operator::new(&chain, domain.chain_id(), wallet)?.with_turn(turn),
            evm: Evm::new(&chain, domain)?,
            own,
            limit,
            start: config.start_block,
            confirmations: config.confirmations,
            contracts: None,
            lacking: false,
            given: BTreeMap::new(),
        })
    }

    /// Looks after the reserves of these accounts, until `stop` is triggered.
    pub async fn run(mut self, mut needs: watch::Receiver<Vec<Need>>, stop: Shutdown) {
        ::metrics::counter!(ACCOUNT_RESERVES_TOPPED_UP_TOTAL).increment(0);
        loop {
            let now = needs.borrow_and_update().clone();
            let pause = match self.look(&now).await {
                Ok(()) => EVERY,
                Err(error) => {
                    // An outage of the chain is logged by the watcher.
                    tracing::debug!(%error, "the reserves of this node's own accounts could not be looked after; trying again");
                    AGAIN
                }
            };
            tokio::select! {
                _ = stop.triggered() => return,
                changed = needs.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&mut self, needs: &[Need]) -> Result<()> {
        let contracts = match self.contracts {
            Some(contracts) => contracts,
            None => *self.contracts.insert(self.operator.contracts(self.evm.domain().escrow()).await?),
        };
        if self.operator.is_waiting().await? {
            // It may be one of ours, which would be sent twice.
            anyhow::bail!("a transaction of this key is in no block yet");
        }
        self.given.retain(|account, _| needs.iter().any(|need| need.account == *account));
        for Need { account, gateway, .. } in needs {
            if !self.given.contains_key(account) {
                let given = self.operator.funded(&contracts, *account, *gateway, self.start).await?;
                self.given.insert(*account, given);
            }
        }
        let mut lacking = 0_u64;
        let mut why = None;
        for need in needs {
            if let Err(error) = self.fill(&contracts, need).await {
                match error {
                    Lack::Of(reason) => {
                        lacking += 1;
                        why = Some(reason);
                    }
                    Lack::Chain(error) => {
                        // It may have been executed nevertheless.
                        self.given.clear();
                        return Err(error.into());
                    }
                }
            }
        }
        ::metrics::gauge!(ACCOUNT_RESERVES_LACKING).set(lacking as f64);
        match (why, self.lacking) {
            (Some(why), false) => {
                tracing::warn!("the reserves from which this node pays for its loops run low, and {why}");
            }
            (None, true) => {
                tracing::info!("the reserves from which this node pays for its loops are filled again");
            }
            _ => {}
        }
        self.lacking = lacking > 0;
        Ok(())
    }

    /// Tops one reserve up, if it is low.
    async fn fill(&mut self, contracts: &Contracts, need: &Need) -> Result<(), Lack> {
        let (now, account, gateway) = (unix_now(), need.account, need.gateway);
        let head = self.evm.head().await?.number;
        // A gateway does not count what is not final either; but what is under way is not sent twice.
        let final_one = self.evm.guarantee(account, gateway, head.saturating_sub(self.confirmations)).await?;
        let (reserve, _) = self.operator.reserve(contracts, account, gateway).await?;
        let Some(class) = self.evm.class(need.class, head).await? else { return Ok(()) };
        if reserve.max(final_one) >= need.within(&class, LOW, now) || need.until.0 <= now {
            return Ok(());
        }
        let missing = need.within(&class, FULL, now).saturating_sub(reserve);
        let amount = match self.limit {
            Some(limit) => {
                let given = self.given.values().fold(0, |sum: u128, given| sum.saturating_add(*given));
                missing.min(limit.saturating_sub(given))
            }
            None => missing,
        };
        if amount == 0 {
            let limit = self.limit.unwrap_or_default();
            return Err(Lack::Of(format!(
                "`account_reserves` allows no more than {limit} in an epoch; loops end when the reserves are used up"
            )));
        }
        self.pay(contracts, need, amount).await?;
        let given = self.given.entry(account).or_default();
        *given = given.saturating_add(amount);
        ::metrics::counter!(ACCOUNT_RESERVES_TOPPED_UP_TOTAL).increment(1);
        tracing::info!(amount, "a reserve from which this node pays for its loops was topped up");
        Ok(())
    }

    async fn pay(&self, contracts: &Contracts, need: &Need, amount: u128) -> Result<(), Lack> {
        let key = self.operator.address();
        let mut have = self.operator.balances(contracts, key).await?;
        if u128::try_from(have.tokens).unwrap_or(u128::MAX) < amount {
            // What was earned pays for loops, if it goes to this key.
            let credits = self.operator.balances(contracts, self.own).await?.credits;
            let (redeemer, payout) = self.operator.roles(contracts, self.own).await?;
            if credits > 0 && payout == key && (redeemer == key || self.own == key) {
                self.operator.withdraw_credits(contracts, self.own).await.map_err(|error| gas(error, key))?;
                have = self.operator.balances(contracts, key).await?;
            }
        }
        if u128::try_from(have.tokens).unwrap_or(u128::MAX) < amount {
            return Err(Lack::Of(format!(
                "{key} has {} of the token's smallest unit and needs {amount}: send it tokens; loops end when the reserves are used up",
                have.tokens
            )));
        }
        let (account, gateway) = (need.account, need.gateway);
        self.operator.allow(contracts, contracts.escrow, amount).await.map_err(|error| gas(error, key))?;
        let funded = self.operator.fund_reserve(contracts, account, gateway, amount).await;
        funded.map_err(|error| gas(error, key)).map(drop)
    }
}

/// Why a reserve was not filled.
enum Lack {
    /// There is too little of something.
    Of(String),
    /// The chain did not do it.
    Chain(OpsError),
}

impl From<OpsError> for Lack {
    fn from(error: OpsError) -> Self {
        Self::Chain(error)
    }
}

impl From<LedgerError> for Lack {
    fn from(source: LedgerError) -> Self {
        Self::Chain(OpsError::Ledger { what: "reading a reserve", source })
    }
}

fn gas(error: OpsError, key: Address) -> Lack {
    match error {
        OpsError::Ledger { source: LedgerError::Transaction { reason: Refusal::Funds, .. }, .. } => {
            Lack::Of(format!("{key} cannot pay for gas: send it some of the chain's own money"))
        }
        error => Lack::Chain(error),
    }
}

#[cfg(test)]
mod tests {
    use tombola_tickets::{UnixSeconds, WinProbability};

    use super::*;

    fn class() -> PriceClass {
        PriceClass {
            face_value: 1000,
            win_probability: WinProbability::from_ratio(1, 100).unwrap(),
            valid_from: UnixSeconds(0),
            expiry: UnixSeconds(u32::MAX),
            epoch: 0,
        }
    }

    fn need(outstanding: u64) -> Need {
        Need {
            account: Address::repeat_byte(1),
            gateway: Address::repeat_byte(2),
            class: ClassNumber(0),
            rate: 20.0,
            until: UnixTime(1_000_000),
            outstanding: Arc::new(AtomicU64::new(outstanding)),
        }
    }

    #[test]
    fn a_reserve_is_more_than_what_is_likely_and_not_much_more() {
        // 20 packets a second, one in 100 wins: 1440 in two hours.
        let two_hours = need(0).within(&class(), LOW, 0);
        assert!(two_hours > (1440 + 6 * 38) * 1000 && two_hours < 1750 * 1000, "{two_hours}");
        let day = need(0).within(&class(), FULL, 0);
        assert!(day > 12 * 1440 * 1000 && day < 13 * 1440 * 1000, "{day}");
        // What is not claimed yet needs its own.
        assert!(need(100_000).within(&class(), LOW, 0) > two_hours + 1000 * 1000);
        // Near the end of the epoch only what is left counts, and after it only what is not claimed.
        let late = need(0).within(&class(), FULL, 1_000_000 - 60);
        assert!(late < 50 * 1000, "{late}");
        assert_eq!(need(0).within(&class(), FULL, 2_000_000), reserve(&class(), 0.0));
    }

    #[test]
    fn few_tickets_need_what_their_account_stops_at() {
        // The account's own bound is at most this: see `Solvency`.
        assert!(reserve(&class(), 0.0) >= 1000);
        assert!(reserve(&class(), 1.0) >= 3 * 1000);
        assert_eq!(reserve(&PriceClass { face_value: u128::MAX, ..class() }, 1e9), u128::MAX);
    }
}

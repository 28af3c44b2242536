//! The core, a clock and a till.

use core::time::Duration;

use tokio::sync::mpsc;
use tombola_tickets::{UnixSeconds, WindowNumber};

use super::core::{Core, Decision, Draft, Key, Next, Shortfall, Terms};
use super::{Notice, Order};
use crate::bindings::Escrow::EscrowErrors;
use crate::ledger::{LedgerError, Payment, Refusal, Till};
use crate::revert::{Revert, claimed_window};
use crate::turn::{Held, Turn};
use crate::watcher::Settled;

/// A transaction that waits for others in so many looks in a row waits in vain.
const BEHIND: u32 = 3;
/// How often another transaction of ours, from before a restart, is outbid.
const MOST_BIDS: usize = 24;

/// How the redeemer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedeemerConfig {
    /// What is paid for, and when.
    pub terms: Terms,
    /// How often a transaction that is under way is looked at.
    pub interval: Duration,
    /// So many blocks must follow a payment that is looked up; as the watcher's.
    pub confirmations: u64,
    /// Where the search for payments ends: the block in which the escrow was deployed, or an earlier one.
    pub start: u64,
    /// Blocks that are searched at once.
    pub range: u64,
}

impl RedeemerConfig {
    /// For a public chain.
    #[must_use]
    pub const fn new(terms: Terms) -> Self {
        Self { terms, interval: Duration::from_secs(4), confirmations: 12, start: 0, range: 2000 }
    }
}

/// Redeems until nobody gives it orders any more.
#[derive(Debug)]
pub struct Redeemer<T> {
    till: T,
    config: RedeemerConfig,
    core: Core,
    failures: u32,
    /// What was said and is not said again.
    said: Vec<Notice>,
    turn: Turn,
    /// While a transaction is under way that is in no block.
    held: Option<Held>,
    /// In how many looks in a row the transaction under way waited for others.
    behind: u32,
}

impl<T: Till> Redeemer<T> {
    /// Without claims. `seed` is random: it decides how long claims wait.
    #[must_use]
    pub fn new(till: T, config: RedeemerConfig, seed: [u8; 32]) -> Self {
        let core = Core::new(config.terms, seed);
        Self {
            till,
            config,
            core,
            failures: 0,
            said: Vec::new(),
            turn: Turn::default(),
            held: None,
            behind: 0,
        }
    }

    /// Takes turns with whoever else sends with the redeemer's key.
    #[must_use]
    pub fn with_turn(mut self, turn: Turn) -> Self {
        self.turn = turn;
        self
    }

    /// Claims that are not settled.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.core.len()
    }

    /// Takes orders and tells what happens. `clock` is the chain's time, as well as it is known. Ends when nobody orders or
    /// listens any more; what is not settled then is told again after a restart.
    pub async fn run(
        mut self,
        clock: impl Fn() -> UnixSeconds + Send,
        mut orders: mpsc::Receiver<Order>,
        notices: mpsc::Sender<Notice>,
    ) {
        loop {
            let mut told = Vec::new();
            let pause = self.step(clock(), &mut told).await;
            for notice in told {
                if notices.send(notice).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                order = orders.recv() => match order {
                    Some(order) => {
                        self.order(order, clock());
                        while let Ok(order) = orders.try_recv() {
                            self.order(order, clock());
                        }
                    }
                    None => return,
                },
            }
        }
    }

    /// Takes an order.
    pub fn order(&mut self, order: Order, now: UnixSeconds) {
        match order {
            Order::Claim(claim, class) => self.core.add(*claim, class, now),
            Order::Settled(key) => {
                self.core.settle(key);
            }
            Order::Keep(claim, class) => self.core.keep(*claim, class),
            Order::Withdrawn(key) => self.core.unsettle(key, now),
            Order::Reorganised => self.core.reorganised(now),
            Order::Hasten => self.core.hasten(now),
        }
    }

    /// Does what is next, and says how long there is nothing to do then.
    pub async fn step(&mut self, now: UnixSeconds, told: &mut Vec<Notice>) -> Duration {
        let mut expired = Vec::new();
        let next = self.core.next(now, &mut expired);
        told.extend(expired.into_iter().map(Notice::Expired));
        let done = match next {
            Next::Wait(until) => {
                let seconds = u64::from(until.0.saturating_sub(now.0)).clamp(1, 60);
                return Duration::from_secs(seconds).max(self.config.interval);
            }
            Next::Look => self.look(now, told).await,
            Next::LookUp(key) => self.look_up(key, now, told).await,
            Next::Quote(draft) => self.quote(draft, now, told).await,
        };
        if self.core.under_way().is_none_or(|under_way| under_way.mined.is_some()) {
            self.held = None;
        }
        match done {
            Ok(again) => {
                self.failures = 0;
                if again { Duration::ZERO } else { self.config.interval }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                metrics::counter!("tombola_chain_errors_total").increment(1);
                // The watcher says that the server is gone; this would say it twice.
                tracing::debug!(%error, "claims could not be redeemed; trying again");
                self.config.interval.saturating_mul(1 << self.failures.min(5)).min(Duration::from_secs(60))
            }
        }
    }

    fn say_once(&mut self, notice: Notice, told: &mut Vec<Notice>) {
        let kind = core::mem::discriminant(&notice);
        if !self.said.iter().any(|said| core::mem::discriminant(said) == kind) {
            self.said.push(notice.clone());
            told.push(notice);
        }
    }

    /// Whether there is something to do at once.
    async fn quote(
        &mut self,
        draft: Draft,
        now: UnixSeconds,
        told: &mut Vec<Notice>,
    ) -> Result<bool, LedgerError> {
        let gas = match self.till.estimate(&draft.data).await {
            Ok(gas) => gas,
            Err(error) => return self.not_estimated(&draft, error, now, told),
        };
        if self.held.is_none() {
            // Not before somebody else's is in a block: both would have one number.
            let Some(held) = self.turn.try_take() else { return Ok(false) };
            self.held = Some(held);
        }
        let (fees, nonce) = (self.till.fees().await?, self.till.nonce().await?);
        match self.core.quoted(&draft, gas, fees, nonce, now) {
            Decision::Split => Ok(true),
            Decision::GiveUp(key) => {
                told.push(Notice::GivenUp(key));
                Ok(true)
            }
            Decision::Loss { cost, worth } => {
                self.say_once(Notice::Loss { cost, worth }, told);
                Ok(true)
            }
            Decision::Dear => {
                self.say_once(Notice::Dear, told);
                Ok(true)
            }
            Decision::Send(payment) => self.send(&draft, payment, now, told).await,
        }
    }

    fn not_estimated(
        &mut self,
        draft: &Draft,
        error: LedgerError,
        now: UnixSeconds,
        told: &mut Vec<Notice>,
    ) -> Result<bool, LedgerError> {
        let (reason, kind) = (error.to_string(), kind_of(&error));
        match error {
            LedgerError::Reverted(Revert::Escrow(EscrowErrors::NotRedeemer(_))) => {
                self.say_once(Notice::NotRedeemer, told);
                self.core.put_off(&draft.claims, now);
                return Ok(true);
            }
            LedgerError::Reverted(Revert::Escrow(EscrowErrors::TooLittle(error))) => {
                match self.core.too_little(draft, error.paid, now) {
                    Shortfall::Less => return Ok(true),
                    Shortfall::Waits => {}
                    Shortfall::GivenUp(key) => {
                        told.push(Notice::GivenUp(key));
                        return Ok(true);
                    }
                }
            }
            LedgerError::Reverted(revert) => match claimed_window(&revert) {
                Some((issuer, window)) if self.core.already_claimed((issuer, WindowNumber(window)), now) => {
                    return Ok(true);
                }
                _ => self.core.refused(draft, now),
            },
            LedgerError::Transaction { reason: Refusal::Funds, .. } => {
                self.say_once(Notice::Poor, told);
                self.core.put_off(&draft.claims, now);
                return Ok(true);
            }
            LedgerError::Transaction { .. } => self.core.refused(draft, now),
            error => return Err(error),
        }
        if let [key] = draft.claims[..] {
            told.push(Notice::Refused { key, reason, kind });
        }
        Ok(true)
    }

    async fn send(
        &mut self,
        draft: &Draft,
        mut payment: Payment,
        now: UnixSeconds,
        told: &mut Vec<Notice>,
    ) -> Result<bool, LedgerError> {
        for _ in 0..MOST_BIDS {
            let reason = match self.till.send(&payment).await {
                Ok(()) => None,
                Err(LedgerError::Transaction { reason, message }) => Some((reason, message)),
                // An answer that was lost does not say that the transaction was, too.
                Err(error) if error.is_outage() => {
                    self.core.sent(draft, payment, now);
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            match reason {
                None | Some((Refusal::Known, _)) => {
                    self.said.clear();
                    told.push(Notice::Sent { windows: draft.claims.len(), again: 0 });
                    self.core.sent(draft, payment, now);
                    return Ok(false);
                }
                // Not a transaction of this process, which would be lost: it is waited for.
                Some((Refusal::Underpriced, _)) if self.is_noted(payment.nonce) => break,
                Some((Refusal::Underpriced, _)) => match self.core.outbid(&payment) {
                    Some(higher) => payment = higher,
                    None => break,
                },
                Some((Refusal::Funds, _)) => {
                    self.say_once(Notice::Poor, told);
                    break;
                }
                // Something was executed, or fees rose, since they were asked for.
                Some((Refusal::NonceTooLow | Refusal::FeeTooLow | Refusal::NonceTooHigh, _)) => break,
                Some((refusal @ (Refusal::TooLarge | Refusal::Other), message)) => {
                    self.core.refused(draft, now);
                    if let [key] = draft.claims[..] {
                        let kind = refusal_kind(refusal);
                        told.push(Notice::Refused { key, reason: message, kind });
                    }
                    return Ok(true);
                }
            }
        }
        self.core.put_off(&draft.claims, now);
        Ok(true)
    }

    fn is_noted(&self, number: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.was_noted(number))
    }

    async fn look(&mut self, now: UnixSeconds, told: &mut Vec<Notice>) -> Result<bool, LedgerError> {
        // Before the receipts: what is executed in between has its receipt then.
        let nonce = self.till.nonce().await?;
        for hash in self.core.hashes(|payment| self.till.hash(payment)) {
            if let Some(executed) = self.till.executed(hash).await? {
                self.core.mined(executed.block, executed.success, now);
                return Ok(false);
            }
        }
        let Some(ours) = self.core.under_way().and_then(|under_way| under_way.tries.first()) else {
            return Ok(false);
        };
        // Less: it waits for others, which a reorganisation took, and which are sent again only when nothing is under way. Or this
        // server is behind the one that was asked before.
        self.behind = if nonce < ours.nonce { self.behind + 1 } else { 0 };
        if nonce > ours.nonce || self.behind >= BEHIND {
            self.behind = 0;
            self.core.passed_over(now);
            return Ok(true);
        }
        if self.behind > 0 {
            return Ok(false);
        }
        let fees = self.till.fees().await?;
        let Some(payment) = self.core.not_mined(fees, now) else { return Ok(false) };
        match self.till.send(&payment).await {
            Ok(()) | Err(LedgerError::Transaction { reason: Refusal::Known, .. }) => {
                let windows = self.core.under_way().map_or(0, |under_way| under_way.claims.len());
                let again = self.core.under_way().map_or(0, |under_way| under_way.tries.len());
                told.push(Notice::Sent { windows, again });
                self.core.replaced(payment);
            }
            Err(error) if error.is_outage() => {
                self.core.replaced(payment);
                return Err(error);
            }
            // It is raised, or found to be passed over, when it is looked at next.
            Err(LedgerError::Transaction { .. }) => self.core.replaced(payment),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    async fn look_up(
        &mut self,
        key: Key,
        now: UnixSeconds,
        told: &mut Vec<Notice>,
    ) -> Result<bool, LedgerError> {
        let height = self.till.height().await?;
        let found = match height.checked_sub(self.config.confirmations) {
            Some(last) => self.search(key, last).await?,
            None => None,
        };
        if let Some(amount) = found {
            let (issuer, window) = key;
            told.push(Notice::Settled(Settled { issuer, window, amount }));
        }
        self.core.paid(key, found.is_some(), now);
        Ok(found.is_some())
    }

    /// What was paid for a claim in the blocks until `to`, the newest first, and none from before it was valid: nobody was paid
    /// then.
    async fn search(&self, (issuer, window): Key, mut to: u64) -> Result<Option<u128>, LedgerError> {
        let recipient = self.config.terms.recipient;
        let mut range = self.config.range.max(1);
        let valid_from = self.core.valid_from(&(issuer, window)).unwrap_or(UnixSeconds(0));
        loop {
            let from = to.saturating_sub(range - 1).max(self.config.start);
            match self.till.payment_of(issuer, recipient, window, from, to).await {
                Ok(Some((_, amount))) => return Ok(Some(amount)),
                Ok(None) if from <= self.config.start => return Ok(None),
                Ok(None) => {
                    to = from - 1;
                    if self.till.time(to).await?.is_some_and(|time| time < valid_from) {
                        return Ok(None);
                    }
                }
                Err(LedgerError::TooMuch(_)) if range > 1 => range /= 2,
                Err(error) => return Err(error),
            }
        }
    }
}

/// What may be logged of an error.
fn kind_of(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Reverted(revert) => revert.kind(),
        LedgerError::Transaction { reason, .. } => refusal_kind(*reason),
        _ => "other",
    }
}

const fn refusal_kind(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::TooLarge => "transaction too large",
        _ => "transaction",
    }
}

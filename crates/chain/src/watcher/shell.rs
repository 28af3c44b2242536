//! The core, a clock and a ledger.

use core::mem::Discriminant;
use core::time::Duration;

use alloy_primitives::Address;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tombola_mixing::Rng;

use super::core::{Core, Pace, Step};
use super::cursor::Cursor;
use super::follow::{Extent, Follow, Known, Span};
use super::{Fact, Report};
use crate::ledger::{Ledger, LedgerError};

/// Ranges that are read in one cycle before what they have is reported.
const RANGES_AT_ONCE: u32 = 64;
/// The longest pause between two tries to reach the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the watcher watches, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherConfig {
    /// Our account, as issuer and as recipient.
    pub own: Address,
    /// How blocks are read.
    pub pace: Pace,
    /// How often the head is looked at.
    pub interval: Duration,
    /// How often deposits, guarantees and keys are read though no event told of a change: shares of stakes change with
    /// epochs.
    pub refresh: Duration,
}

impl WatcherConfig {
    /// Looks every four seconds, and reads everything again after five minutes.
    #[must_use]
    pub fn new(own: Address) -> Self {
        Self {
            own,
            pace: Pace::default(),
            interval: Duration::from_secs(4),
            refresh: Duration::from_secs(300),
        }
    }
}

/// Reads the chain until whoever takes the reports is gone.
#[derive(Debug)]
pub struct Watcher<L> {
    ledger: L,
    config: WatcherConfig,
    core: Core,
    follow: Follow,
    known: Known,
    refreshed: Option<Instant>,
    time: Option<tombola_tickets::UnixSeconds>,
    failures: u32,
    /// What kind of error was told when reading failed, until it works again.
    gone: Option<Discriminant<LedgerError>>,
    rng: Rng,
}

impl<L: Ledger> Watcher<L> {
    /// Goes on from a cursor. `seed` spreads the pauses of many nodes that lost the same server.
    #[must_use]
    pub fn new(ledger: L, config: WatcherConfig, cursor: Cursor, seed: [u8; 32]) -> Self {
        Self {
            ledger,
            config,
            core: Core::new(config.own, config.pace, cursor),
            follow: Follow::default(),
            known: Known::default(),
            refreshed: None,
            time: None,
            failures: 0,
            gone: None,
            rng: Rng::from_seed(seed),
        }
    }

    /// Whom it follows; can be changed at any time.
    #[must_use]
    pub fn follow(&self) -> Follow {
        self.follow.clone()
    }

    /// Watches, and hands out what becomes known. Ends when nobody takes it any more.
    pub async fn run(mut self, reports: mpsc::Sender<Report>) {
        let follow = self.follow.clone();
        // They are there before there is something to count.
        for name in ["tombola_chain_errors_total", "tombola_chain_reorganisations_total"] {
            metrics::counter!(name).increment(0);
        }
        loop {
            let (facts, more) = self.cycle().await;
            if !facts.is_empty() {
                let report = Report { facts, cursor: self.core.cursor().clone() };
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            let pause = if more { Duration::ZERO } else { self.pause() };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = follow.news() => {}
                () = reports.closed() => return,
            }
        }
    }

    /// One look at the chain: what has become known, and whether there is more to read at once.
    pub async fn cycle(&mut self) -> (Vec<Fact>, bool) {
        let mut facts = Vec::new();
        let read = self.read(&mut facts).await;
        // What was read before an error counts: each range is whole.
        let more = match read {
            Ok(more) => {
                self.failures = 0;
                if self.gone.take().is_some() {
                    tracing::info!("{}", Fact::Back);
                    facts.insert(0, Fact::Back);
                }
                more
            }
            Err(error) => {
                self.failed(&error, &mut facts);
                false
            }
        };
        metrics::gauge!("tombola_chain_reachable").set(if self.gone.is_some() { 0.0 } else { 1.0 });
        (facts, more)
    }

    async fn read(&mut self, facts: &mut Vec<Fact>) -> Result<bool, LedgerError> {
        let head = self.ledger.head().await?;
        if self.time != Some(head.time) {
            self.time = Some(head.time);
            facts.push(Fact::Time(head.time));
        }
        self.core.head(head);
        let accounts = self.follow.accounts(self.config.own);
        let mut ranges = 0;
        let read = loop {
            match self.core.next() {
                Step::Idle => break Ok(false),
                Step::Block(number) => match self.ledger.block(number).await {
                    Ok(block) => self.core.block(block),
                    Err(error) => break Err(error),
                },
                Step::Events { .. } if ranges == RANGES_AT_ONCE => break Ok(true),
                Step::Events { from, to } => match self.ledger.events(&accounts, from, to).await {
                    Ok(events) => {
                        ranges += 1;
                        self.core.events(events);
                    }
                    Err(LedgerError::TooMuch(message)) if !self.core.too_much() => {
                        break Err(LedgerError::TooMuch(message));
                    }
                    Err(LedgerError::TooMuch(_)) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        let found = self.core.take_facts();
        self.announce(&found);
        facts.extend(found);
        // State of long ago is kept by few servers, and of use to nobody.
        let more = read?;
        if !more {
            self.state(facts).await?;
        }
        Ok(more)
    }

    fn announce(&mut self, facts: &[Fact]) {
        for fact in facts {
            if let Fact::Reorganised { .. } = fact {
                // What counted as final was not: somebody may have been paid on the other chain.
                tracing::error!(
                    "{fact}; the chain, or its server, is not to be trusted; wait for more confirmations"
                );
                metrics::counter!("tombola_chain_reorganisations_total").increment(1);
                self.known.forget();
            }
        }
    }

    /// Reads state when an event told of a change, something new is followed, or it was not for long.
    async fn state(&mut self, facts: &mut Vec<Fact>) -> Result<(), LedgerError> {
        let Some(place) = self.core.cursor().last() else { return Ok(()) };
        for (issuer, signer) in self.core.take_signers() {
            self.known.add_signer(issuer, signer);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("tombola_chain_final_block").set(place.number as f64);
        let stale = self.refreshed.is_none_or(|at| at.elapsed() >= self.config.refresh);
        let changed = self.core.take_changed();
        if !changed && !stale && !self.known.lacks(&self.follow, self.config.own, place.number) {
            return Ok(());
        }
        let Pace { start, range, .. } = self.config.pace;
        let span = Span { start, range, at: place.number };
        let own = self.config.own;
        if !changed && !stale {
            return self.known.read(&self.ledger, &self.follow, own, span, Extent::New, facts).await;
        }
        // After an error again in the next cycle.
        self.refreshed = None;
        self.known.read(&self.ledger, &self.follow, own, span, Extent::All, facts).await?;
        self.refreshed = Some(Instant::now());
        Ok(())
    }

    fn failed(&mut self, error: &LedgerError, facts: &mut Vec<Fact>) {
        self.failures = self.failures.saturating_add(1);
        metrics::counter!("tombola_chain_errors_total").increment(1);
        tracing::debug!(%error, "the chain could not be read");
        // A server that answers at last may answer something that a person must see to.
        let before = self.gone.replace(core::mem::discriminant(error));
        if before != self.gone {
            tracing::warn!("{error}; what is on the chain is not known meanwhile; trying again");
        }
        if before.is_none() {
            facts.push(Fact::Gone);
        }
    }

    /// Doubles with every failure, and is spread over its second half.
    fn pause(&mut self) -> Duration {
        if self.failures == 0 {
            return self.config.interval;
        }
        let doubled = self.config.interval.saturating_mul(1 << self.failures.min(16));
        let longest = doubled.min(LONGEST_PAUSE.max(self.config.interval));
        longest / 2 + self.rng.uniform(longest / 2)
    }
}

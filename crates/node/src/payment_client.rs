//! How a client pays its gateway: an account with a reserve for that gateway, and no deposit.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tombola_chain::watcher::{Cursor, Fact as ChainFact, Follow, Pace, Watcher, WatcherConfig};
use tombola_chain::{Evm, EvmConfig, Ledger, LedgerError};
use tombola_mixing::Time;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::payment::{Account, Fact, Payments, Setting};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_tickets::{Address, ClassNumber, SignerKey};
use tombola_topology::{IdentityKey, Network, Parameters};

use crate::clock::Clock;
use crate::derive::random_seed;
use crate::payment::{PaymentConfig, Prices, classes_of, domain_of, kept_classes, limits, prices};
use crate::purse::{Purse, PurseFile};
use crate::shutdown::Shutdown;

/// Reports that may wait.
const CHANNEL: usize = 64;

/// Where a client's payment leads.
#[derive(Clone, Debug)]
pub struct ClientChain {
    /// The chain.
    pub evm: Evm,
    /// What tickets are worth, as far as it is known in this process.
    pub(crate) prices: Prices,
    /// Blocks that must follow before something counts.
    pub confirmations: u64,
    /// The block in which the escrow was deployed, or an earlier one.
    pub start_block: u64,
    /// How often the chain is looked at.
    pub poll: Duration,
}

/// Who pays, and whom.
#[derive(Debug)]
pub struct ClientPayer<'a> {
    /// Signs for the account, which is its own.
    pub signer: SignerKey,
    /// The gateway's account.
    pub gateway: Address,
    /// Where what must survive is kept.
    pub file: &'a Path,
    /// The client's link identity.
    pub me: IdentityKey,
    /// The process's clock.
    pub clock: Clock,
    /// What the network's participants do alike.
    pub parameters: &'a Parameters,
}

impl ClientChain {
    /// Waits until the chain has said what tickets are worth.
    ///
    /// # Errors
    /// The chain is unusable, or another one than the document names.
    pub async fn open(config: &PaymentConfig, network: &Network, stop: &Shutdown) -> Result<Self> {
        let evm = Evm::new(&EvmConfig::new(&config.rpc_url), domain_of(network)?)?;
        let prices = prices(&evm, classes_of(network), config.confirmations, stop).await?;
        let prices = Prices::new(prices);
        let PaymentConfig { confirmations, start_block, poll, .. } = *config;
        Ok(Self { evm, prices, confirmations, start_block, poll })
    }

    /// Opens what a client has kept, and starts what tells it of its reserve and of price classes: `tell` says whether anybody
    /// listens. Waits for the chain only if something was kept of classes that are not known here.
    ///
    /// # Errors
    /// The file is unusable, the chain is, or the operating system gave no thread.
    pub async fn start<T: Future<Output = bool> + Send>(
        &self,
        payer: ClientPayer<'_>,
        drops: Arc<DropCounters>,
        tell: impl Fn(Fact) -> T + Send + Sync + 'static,
        stop: &Shutdown,
    ) -> Result<(Payments, Purse, ClassesFollowed)> {
        let ClientPayer { signer, gateway, file, me, clock, parameters } = payer;
        let (purse, kept) = PurseFile::open(file)?;
        // It may have paid in classes that the document does not name any more.
        let mut known = self.prices.all().clone();
        let missing: BTreeSet<_> =
            kept_classes(&kept).into_iter().filter(|class| !known.contains_key(class)).collect();
        if !missing.is_empty() {
            known.extend(prices(&self.evm, missing, self.confirmations, stop).await?);
        }
        let own = signer.address();
        let domain = *self.evm.domain();
        // It is never paid, so it opens no window.
        let account = Account { address: own, signer, secret: [0; 32].into(), domain };
        let setting = Setting {
            me,
            wall: WallClock { at_zero: UnixNanos(clock.unix_nanos(Time::ZERO)) },
            limits: limits(parameters, &known),
            drops,
            seed: random_seed()?,
        };
        let payments = Payments::new(clock.now(), account, setting, known, &kept);
        let mut payments =
            payments.map_err(|missing| anyhow::anyhow!("the chain does not know the classes {missing:?}"))?;
        if kept.is_empty() {
            // It may have paid before, from a file that is lost. Its gateway knows more of it than the chain.
            payments.begin_after_loss([]);
        }
        // The tick of the client's clock looks itself.
        let purse = purse.start(|_| {})?;
        let pace = Pace { confirmations: self.confirmations, start: self.start_block, ..Pace::default() };
        let watching = WatcherConfig { pace, interval: self.poll, ..WatcherConfig::new(own) };
        let watcher = Watcher::new(self.evm.clone(), watching, Cursor::default(), random_seed()?);
        let followed = ClassesFollowed(watcher.follow());
        let (evm, poll, confirmations, stop) =
            (self.evm.clone(), self.poll, self.confirmations, stop.clone());
        tokio::spawn(async move {
            let (reporting, reports) = mpsc::channel(CHANNEL);
            tokio::select! {
                _ = stop.triggered() => {}
                () = watcher.run(reporting) => {}
                () = follow(evm, own, gateway, poll, confirmations, reports, tell) => {}
            }
        });
        Ok((payments, purse, followed))
    }
}

/// Whose price classes a client is told of.
#[derive(Clone, Debug)]
pub struct ClassesFollowed(Follow);

impl ClassesFollowed {
    /// From now on those of all epochs of this document, too.
    pub fn network(&self, network: &Network) {
        classes_of(network).into_iter().for_each(|class| self.class(class));
    }

    /// From now on this one, too.
    pub fn class(&self, class: ClassNumber) {
        self.0.class(class);
    }
}

/// Tells what the gateway may rely on, which windows were claimed, and what classes are worth, until nobody listens.
async fn follow<T: Future<Output = bool> + Send>(
    evm: Evm,
    own: Address,
    gateway: Address,
    poll: Duration,
    confirmations: u64,
    mut reports: mpsc::Receiver<tombola_chain::watcher::Report>,
    tell: impl Fn(Fact) -> T + Send + Sync,
) {
    let mut known = None;
    let mut look = tokio::time::interval(poll);
    loop {
        tokio::select! {
            _ = look.tick() => {
                // An outage is logged by the watcher.
                let Ok(reserve) = reserve(&evm, own, gateway, confirmations).await else { continue };
                if known.replace(reserve) != Some(reserve) && !tell(Fact::Deposit(reserve)).await {
                    return;
                }
            }
            report = reports.recv() => {
                let Some(report) = report else { return };
                for fact in report.facts {
                    let fact = match fact {
                        ChainFact::Claimed(claimed) => {
                            let (recipient, window) = (claimed.recipient, claimed.window);
                            Fact::Claimed { recipient, window, spent: claimed.spent.total() }
                        }
                        ChainFact::Class { number, class } => Fact::Class(number, class),
                        _ => continue,
                    };
                    if !tell(fact).await {
                        return;
                    }
                }
            }
        }
    }
}

async fn reserve(evm: &Evm, own: Address, gateway: Address, confirmations: u64) -> Result<u128, LedgerError> {
    let head = evm.head().await?;
    evm.guarantee(own, gateway, head.number.saturating_sub(confirmations)).await
}

/// The account of a key that was derived.
///
/// # Errors
/// The bytes are no key, which happens to nobody.
pub fn signer_of(secret: &[u8; 32]) -> Result<SignerKey> {
    SignerKey::from_bytes(secret).context("the account's key")
}

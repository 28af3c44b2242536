//! How a client pays its gateway: an account with a reserve for that gateway, and no deposit.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tombola_chain::watcher::{Fact as ChainFact, Follow, Pace, Report, Watcher, WatcherConfig};
use tombola_chain::{Evm, EvmConfig, Ledger, LedgerError};
use tombola_mixing::Time;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::payment::{Account, Fact, Payments, Setting};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_tickets::{Address, ClassNumber, SignerKey};
use tombola_topology::{IdentityKey, Network, Parameters};

use crate::clock::Clock;
use crate::cursor::CursorFile;
use crate::derive::random_seed;
use crate::payment::{
    CLOCK_LOOK, CURSOR_LOOK, PaymentConfig, Prices, classes_of, domain_of, kept_classes, limits, prices,
    unix_seconds,
};
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

    /// Opens what a client has kept, and prepares what tells it of its reserve and of price classes: `tell` says whether anybody
    /// listens. Whoever is told calls [`Purse::note_fact`]. Waits for the chain only if something was kept of classes that are not
    /// known here.
    ///
    /// # Errors
    /// The file is unusable, the chain is, or the operating system gave no thread.
    pub async fn start<T: Future<Output = bool> + Send>(
        &self,
        payer: ClientPayer<'_>,
        drops: Arc<DropCounters>,
        tell: impl Fn(Fact) -> T + Send + Sync + 'static,
        stop: &Shutdown,
    ) -> Result<(Payments, Purse, ClientWatch)> {
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
        let path = file.with_extension("cursor");
        let (cursors, cursor) = CursorFile::open(&path, purse.facts_kept())?;
        // The tick of the client's clock looks itself.
        let purse = purse.start(|_| {})?;
        let pace = Pace { confirmations: self.confirmations, start: self.start_block, ..Pace::default() };
        let watching = WatcherConfig { pace, interval: self.poll, ..WatcherConfig::new(own) };
        let watcher = Watcher::new(self.evm.clone(), watching, cursor, random_seed()?);
        let follow = watcher.follow();
        let teller = Teller {
            evm: self.evm.clone(),
            own,
            gateway,
            poll: self.poll,
            confirmations: self.confirmations,
            cursors,
            tell,
            told: 0,
        };
        let stop = stop.clone();
        let work = async move {
            let (reporting, reports) = mpsc::channel(CHANNEL);
            tokio::select! {
                _ = stop.triggered() => {}
                () = watcher.run(reporting) => {}
                () = teller.run(reports) => {}
            }
        };
        Ok((payments, purse, ClientWatch { follow, work: Mutex::new(Some(Box::pin(work))), task: None }))
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells a client what the chain says, from [`Self::begin`] on until it is dropped.
pub struct ClientWatch {
    follow: Follow,
    /// Until it begins. In a lock because futures are not shared, and who holds this is.
    work: Mutex<Option<Work>>,
    task: Option<AbortHandle>,
}

impl ClientWatch {
    /// Begins; within a runtime. Whoever is told is there by then.
    pub fn begin(&mut self) {
        let work = self.work.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            self.task = Some(tokio::spawn(work).abort_handle());
        }
    }

    /// From now on it is told what the classes of all epochs of this document are worth, too.
    pub fn network(&self, network: &Network) {
        classes_of(network).into_iter().for_each(|class| self.class(class));
    }

    /// From now on of this one, too.
    pub fn class(&self, class: ClassNumber) {
        self.follow.class(class);
    }
}

impl Drop for ClientWatch {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}

impl std::fmt::Debug for ClientWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientWatch").finish_non_exhaustive()
    }
}

/// Tells what the gateway may rely on, which windows were claimed, and what classes are worth.
struct Teller<F> {
    evm: Evm,
    own: Address,
    gateway: Address,
    poll: Duration,
    confirmations: u64,
    cursors: CursorFile,
    tell: F,
    /// Facts that were told.
    told: u64,
}

impl<F, T> Teller<F>
where
    F: Fn(Fact) -> T + Send + Sync,
    T: Future<Output = bool> + Send,
{
    /// Until nobody listens.
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        let mut known = None;
        let (mut look, mut keep) = (tokio::time::interval(self.poll), tokio::time::interval(CURSOR_LOOK));
        let mut clock = tokio::time::interval(CLOCK_LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    // An outage is logged by the watcher.
                    let found = reserve(&self.evm, self.own, self.gateway, self.confirmations).await;
                    let Ok(reserve) = found else { continue };
                    if known.replace(reserve) != Some(reserve) && !self.tell(Fact::Deposit(reserve)).await {
                        return;
                    }
                }
                _ = keep.tick() => self.cursors.keep(),
                _ = clock.tick() => {
                    if !self.tell(Fact::Time(unix_seconds())).await {
                        return;
                    }
                }
                report = reports.recv() => {
                    let Some(Report { facts, cursor }) = report else { return };
                    for fact in facts {
                        let fact = match fact {
                            ChainFact::Claimed(claimed) => {
                                let (recipient, window) = (claimed.recipient, claimed.window);
                                Fact::Claimed { recipient, window, spent: claimed.spent.total() }
                            }
                            ChainFact::Class { number, class } => Fact::Class(number, class),
                            _ => continue,
                        };
                        if !self.tell(fact).await {
                            return;
                        }
                    }
                    self.cursors.push(self.told, cursor);
                }
            }
        }
    }

    async fn tell(&mut self, fact: Fact) -> bool {
        self.told += 1;
        (self.tell)(fact).await
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

//! Payment of a node: its account, what it keeps, and the chain behind it.
//!
//! The machine that pays and earns runs in the node's driver. Beside it run a watcher, which tells it what is so on the chain,
//! and a redeemer, which gets its claims paid. Both outlive outages of the chain's server; until it answers for the first time
//! the node waits, because it cannot know what its tickets are worth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tombola_chain::keystore::{Keystore, Password};
use tombola_chain::ops::{Operator, OpsError, Redemptions};
use tombola_chain::redeemer::{Notice, Order, Redeemer, RedeemerConfig, Terms};
use tombola_chain::watcher::{Cursor, Fact as ChainFact, Follow, Pace, Report, Watcher, WatcherConfig};
use tombola_chain::{CheckError, Evm, EvmConfig, EvmTill, Ledger, Turn, Wallet};
use tombola_mixing::Time;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::gate::Gate;
use tombola_protocol::payment::{Account, Fact, Payments, Setting, Side, Signs, terms_of};
use tombola_protocol::unix::{UnixNanos, WallClock};
use tombola_protocol::view::OpenViews;
use tombola_tickets::{
    Address, ClassNumber, Domain, Limits, PriceClass, Restore, SignerKey, UnixSeconds, WindowClaim,
};
use tombola_topology::{IdentityKey, Network, Parameters};

use crate::claims::{self, ClaimBook};
use crate::clock::{Clock, unix_time_now};
use crate::cursor::CursorFile;
use crate::derive::{derive_seed, random_seed};
use crate::driver::Inputs;
use crate::funding::Funder;
use crate::payment_client::ClientChain;
use crate::purse::{FILE, Purse, PurseFile, check_secret};
use crate::shutdown::Shutdown;

mod config;

pub use self::config::PaymentConfig;

/// How far the chain was read, in the data folder.
const CURSOR_FILE: &str = "chain.cursor";
/// How often it is looked whether what a report told is on disk: only then the next start may begin behind it.
pub(crate) const CURSOR_LOOK: Duration = Duration::from_secs(1);
/// How often payment is told what time it is.
pub(crate) const CLOCK_LOOK: Duration = Duration::from_secs(5);
/// How often a chain that does not answer at the start is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Reports, orders and notices that may wait.
const CHANNEL: usize = 1024;
/// Two cadences of control frames, and a second.
const AFTER_THE_LAST_PACKET: Duration = Duration::from_secs(3);
/// Before its class expires a window is claimed whatever its issuer says, this long or a quarter of the class's life.
const CLAIM_BEFORE_EXPIRY: u32 = 3600;

/// What comes to the driver.
#[derive(Debug)]
pub enum PaymentInput {
    /// What the chain says.
    Fact(Fact),
    /// So many changes are durable.
    Durable(u64),
}

/// The way from a driver to the chain.
#[derive(Clone, Debug)]
pub struct Bank {
    orders: mpsc::Sender<Order>,
    follow: Follow,
    prices: Prices,
    claims: ClaimBook,
    runtime: tokio::runtime::Handle,
}

/// Classes that the chain has confirmed. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prices(Arc<Mutex<BTreeMap<ClassNumber, PriceClass>>>);

impl Prices {
    pub(crate) fn new(prices: BTreeMap<ClassNumber, PriceClass>) -> Self {
        Self(Arc::new(Mutex::new(prices)))
    }

    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<ClassNumber, PriceClass>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bank {
    /// Gets winners paid. Never waits.
    pub fn claim(&self, claim: WindowClaim) {
        let Some(class) = self.prices.all().get(&claim.class).copied() else { return };
        // Thousands may wait, because the chain does not answer: none may be lost.
        let (claims, orders) = (self.claims.clone(), self.orders.clone());
        self.runtime.spawn(claims.hand_in(claim, class, orders));
    }

    /// Finds out what the chain says of an account that wants to pay us, and of the key that was shown for it.
    pub fn watch(&self, account: Address, signer: Address) {
        self.follow.client(account, signer);
    }

    /// It does not want to any more.
    pub fn forget(&self, account: Address, signer: Address) {
        self.follow.forget_client(account, signer);
    }

    /// What is won is claimed at once from now on: no claim waits for its time.
    pub async fn hasten(&self) {
        let _ = self.orders.send(Order::Hasten).await;
    }

    /// Follows the price classes of all epochs of a document: they are known when the epochs begin.
    pub fn network(&self, network: &Network) {
        classes_of(network).into_iter().for_each(|class| self.follow.class(class));
    }

    /// Follows whoever pays us in these epochs.
    pub fn follow(&self, views: &OpenViews) {
        for seat in views.iter() {
            for (_, side, terms) in terms_of(seat) {
                if side == Side::Earning {
                    self.follow.issuer(terms.account);
                }
            }
        }
    }
}

/// Who a node is, as far as payment goes.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    /// Where relative paths start.
    pub base: &'a Path,
    /// The folder of what must survive.
    pub data: &'a Path,
    /// The link identity.
    pub me: IdentityKey,
    /// The link identity's secret, from which the secret of windows is derived.
    pub secret: &'a [u8; 32],
    /// The node's clock.
    pub clock: Clock,
}

/// An account that is about to pay and to be paid.
#[derive(Debug)]
pub struct Paid {
    payments: Payments,
    purse: PurseFile,
    claims: (ClaimBook, Vec<Order>),
    evm: Evm,
    wallet: Arc<Wallet>,
    /// Of the redeemer and of the funder, whose key is the same.
    turn: Turn,
    prices: Prices,
    cursor: (CursorFile, Cursor),
    config: PaymentConfig,
    terms: Terms,
    own: Address,
    data: PathBuf,
}

impl Paid {
    /// Opens keys and files, and waits until the chain has said what tickets are worth.
    ///
    /// # Errors
    /// A key, a file or the chain is unusable, or another one than the document names.
    pub async fn open(
        config: &PaymentConfig,
        payer: Payer<'_>,
        network: &Network,
        drops: Arc<DropCounters>,
        stop: &Shutdown,
    ) -> Result<Self> {
        let domain = domain_of(network)?;
        let password = Password::read(&payer.base.join(&config.password))?;
        let keystore = Keystore::new(payer.base.join(&config.keystore));
        let bytes = keystore.open_bytes(&password)?;
        let signer = SignerKey::from_bytes(&bytes).context("the keystore's key")?;
        let wallet = Arc::new(Wallet::from_bytes(&bytes).context("the keystore's key")?);
        let own = config.account_of(wallet.address())?;
        let terms = config.terms(own)?;
        let evm = Evm::new(&EvmConfig::new(&config.rpc_url), domain)?;
        let path = payer.data.join(FILE);
        let (purse, kept) = PurseFile::open(&path)?;
        let secret = derive_seed(payer.secret, b"tombola/windows", &[]);
        check_secret(&path, &kept, &secret, &domain)?;
        let claims = ClaimBook::open(&payer.data.join(claims::FILE))?;
        let wanted = classes_of(network).union(&kept_classes(&kept)).copied().collect();
        let prices = prices(&evm, wanted, config.confirmations, stop).await?;
        let cursor = CursorFile::open(&payer.data.join(CURSOR_FILE), purse.facts_kept())?;
        let account = Account { address: own, signer, secret: (*secret).into(), domain };
        let setting = Setting {
            me: payer.me,
            wall: WallClock { at_zero: UnixNanos(payer.clock.unix_nanos(Time::ZERO)) },
            limits: limits(network.parameters(), &prices),
            drops,
            seed: random_seed()?,
        };
        let payments = Payments::new(payer.clock.now(), account, setting, prices.clone(), &kept);
        let mut payments =
            payments.map_err(|missing| anyhow::anyhow!("the chain does not know the classes {missing:?}"))?;
        if kept.is_empty() {
            // A new account, or one whose file is lost: the chain alone knows which windows were used.
            let chain = EvmConfig::new(&config.rpc_url);
            let operator = Operator::new(&chain, domain.chain_id(), Arc::clone(&wallet))?;
            payments.begin_after_loss(past_claims(&operator, domain.escrow(), own, config, stop).await?);
        }
        let prices = Prices::new(prices);
        let (config, data) = (config.clone(), payer.data.to_owned());
        let turn = Turn::default();
        Ok(Self { payments, purse, claims, evm, wallet, turn, prices, cursor, config, terms, own, data })
    }

    /// What fills the reserves of the owner's other accounts.
    ///
    /// # Errors
    /// The chain's address is unusable.
    pub fn funder(&self) -> Result<Funder> {
        let (wallet, turn) = (Arc::clone(&self.wallet), self.turn.clone());
        Funder::new(&self.config, *self.evm.domain(), wallet, self.own, turn)
    }

    /// Says to whoever opens packets which of them are paid for.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        self.payments.gate()
    }

    /// What clients of the same owner need of the chain.
    #[must_use]
    pub fn client_chain(&self) -> ClientChain {
        ClientChain {
            evm: self.evm.clone(),
            prices: self.prices.clone(),
            confirmations: self.config.confirmations,
            start_block: self.config.start_block,
            poll: self.config.poll,
        }
    }

    /// Starts watcher, redeemer and the thread that writes; what they say becomes inputs of the driver.
    ///
    /// # Errors
    /// The operating system gave no thread or no randomness.
    pub fn start<I: Send + 'static>(
        self,
        inputs: &Inputs<I>,
        input_of: impl Fn(PaymentInput) -> I + Clone + Send + Sync + 'static,
        stop: &Shutdown,
    ) -> Result<(Payments, Purse, Bank)> {
        let Self { payments, purse, claims, evm, wallet, turn, prices, cursor, config, terms, own, data } =
            self;
        let (claims, before) = claims;
        tokio::spawn(purse.earnings().tell(data, stop.clone()));
        let (wake, waking) = (inputs.clone(), input_of.clone());
        // Only to wake the driver: if there is no room, it is awake, and looks itself.
        let purse = purse.start(move |count| drop(wake.try_send(waking(PaymentInput::Durable(count)))))?;

        let pace = Pace { confirmations: config.confirmations, start: config.start_block, ..Pace::default() };
        let watching = WatcherConfig { pace, interval: config.poll, ..WatcherConfig::new(own) };
        let watcher = Watcher::new(evm.clone(), watching, cursor.1, random_seed()?);
        let redeeming = RedeemerConfig {
            interval: config.poll,
            confirmations: config.confirmations,
            start: config.start_block,
            ..RedeemerConfig::new(terms)
        };
        let redeemer = Redeemer::new(EvmTill::new(evm, wallet), redeeming, random_seed()?);
        let mut redeemer = redeemer.with_turn(turn);
        let clock = unix_seconds;
        // Before the watcher says that some of them are settled, or are not any more.
        before.into_iter().for_each(|order| redeemer.order(order, clock()));

        let (orders, ordered) = mpsc::channel(CHANNEL);
        let (reporting, reports) = mpsc::channel(CHANNEL);
        let (noticing, notices) = mpsc::channel(CHANNEL);
        let follow = watcher.follow();
        let bank = Bank {
            orders: orders.clone(),
            follow,
            prices: prices.clone(),
            claims: claims.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let told = Arc::default();
        let teller = Teller { inputs: inputs.clone(), input_of, orders, prices, claims, told };
        tokio::spawn(until(stop.clone(), watcher.run(reporting)));
        tokio::spawn(until(stop.clone(), redeemer.run(clock, ordered, noticing)));
        tokio::spawn(until(stop.clone(), teller.clone().tell_reports(reports, cursor.0)));
        tokio::spawn(until(stop.clone(), teller.clone().tell_time()));
        tokio::spawn(until(stop.clone(), teller.tell_notices(notices)));
        Ok((payments, purse, bank))
    }
}

async fn until(stop: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = stop.triggered() => {}
        () = work => {}
    }
}

/// Passes on what watcher and redeemer say.
struct Teller<I, F> {
    inputs: Inputs<I>,
    input_of: F,
    orders: mpsc::Sender<Order>,
    prices: Prices,
    claims: ClaimBook,
    /// Facts that were handed to the driver, or are about to be.
    told: Arc<AtomicU64>,
}

impl<I, F: Clone> Clone for Teller<I, F> {
    fn clone(&self) -> Self {
        let (inputs, orders) = (self.inputs.clone(), self.orders.clone());
        let (prices, claims) = (self.prices.clone(), self.claims.clone());
        let (input_of, told) = (self.input_of.clone(), Arc::clone(&self.told));
        Self { inputs, input_of, orders, prices, claims, told }
    }
}

impl<I: Send + 'static, F: Fn(PaymentInput) -> I> Teller<I, F> {
    async fn tell(&self, fact: Fact) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inputs.pass((self.input_of)(PaymentInput::Fact(fact))).await;
    }

    /// Facts go on at once; how far the chain was read is kept when they have been written down, or else the next start reads them
    /// again.
    async fn tell_reports(self, mut reports: mpsc::Receiver<Report>, mut file: CursorFile) {
        let mut look = tokio::time::interval(CURSOR_LOOK);
        loop {
            tokio::select! {
                report = reports.recv() => {
                    let Some(Report { facts, cursor }) = report else { return };
                    for fact in facts {
                        self.tell_chain(fact).await;
                    }
                    // Those of a notice, told at the same time, may be among them: then it waits for those, too.
                    file.push(self.told.load(Ordering::Relaxed), cursor);
                }
                _ = look.tick() => file.keep(),
            }
        }
    }

    async fn tell_chain(&self, fact: ChainFact) {
        match fact {
            ChainFact::Deposit(amount) => self.tell(Fact::Deposit(amount)).await,
            ChainFact::Guarantee { issuer, amount } => self.tell(Fact::Guarantee { issuer, amount }).await,
            ChainFact::Signer { issuer, signer, state } => {
                let signs = match state.map(|state| state.last_expiry) {
                    Some(None) => Signs::All,
                    Some(Some(last)) => Signs::Until(last),
                    None => Signs::Nothing,
                };
                self.tell(Fact::Signer { issuer, signer, signs }).await;
            }
            ChainFact::Class { number, class } => {
                self.prices.all().insert(number, class);
                self.tell(Fact::Class(number, class)).await;
            }
            ChainFact::Claimed(claimed) => {
                let (recipient, window) = (claimed.recipient, claimed.window);
                self.tell(Fact::Claimed { recipient, window, spent: claimed.spent.total() }).await;
            }
            ChainFact::Settled(settled) => self.settle(&settled).await,
            ChainFact::Withdrawn(fact) => {
                if let ChainFact::Settled(settled) = *fact {
                    let key = (settled.issuer, settled.window);
                    // Before anything is done about it: the machine has forgotten the window, and a later start is not told.
                    self.claims.note_unsettled(Some(key)).await;
                    let _ = self.orders.send(Order::Withdrawn(key)).await;
                }
            }
            // Logged where they are found.
            ChainFact::Reorganised { .. } => {
                self.claims.note_unsettled(None).await;
                let _ = self.orders.send(Order::Reorganised).await;
            }
            ChainFact::Time(_) | ChainFact::Gone | ChainFact::Back => {}
        }
    }

    async fn settle(&self, settled: &tombola_chain::watcher::Settled) {
        let (issuer, window) = (settled.issuer, settled.window);
        self.tell(Fact::Settled { issuer, window, amount: settled.amount }).await;
        let _ = self.orders.send(Order::Settled((issuer, window))).await;
        self.claims.note_settled((issuer, window)).await;
    }

    /// The wall clock may be set, and a machine may have slept.
    async fn tell_time(self) {
        let mut look = tokio::time::interval(CLOCK_LOOK);
        loop {
            look.tick().await;
            self.tell(Fact::Time(unix_seconds())).await;
        }
    }

    async fn tell_notices(self, mut notices: mpsc::Receiver<Notice>) {
        // Claims that were said to be refused; there are not many more than are refused at a time.
        let mut refused = BTreeSet::new();
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Settled(settled) => {
                    refused.remove(&(settled.issuer, settled.window));
                    self.settle(&settled).await;
                }
                Notice::Sent { windows, again } => {
                    tracing::info!(windows, again, "claims were sent to the chain");
                }
                // Once for each, and without the reason's words, which name accounts.
                Notice::Refused { key, kind, .. } => {
                    if refused.insert(key) {
                        tracing::warn!(kind, "a claim is refused; it is tried again until it expires");
                    }
                }
                Notice::Expired(key) => {
                    refused.remove(&key);
                    tracing::error!("a claim has expired before its payment was seen");
                }
                // The book keeps it: it is claimed again after the next start, until it expires.
                Notice::GivenUp(key) => {
                    refused.remove(&key);
                    tracing::error!("nothing can be had for a claim now, and it is not waited for");
                    let (issuer, window) = key;
                    self.tell(Fact::Settled { issuer, window, amount: 0 }).await;
                }
                Notice::Loss { cost, worth } => tracing::warn!(
                    %cost,
                    %worth,
                    "claims wait: they would cost more than they are worth, by \"token_price\" and \"least_return_percent\""
                ),
                Notice::Dear => tracing::warn!("claims wait: gas costs more than \"max_fee_gwei\""),
                Notice::NotRedeemer => tracing::error!(
                    "claims wait: the key of the keystore may not claim for the account; name it as redeemer from that account"
                ),
                Notice::Poor => tracing::warn!("claims wait: the key of the keystore cannot pay for gas"),
            }
        }
    }
}

/// Tells the driver, and the redeemer behind `bank`, when the node shall leave the network.
pub async fn wind_up<I: Send + 'static>(
    token: Shutdown,
    inputs: Inputs<I>,
    bank: Option<Bank>,
    input: impl FnOnce() -> I,
) {
    let cause = token.triggered().await;
    tracing::info!(%cause, "claiming what was won; no windows follow");
    if let Some(bank) = bank {
        bank.hasten().await;
    }
    inputs.pass(input()).await;
}

/// What the wall clock says.
pub(crate) fn unix_seconds() -> UnixSeconds {
    UnixSeconds(u32::try_from(unix_time_now().as_secs()).unwrap_or(u32::MAX))
}

/// Which escrow, on which chain. All epochs of a document have the same.
///
/// # Errors
/// The document says nothing of payment, or names several.
pub fn domain_of(network: &Network) -> Result<Domain> {
    let mut domains: Vec<_> = network
        .epochs()
        .iter()
        .filter_map(|epoch| epoch.payment())
        .map(|payment| (payment.chain_id, payment.escrow))
        .collect();
    domains.dedup();
    match domains[..] {
        [(chain, escrow)] => Ok(Domain::new(chain, Address::from(escrow.0))),
        [] => bail!(
            "the configuration has a section \"payment\", but the network document says nothing of payment: leave it out"
        ),
        _ => bail!("the epochs of the network document name several escrows; this version pays into one"),
    }
}

/// The classes of all epochs of a document.
pub(crate) fn classes_of(network: &Network) -> BTreeSet<ClassNumber> {
    let epochs = network.epochs().iter().filter_map(|epoch| epoch.payment());
    epochs.flat_map(|payment| payment.classes.iter().copied().map(ClassNumber)).collect()
}

/// The classes of what was kept: the document may not name them any more.
pub(crate) fn kept_classes(kept: &Restore) -> BTreeSet<ClassNumber> {
    let issued = kept.issued_places().into_iter().map(|(_, class)| class);
    let earned = kept.earned_places().into_iter().map(|(_, class)| class);
    issued.chain(earned).collect()
}

/// What was claimed of an account, and by it, up to the head: which windows have been used. Waits while the chain does not answer,
/// and then goes on where it was.
async fn past_claims(
    operator: &Operator,
    escrow: Address,
    own: Address,
    config: &PaymentConfig,
    stop: &Shutdown,
) -> Result<Vec<Fact>> {
    let (mut found, mut said) = (Redemptions::default(), false);
    loop {
        match operator.read_redemptions(escrow, own, config.start_block, &mut found).await {
            Ok(()) => break,
            Err(OpsError::Ledger { source, .. }) if source.is_outage() => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(error = %source, "the chain does not answer; waiting for it");
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            cause = stop.triggered() => bail!("ended while waiting for the chain: {cause}"),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    let spent = found.spent.into_iter().map(|one| Fact::Claimed {
        recipient: one.recipient,
        window: one.window,
        spent: one.paid,
    });
    let earned = found.earned.into_iter().map(|one| Fact::Settled {
        issuer: one.issuer,
        window: one.window,
        amount: one.paid,
    });
    Ok(spent.chain(earned).collect())
}

/// Waits until the chain answers, and has confirmed these classes.
///
/// # Errors
/// It is another chain, or the process is told to end.
pub async fn prices(
    evm: &Evm,
    wanted: BTreeSet<ClassNumber>,
    confirmations: u64,
    stop: &Shutdown,
) -> Result<BTreeMap<ClassNumber, PriceClass>> {
    let mut said = false;
    loop {
        match read_prices(evm, &wanted, confirmations).await {
            Ok(prices) if prices.len() == wanted.len() => return Ok(prices),
            Ok(prices) => {
                if !std::mem::replace(&mut said, true) {
                    let missing: Vec<_> = wanted.iter().filter(|class| !prices.contains_key(class)).collect();
                    tracing::warn!(
                        ?missing,
                        "price classes are not final on the chain yet; waiting for them"
                    );
                }
            }
            Err(CheckError::Ledger(error)) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "the chain does not answer; waiting for it");
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            cause = stop.triggered() => bail!("ended while waiting for the chain: {cause}"),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn read_prices(
    evm: &Evm,
    wanted: &BTreeSet<ClassNumber>,
    confirmations: u64,
) -> Result<BTreeMap<ClassNumber, PriceClass>, CheckError> {
    evm.check().await?;
    let head = evm.head().await?;
    let at = head.number.saturating_sub(confirmations);
    let mut prices = BTreeMap::new();
    for class in wanted {
        if let Some(price) = evm.class(*class, at).await? {
            prices.insert(*class, price);
        }
    }
    Ok(prices)
}

/// What depends on the network's parameters and on how long classes live.
#[must_use]
pub fn limits(parameters: &Parameters, prices: &BTreeMap<ClassNumber, PriceClass>) -> Limits {
    let life = prices.values().map(|price| price.expiry.0.saturating_sub(price.valid_from.0)).min();
    let claim_before_expiry = CLAIM_BEFORE_EXPIRY.min(life.unwrap_or(CLAIM_BEFORE_EXPIRY * 4) / 4);
    Limits { settled_after: parameters.max_delay + AFTER_THE_LAST_PACKET, claim_before_expiry }
}

//! Claims everything that can be claimed, at once, while the node does not run.
//!
//! The node's own order of things holds: that a window is claimed is on disk before its claim leaves, and it is forgotten when
//! the claim is final. So this may end at any instant: what was sent is found again, by the next call or by the node, and the
//! contract pays no window twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tombola_chain::redeemer::{Key, Notice, Order, Redeemer, RedeemerConfig, Terms};
use tombola_chain::watcher::{Cursor, Fact, Pace, Settled, Watcher, WatcherConfig};
use tombola_chain::{EvmTill, Ledger};
use tombola_tickets::{ClassNumber, KeptWindow, PriceClass, Restore, UnixSeconds};

use crate::account::OpenAccount;
use crate::claims::{self, ClaimBook};
use crate::clock::unix_now;
use crate::data::DataFolder;
use crate::derive::{derive_seed, random_seed};
use crate::purse::{FILE, PurseFile, check_secret};

/// Orders, reports and notices that may wait.
const CHANNEL: usize = 256;
/// How often the chain is looked at, at most.
const INTERVAL: Duration = Duration::from_millis(500);
/// After a refusal a claim is tried once more before it is given up here, so many seconds later.
const RETRY: u32 = 2;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redeemed {
    /// What was paid, by window, in the smallest unit of the token.
    pub paid: Vec<Settled>,
    /// What was not, and why. It is kept, and can be claimed again while its class has not expired.
    pub left: Vec<(KeptWindow, String)>,
}

struct Work {
    purse: PurseFile,
    kept: Restore,
    book: ClaimBook,
    waiting: BTreeMap<Key, KeptWindow>,
    /// What a winner of theirs is worth.
    face_values: BTreeMap<Key, u128>,
    refused: BTreeMap<Key, String>,
    done: Redeemed,
}

/// Claims what a stopped node has won, and waits until it is final: as long as something happens within `patience`.
/// `secret` is that of the node's link identity.
///
/// # Errors
/// The folder is in use: the node runs. Or a file is unusable, or the chain does not answer.
pub async fn redeem(
    account: &OpenAccount,
    folder: &DataFolder,
    secret: &[u8; 32],
    patience: Duration,
) -> Result<Redeemed> {
    let path = folder.path().join(FILE);
    if !path.exists() {
        return Ok(Redeemed::default());
    }
    let (purse, kept) = PurseFile::open(&path)?;
    let secret = derive_seed(secret, b"tombola/windows", &[]);
    check_secret(&path, &kept, &secret, account.evm.domain())?;
    let (book, before) = ClaimBook::open(&folder.path().join(claims::FILE))?;
    let head = account.evm.head().await?;
    let mut work = Work {
        purse,
        kept,
        book,
        waiting: BTreeMap::new(),
        face_values: BTreeMap::new(),
        refused: BTreeMap::new(),
        done: Redeemed::default(),
    };
    let mut orders = Vec::new();
    let mut prices: BTreeMap<ClassNumber, Option<PriceClass>> = BTreeMap::new();
    for window in work.kept.won_windows() {
        if let std::collections::btree_map::Entry::Vacant(place) = prices.entry(window.class) {
            place.insert(account.evm.class(window.class, head.number).await?);
        }
        let price = prices.get(&window.class).copied().flatten();
        let claim = work.kept.claim_of(&window, &secret, account.evm.domain());
        let (Some(price), Some(claim)) = (price, claim) else {
            work.leave(window, "the chain does not know its price class");
            continue;
        };
        if head.time > price.expiry {
            work.leave(window, "its price class has expired");
            continue;
        }
        if head.time < price.valid_from {
            work.leave(window, "its price class is not valid yet");
            continue;
        }
        // Before the claim, and with it the window's secret, can leave the process.
        work.purse.write(work.kept.mark_claimed(&window))?;
        work.book.put(&claim, &price)?;
        work.waiting.insert((window.issuer, window.window), window);
        work.face_values.insert((window.issuer, window.window), price.face_value);
        orders.push(Order::Claim(Box::new(claim), price));
    }
    if work.waiting.is_empty() {
        return Ok(work.done);
    }
    // Those that are settled already are of no interest here but for a reorganisation meanwhile.
    orders.extend(before.into_iter().filter(|order| matches!(order, Order::Keep(..))));
    tracing::info!(windows = work.waiting.len(), "claiming");
    work.run(account, orders, head.number, patience).await?;
    Ok(work.done)
}

impl Work {
    fn leave(&mut self, window: KeptWindow, why: &str) {
        self.done.left.push((window, why.to_owned()));
    }

    async fn run(
        &mut self,
        account: &OpenAccount,
        orders: Vec<Order>,
        head: u64,
        patience: Duration,
    ) -> Result<()> {
        let config = &account.config;
        let interval = config.poll.min(INTERVAL);
        // What was paid before is looked up; what will be is in later blocks.
        let start = head.saturating_sub(config.confirmations).max(config.start_block);
        let pace = Pace { confirmations: config.confirmations, start, ..Pace::default() };
        let watching = WatcherConfig { pace, interval, ..WatcherConfig::new(account.own) };
        let watcher = Watcher::new(account.evm.clone(), watching, Cursor::default(), random_seed()?);
        // Whoever asks for it wants it now, but not at a loss.
        let least_return = 100;
        let terms =
            Terms { spread: Duration::ZERO, retry: RETRY, least_return, ..config.terms(account.own)? };
        let redeeming = RedeemerConfig {
            interval,
            confirmations: config.confirmations,
            start: config.start_block,
            ..RedeemerConfig::new(terms)
        };
        let till = EvmTill::new(account.evm.clone(), account.wallet.clone());
        let redeemer = Redeemer::new(till, redeeming, random_seed()?);
        let (ordering, ordered) = mpsc::channel(CHANNEL);
        let (noticing, mut notices) = mpsc::channel(CHANNEL);
        let (reporting, mut reports) = mpsc::channel(CHANNEL);
        let clock = || UnixSeconds(u32::try_from(unix_now()).unwrap_or(u32::MAX));
        // Ended with this.
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run(reporting));
        tasks.spawn(redeemer.run(clock, ordered, noticing));
        let first = ordering.clone();
        tasks.spawn(async move {
            for order in orders {
                let _ = first.send(order).await;
            }
        });
        let mut deadline = tokio::time::Instant::now() + patience;
        loop {
            let refused: BTreeSet<&Key> = self.refused.keys().collect();
            if self.waiting.keys().all(|key| refused.contains(key)) {
                break;
            }
            let settled: Vec<Settled> = tokio::select! {
                notice = notices.recv() => match notice.context("the redeemer has ended")? {
                    Notice::Settled(settled) => vec![settled],
                    Notice::Refused { key, reason, .. } => {
                        self.refused.insert(key, reason);
                        continue;
                    }
                    Notice::Sent { windows, again } => {
                        tracing::info!(windows, again, "claims were sent to the chain; waiting until they are final");
                        deadline = tokio::time::Instant::now() + patience;
                        continue;
                    }
                    other => bail!("{}", explain(&other, account)),
                },
                report = reports.recv() => {
                    let facts = report.context("the watcher has ended")?.facts.into_iter();
                    facts.filter_map(|fact| match fact { Fact::Settled(settled) => Some(settled), _ => None }).collect()
                }
                () = tokio::time::sleep_until(deadline) => {
                    let left = self.waiting.len();
                    bail!(
                        "{left} windows that were claimed are not final after {patience:?} without news; nothing is lost: repeat \
                         this, or start the node"
                    );
                }
            };
            for settled in settled {
                let key = (settled.issuer, settled.window);
                let _ = ordering.send(Order::Settled(key)).await;
                if self.waiting.remove(&key).is_some() {
                    self.settle(settled)?;
                    deadline = tokio::time::Instant::now() + patience;
                }
            }
        }
        for (key, window) in std::mem::take(&mut self.waiting) {
            let why = self.refused.remove(&key).unwrap_or_default();
            self.done.left.push((window, why));
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled) -> Result<()> {
        let key = (settled.issuer, settled.window);
        self.refused.remove(&key);
        self.book.settled(&key)?;
        let face_value = self.face_values.remove(&key).unwrap_or_default();
        let Settled { issuer, window, amount } = settled;
        self.purse.write(self.kept.forget_settled(issuer, window, face_value, amount))?;
        self.done.paid.push(settled);
        Ok(())
    }
}

fn explain(notice: &Notice, account: &OpenAccount) -> String {
    let (key, own) = (account.key(), account.own);
    match notice {
        Notice::NotRedeemer => format!(
            "the key of the keystore, {key}, may not claim for {own}: name it as redeemer from that account, or use that account's key"
        ),
        Notice::Poor => format!("{key} cannot pay for gas: send it some of the chain's own money"),
        Notice::Dear => {
            "gas costs more than is offered at most (\"max_fee_gwei\"); try again when it is cheaper"
                .to_owned()
        }
        Notice::Loss { cost, worth } => format!(
            "claiming would cost {cost} wei for gas, and what is claimed is worth {worth} wei by \"token_price\": try again when gas is \
             cheaper or more was won; without \"token_price\" it is claimed whatever it costs"
        ),
        Notice::Expired(_) => "a claim has expired while it waited for the chain".to_owned(),
        other => format!("{other:?}"),
    }
}

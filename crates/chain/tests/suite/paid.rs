//! Watcher and redeemer together, as a node runs them: whatever becomes of the server, of the chain's last blocks and of the
//! node itself, each window is paid once, and the sums are right. The same on our development chain and on anvil.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tombola_chain::ops::Operator;
use tombola_chain::redeemer::{Key, Notice, Order, Redeemer, RedeemerConfig, Terms, TokenPrice};
use tombola_chain::watcher::{Cursor, Fact, Pace, Report, Settled, Watcher, WatcherConfig};
use tombola_chain::{Evm, EvmConfig, EvmTill, Ledger};
use tombola_mixing::Rng;
use tombola_tickets::{PriceClass, SignerKey, UnixSeconds, WindowClaim};

use crate::claims::Link;
use crate::hosts::Host;
use crate::world::{DAY, FACE, Parties, now};

/// As few as there can be in a test of reorganisations that are deeper, and of those that are not.
const CONFIRMATIONS: u32 = 2;
/// Each step takes seconds; this is for machines that do something else meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);

/// A node's part: claims and a cursor, which are durable, and the machines, which are not.
struct Node<'a> {
    parties: &'a Parties,
    url: String,
    class: PriceClass,
    claims: BTreeMap<Key, WindowClaim>,
    settled: BTreeMap<Key, u128>,
    /// What is needed to make settled claims again.
    kept: BTreeMap<Key, WindowClaim>,
    cursor: Vec<u8>,
    running: Option<Running>,
    told: Told,
}

/// How often what was told.
#[derive(Default)]
struct Told {
    sent: usize,
    gone: usize,
    back: usize,
    withdrawn: usize,
    reorganised: usize,
    settled: usize,
}

struct Running {
    reports: mpsc::Receiver<Report>,
    notices: mpsc::Receiver<Notice>,
    orders: mpsc::Sender<Order>,
    tasks: [JoinHandle<()>; 2],
}

fn clock() -> UnixSeconds {
    UnixSeconds(u32::try_from(now()).unwrap())
}

impl<'a> Node<'a> {
    fn new(parties: &'a Parties, url: String, class: PriceClass) -> Self {
        let (claims, settled, kept) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let cursor = Cursor::default().to_bytes();
        Self { parties, url, class, claims, settled, kept, cursor, running: None, told: Told::default() }
    }

    /// Goes on from what is durable.
    async fn start(&mut self) {
        let own = self.parties.recipient.address();
        // A slow machine is no outage.
        let config = EvmConfig { timeout: Duration::from_secs(60), ..EvmConfig::new(&self.url) };
        let evm = Evm::new(&config, self.parties.domain()).unwrap();
        let interval = Duration::from_millis(20);
        let pace = Pace { confirmations: CONFIRMATIONS.into(), range: 7, start: 0 };
        let config = WatcherConfig { pace, interval, ..WatcherConfig::new(own) };
        let cursor = Cursor::from_bytes(&self.cursor).unwrap();
        let watcher = Watcher::new(evm.clone(), config, cursor, [1; 32]);
        watcher.follow().issuer(self.parties.issuer.address());
        let (sender, reports) = mpsc::channel(64);
        let watching = tokio::spawn(watcher.run(sender));

        let usual = Terms::new(own, TokenPrice::ANY);
        let terms = Terms { spread: Duration::ZERO, retry: 1, mine_within: 2, ..usual };
        let confirmations = CONFIRMATIONS.into();
        let config = RedeemerConfig { interval, confirmations, range: 7, ..RedeemerConfig::new(terms) };
        let till = EvmTill::new(evm, self.parties.redeemer.clone());
        let (orders, receiver) = mpsc::channel(64);
        let (sender, notices) = mpsc::channel(64);
        let redeeming = tokio::spawn(Redeemer::new(till, config, [2; 32]).run(clock, receiver, sender));
        self.running = Some(Running { reports, notices, orders, tasks: [watching, redeeming] });
        for claim in self.kept.clone().into_values() {
            self.order(Order::Keep(Box::new(claim), self.class)).await;
        }
        for claim in self.claims.clone().into_values() {
            self.order_claim(claim).await;
        }
    }

    /// As if it was killed.
    fn crash(&mut self) {
        for task in self.running.take().unwrap().tasks {
            task.abort();
        }
    }

    async fn order(&self, order: Order) {
        self.running.as_ref().unwrap().orders.send(order).await.unwrap();
    }

    async fn order_claim(&self, claim: WindowClaim) {
        self.order(Order::Claim(Box::new(claim), self.class)).await;
    }

    async fn hand_in(&mut self, claim: &WindowClaim) {
        self.claims.insert((claim.issuer, claim.window), claim.clone());
        self.order_claim(claim.clone()).await;
    }

    fn settle(&mut self, settled: Settled) {
        let key = (settled.issuer, settled.window);
        self.told.settled += 1;
        if let Some(claim) = self.claims.remove(&key) {
            self.kept.insert(key, claim);
        }
        let before = self.settled.insert(key, settled.amount);
        assert!(before.is_none_or(|amount| amount == settled.amount), "{settled:?} instead of {before:?}");
    }

    async fn take(&mut self, report: Report) {
        for fact in report.facts {
            match fact {
                Fact::Settled(settled) => {
                    self.settle(settled);
                    self.order(Order::Settled((settled.issuer, settled.window))).await;
                }
                Fact::Withdrawn(fact) => {
                    let Fact::Settled(settled) = *fact else { panic!("not ours: {fact:?}") };
                    let key = (settled.issuer, settled.window);
                    assert_eq!(self.settled.remove(&key), Some(settled.amount));
                    assert!(self.kept.contains_key(&key));
                    self.told.withdrawn += 1;
                    self.order(Order::Withdrawn(key)).await;
                }
                Fact::Gone => self.told.gone += 1,
                Fact::Back => self.told.back += 1,
                Fact::Reorganised { .. } => {
                    self.told.reorganised += 1;
                    self.order(Order::Reorganised).await;
                }
                Fact::Time(_)
                | Fact::Deposit(_)
                | Fact::Guarantee { .. }
                | Fact::Signer { .. }
                | Fact::Class { .. } => {}
                Fact::Claimed(_) => panic!("we pay nobody: {fact:?}"),
            }
        }
        self.cursor = report.cursor.to_bytes();
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Settled(settled) => {
                self.settle(settled);
            }
            Notice::Sent { .. } => self.told.sent += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Runs until it is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !so(self) {
            let running = self.running.as_mut().unwrap();
            tokio::select! {
                report = running.reports.recv() => self.take(report.unwrap()).await,
                notice = running.notices.recv() => self.hear(notice.unwrap()),
                () = tokio::time::sleep_until(deadline) => panic!("waited in vain until {what}"),
            }
        }
    }
}

/// Waits until the last block, final or not, says that so much was earned.
async fn until_earned(rich: &Operator, parties: &Parties, sum: u128) {
    let account: Address = parties.recipient.address();
    let begun = Instant::now();
    loop {
        let credits = rich.balances(&parties.contracts, account).await.unwrap().credits;
        if credits == sum {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{credits} instead of {sum}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn each_window_is_paid_once(mut host: Host) {
    let parties = Parties::new(&host.url()).await;
    let (contracts, rich) = (&parties.contracts, &parties.rich);
    let (issuer, recipient) = (parties.issuer.address(), parties.recipient.address());
    let (class, price) = parties.class(DAY).await;
    parties.issuer.deposit(contracts, issuer, 500_000).await.unwrap();
    parties.recipient.set_redeemer(contracts, parties.redeemer.address()).await.unwrap();
    Evm::new(&EvmConfig::new(host.url()), parties.domain()).unwrap().check().await.unwrap();

    let key = SignerKey::from_bytes(&parties.keys[1]).unwrap();
    let link = Link { domain: parties.domain(), issuer, key: &key, recipient, class };
    let mut rng = Rng::from_seed([6; 32]);
    let windows = [0, 1, 2, 3, 4].map(|number| link.window(&mut rng, number, 2));
    let worth = |claim: &WindowClaim| u128::from(claim.winners()) * FACE;
    let id = |at: usize| (windows[at].issuer, windows[at].window);
    let sum = |until: usize| windows[..until].iter().map(worth).sum::<u128>();

    let mut node = Node::new(&parties, host.url(), price);
    node.start().await;
    macro_rules! settled {
        ($at:expr) => {
            node.until("the claim is settled", |node| node.settled.contains_key(&id($at))).await
        };
    }

    // Nothing happens but what should.
    node.hand_in(&windows[0]).await;
    until_earned(rich, &parties, sum(1)).await;
    host.mine(CONFIRMATIONS).await;
    settled!(0);
    node.until("it is told that it was sent", |node| node.told.sent == 1).await;

    // The block of a redemption is taken back, and nothing comes in its place.
    node.hand_in(&windows[1]).await;
    until_earned(rich, &parties, sum(2)).await;
    host.take_back(1).await;
    node.until("it is sent again", |node| node.told.sent >= 3).await;
    until_earned(rich, &parties, sum(2)).await;
    host.mine(CONFIRMATIONS).await;
    settled!(1);

    // Another block is in its place.
    node.hand_in(&windows[2]).await;
    until_earned(rich, &parties, sum(3)).await;
    host.replace(1).await;
    node.until("it is sent again", |node| node.told.sent >= 5).await;
    until_earned(rich, &parties, sum(3)).await;
    host.mine(CONFIRMATIONS).await;
    settled!(2);
    assert_eq!((node.told.withdrawn, node.told.reorganised), (0, 0), "nothing final was changed");

    // What counted as final is gone. With it goes what was said of it, and it is claimed again.
    host.replace(CONFIRMATIONS + 1).await;
    node.until("it is taken back", |node| node.told.withdrawn == 1).await;
    assert_eq!((node.told.reorganised, node.settled.len()), (1, 2));
    until_earned(rich, &parties, sum(3)).await;
    host.mine(CONFIRMATIONS).await;
    settled!(2);
    assert!(node.told.sent >= 6, "{}", node.told.sent);

    // The same while the node is off: then nobody can tell which of the settled claims are gone, and all are asked for.
    node.crash();
    host.replace(CONFIRMATIONS + 1).await;
    let before = node.told.settled;
    node.start().await;
    node.until("the reorganisation is told", |node| node.told.reorganised == 2).await;
    until_earned(rich, &parties, sum(3)).await;
    host.mine(CONFIRMATIONS).await;
    node.until("all three are settled again", |node| node.told.settled >= before + 3).await;
    assert_eq!((node.told.withdrawn, node.settled.len()), (1, 3));

    // The server is away when a window ends, and the node is started anew meanwhile.
    assert_eq!((node.told.gone, node.told.back), (0, 0));
    host.stop();
    node.until("the outage is told", |node| node.told.gone == 1).await;
    node.hand_in(&windows[3]).await;
    node.crash();
    node.start().await;
    node.until("it is told again", |node| node.told.gone == 2).await;
    host.start().await;
    node.until("its end is told", |node| node.told.back == 1).await;
    until_earned(rich, &parties, sum(4)).await;
    host.mine(CONFIRMATIONS).await;
    settled!(3);

    // The node dies after it has sent, and the server is another one when it comes back.
    node.hand_in(&windows[4]).await;
    until_earned(rich, &parties, sum(5)).await;
    node.crash();
    host.mine(CONFIRMATIONS).await;
    host.stop();
    host.start().await;
    node.start().await;
    settled!(4);

    let right: BTreeMap<Key, u128> = (0..5).map(|at| (id(at), worth(&windows[at]))).collect();
    assert_eq!(node.settled, right);
    let balances = |account| async move { rich.balances(contracts, account).await.unwrap() };
    assert_eq!(balances(recipient).await.credits, sum(5));
    assert_eq!(balances(issuer).await.deposit, 500_000 - sum(5));
    let sent = parties.recipient.withdraw_credits(contracts, recipient).await.unwrap();
    assert_eq!(sent, sum(5), "it is there to be taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_window_is_paid_once_on_the_development_chain() {
    each_window_is_paid_once(Host::ours().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_window_is_paid_once_on_anvil() {
    each_window_is_paid_once(Host::anvil().await).await;
}

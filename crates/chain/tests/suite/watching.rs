//! The watcher on the development chain: deposits, guarantees, keys, classes, claims, a reorganisation, an outage.

use std::net::TcpListener as Listener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tombola_chain::ops::NodeRole;
use tombola_chain::watcher::{Cursor, Fact, Pace, Report, Watcher, WatcherConfig};
use tombola_chain::{Accounts, Block, CheckError, Evm, EvmConfig, Ledger, LedgerError, Logged, SignerState};
use tombola_mixing::Rng;
use tombola_tickets::{Address, ClassNumber, Domain, PriceClass, SignerKey, encode};

use crate::claims::Link;
use crate::world::{CHAIN_ID, DAY, FACE, World, identity, serve, stranger};

fn config(own: Address) -> WatcherConfig {
    let pace = Pace { confirmations: 2, range: 7, start: 0 };
    WatcherConfig { pace, interval: Duration::from_millis(20), ..WatcherConfig::new(own) }
}

fn evm(world: &World) -> Evm {
    Evm::new(&EvmConfig::new(&world.url), world.domain()).unwrap()
}

/// Waits for a fact, however many others come before.
async fn until(reports: &mut mpsc::Receiver<Report>, wanted: impl Fn(&Fact) -> bool) -> Report {
    let wait = async {
        loop {
            let report = reports.recv().await.expect("the watcher goes on");
            if report.facts.iter().any(&wanted) {
                return report;
            }
        }
    };
    timeout(Duration::from_secs(300), wait).await.expect("it comes within five minutes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_or_contract_is_refused() {
    let world = World::new().await;
    evm(&world).check().await.unwrap();
    let check = |domain| {
        let evm = Evm::new(&EvmConfig::new(&world.url), domain).unwrap();
        async move { evm.check().await.unwrap_err() }
    };
    let escrow = world.contracts.escrow;
    let other = check(Domain::new(1, escrow)).await;
    assert!(matches!(other, CheckError::Chain { found: CHAIN_ID, expected: 1 }), "{other}");
    assert!(matches!(check(Domain::new(CHAIN_ID, stranger())).await, CheckError::NoEscrow(_)));
    for wrong in [world.contracts.token, world.contracts.registry] {
        assert!(matches!(check(Domain::new(CHAIN_ID, wrong)).await, CheckError::OtherContract(_)));
    }
    // As it is of a chain that was right and has lost the blocks with the contract.
    let nobody = Evm::new(&EvmConfig::new(&world.url), Domain::new(CHAIN_ID, stranger())).unwrap();
    let error = nobody.deposit(stranger(), 0).await.unwrap_err();
    assert!(matches!(error, LedgerError::NoContract(account) if account == stranger()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_final_is_told() {
    let world = World::new().await;
    let (contracts, issuer, recipient) = (&world.contracts, &world.issuer, &world.recipient);
    // A key from before anybody watched.
    issuer.add_signer(contracts, stranger(), 77).await.unwrap();
    let watcher = Watcher::new(evm(&world), config(recipient.address()), Cursor::default(), [1; 32]);
    let follow = watcher.follow();
    follow.issuer(issuer.address());
    let (sender, mut reports) = mpsc::channel(64);
    let task = tokio::spawn(watcher.run(sender));

    recipient.deposit(contracts, recipient.address(), 900).await.unwrap();
    recipient.request_unlock(contracts, 300).await.unwrap();
    issuer.open_reserve(contracts, recipient.address(), 4000).await.unwrap();
    let (class, price) = world.class(DAY).await;
    follow.class(class);
    (0..2).for_each(|_| world.chain.mine());
    let seen = until(&mut reports, |fact| *fact == Fact::Class { number: class, class: price }).await;
    let all = |report: &Report, wanted: &Fact| report.facts.contains(wanted);
    let state = Some(SignerState { last_expiry: None, cap: Some(77) });
    let wanted = [
        Fact::Deposit(600),
        Fact::Guarantee { issuer: issuer.address(), amount: 4000 },
        Fact::Signer { issuer: issuer.address(), signer: stranger(), state },
    ];
    // All of them are in this report or were in one before.
    let mut fresh = Watcher::new(evm(&world), config(recipient.address()), seen.cursor, [1; 32]);
    fresh.follow().issuer(issuer.address());
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(fresh.cycle().await.0);
    }
    for fact in &wanted {
        assert!(found.contains(fact), "{fact:?} is not in {found:?}");
    }

    // Keys that are added and revoked, reserves under notice.
    issuer.revoke_signer(contracts, stranger()).await.unwrap();
    issuer.close_reserve(contracts, recipient.address()).await.unwrap();
    (0..2).for_each(|_| world.chain.mine());
    let under_notice = Fact::Guarantee { issuer: issuer.address(), amount: 0 };
    let report = until(&mut reports, |fact| *fact == under_notice).await;
    assert!(all(&report, &under_notice));
    drop(reports);
    timeout(Duration::from_secs(300), task).await.expect("it ends when nobody listens").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_told_to_both_sides_and_taken_back_with_their_block() {
    let world = World::new().await;
    let (contracts, issuer, recipient) = (&world.contracts, &world.issuer, &world.recipient);
    let (class, price) = world.class(DAY).await;
    let key = SignerKey::from_bytes(&world.keys[1]).unwrap();
    let (from, to) = (issuer.address(), recipient.address());
    let link = Link { domain: world.domain(), issuer: from, key: &key, recipient: to, class };
    let window = link.window(&mut Rng::from_seed([5; 32]), 3, 2);
    let worth = u128::from(window.winners()) * FACE;
    // Half from the deposit, the rest from the reserve.
    issuer.deposit(contracts, from, worth / 2).await.unwrap();
    issuer.open_reserve(contracts, to, worth).await.unwrap();
    let (sender, mut paid) = mpsc::channel(64);
    tokio::spawn(Watcher::new(evm(&world), config(to), Cursor::default(), [1; 32]).run(sender));
    let (sender, mut payer) = mpsc::channel(64);
    tokio::spawn(Watcher::new(evm(&world), config(from), Cursor::default(), [1; 32]).run(sender));

    recipient.redeem(contracts, to, encode(std::slice::from_ref(&window)).unwrap()).await.unwrap();
    (0..2).for_each(|_| world.chain.mine());
    let settled = |fact: &Fact| matches!(fact, Fact::Settled(settled) if settled.amount == worth);
    let report = until(&mut paid, settled).await;
    let winners = report.facts.iter().find_map(|fact| match fact {
        Fact::Settled(settled) => Some(settled.settlement(&price).paid),
        _ => None,
    });
    assert_eq!(winners, Some(window.winners()));
    until(&mut payer, |fact| {
        matches!(fact, Fact::Claimed(claimed) if claimed.recipient == to
            && claimed.spent.deposit == worth / 2
            && claimed.spent.reserve == worth - worth / 2
            && claimed.spent.stake == 0)
    })
    .await;

    // More blocks are replaced than are waited for.
    world.chain.roll_back(3).unwrap();
    (0..6).for_each(|_| world.chain.mine());
    let report = until(&mut paid, |fact| matches!(fact, Fact::Withdrawn(_))).await;
    assert!(report.facts.iter().any(|fact| matches!(fact, Fact::Reorganised { .. })));
    recipient.redeem(contracts, to, encode(std::slice::from_ref(&window)).unwrap()).await.unwrap();
    (0..2).for_each(|_| world.chain.mine());
    until(&mut paid, settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_the_stake_is_part_of_the_guarantee() {
    let world = World::new().await;
    let (contracts, issuer, recipient) = (&world.contracts, &world.issuer, &world.recipient);
    for (node, byte) in [(issuer, 1), (recipient, 2)] {
        node.join(contracts, NodeRole::Mix, identity(byte), 12_000).await.unwrap();
    }
    let mut watcher = Watcher::new(evm(&world), config(recipient.address()), Cursor::default(), [1; 32]);
    watcher.follow().issuer(issuer.address());
    world.pass(DAY);
    (0..2).for_each(|_| world.chain.mine());
    let mut facts = Vec::new();
    for _ in 0..3 {
        facts.extend(watcher.cycle().await.0);
    }
    // Three slices; half of one for two nodes.
    let share = Fact::Guarantee { issuer: issuer.address(), amount: 12_000 / 3 / 2 / 2 };
    assert!(facts.contains(&share), "{facts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_once_and_its_end_too() {
    let world = World::new().await;
    // A port where nobody listens yet.
    let port = Listener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let evm = Evm::new(&EvmConfig::new(format!("http://{address}")), world.domain()).unwrap();
    let mut watcher = Watcher::new(evm, config(world.recipient.address()), Cursor::default(), [1; 32]);
    assert_eq!(watcher.cycle().await.0, [Fact::Gone]);
    for _ in 0..5 {
        assert_eq!(watcher.cycle().await.0, []);
    }
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let server = Arc::clone(&world.chain).start(listener).unwrap();
    let facts = watcher.cycle().await.0;
    assert_eq!(facts[0], Fact::Back, "{facts:?}");
    assert!(facts.contains(&Fact::Deposit(0)), "{facts:?}");
    drop(server);
    let other = serve(&world.chain).await;
    assert_ne!(other.address(), address);
}

/// What was asked of the chain about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Events(Address),
    Past(Address),
    Guarantee(Address),
    Signer(Address, Address),
}

/// A ledger that notes what it is asked.
struct Noted {
    evm: Evm,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Noted {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

impl Ledger for Noted {
    async fn check(&self) -> Result<(), CheckError> {
        self.evm.check().await
    }

    async fn head(&self) -> Result<Block, LedgerError> {
        self.evm.head().await
    }

    async fn block(&self, number: u64) -> Result<Option<Block>, LedgerError> {
        self.evm.block(number).await
    }

    async fn events(&self, accounts: &Accounts, from: u64, to: u64) -> Result<Vec<Logged>, LedgerError> {
        accounts.issuers.iter().for_each(|issuer| self.note(Asked::Events(*issuer)));
        self.evm.events(accounts, from, to).await
    }

    async fn signers_added(&self, issuer: Address, from: u64, to: u64) -> Result<Vec<Address>, LedgerError> {
        self.note(Asked::Past(issuer));
        self.evm.signers_added(issuer, from, to).await
    }

    async fn deposit(&self, issuer: Address, at: u64) -> Result<u128, LedgerError> {
        self.evm.deposit(issuer, at).await
    }

    async fn guarantee(&self, issuer: Address, recipient: Address, at: u64) -> Result<u128, LedgerError> {
        self.note(Asked::Guarantee(issuer));
        self.evm.guarantee(issuer, recipient, at).await
    }

    async fn signer(
        &self,
        issuer: Address,
        signer: Address,
        at: u64,
    ) -> Result<Option<SignerState>, LedgerError> {
        self.note(Asked::Signer(issuer, signer));
        self.evm.signer(issuer, signer, at).await
    }

    async fn class(&self, class: ClassNumber, at: u64) -> Result<Option<PriceClass>, LedgerError> {
        self.evm.class(class, at).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_may_be_anybody_costs_two_questions_and_is_forgotten() {
    let world = World::new().await;
    let (contracts, issuer, client) = (&world.contracts, &world.issuer, &world.rich);
    let own = world.recipient.address();
    client.open_reserve(contracts, own, 700).await.unwrap();
    client.add_signer(contracts, stranger(), 5).await.unwrap();
    (0..3).for_each(|_| world.chain.mine());
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let ledger = Noted { evm: evm(&world), asked: Arc::clone(&asked) };
    let mut watcher = Watcher::new(ledger, config(own), Cursor::default(), [1; 32]);
    let follow = watcher.follow();
    follow.issuer(issuer.address());
    while watcher.cycle().await.1 {}
    assert!(asked.lock().unwrap().contains(&Asked::Past(issuer.address())));

    let guarantee = |amount| Fact::Guarantee { issuer: client.address(), amount };
    let state = Some(SignerState { last_expiry: None, cap: Some(5) });
    let signs = Fact::Signer { issuer: client.address(), signer: stranger(), state };
    for round in 0..2 {
        std::mem::take(&mut *asked.lock().unwrap());
        follow.client(client.address(), stranger());
        world.chain.mine();
        let (facts, _) = watcher.cycle().await;
        assert!(facts.contains(&guarantee(700)) && facts.contains(&signs), "round {round}: {facts:?}");
        let mut about: Vec<_> = std::mem::take(&mut *asked.lock().unwrap());
        about.retain(|asked| *asked != Asked::Events(issuer.address()));
        let two = [Asked::Guarantee(client.address()), Asked::Signer(client.address(), stranger())];
        assert_eq!(about, two, "the others are not asked about again, and no past is searched");
        // It is gone, and comes back before anybody has looked: whoever asks again has forgotten what he was told.
        follow.forget_client(client.address(), stranger());
    }

    // What becomes of a reserve for us is seen without following whose it is.
    follow.client(client.address(), stranger());
    watcher.cycle().await;
    client.fund_reserve(contracts, client.address(), own, 50).await.unwrap();
    (0..3).for_each(|_| world.chain.mine());
    let (facts, _) = watcher.cycle().await;
    assert!(facts.contains(&guarantee(750)), "{facts:?}");
    follow.forget_client(client.address(), stranger());
    std::mem::take(&mut *asked.lock().unwrap());
    client.fund_reserve(contracts, client.address(), own, 50).await.unwrap();
    (0..3).for_each(|_| world.chain.mine());
    watcher.cycle().await;
    let about = asked.lock().unwrap().clone();
    assert!(!about.contains(&Asked::Guarantee(client.address())), "{about:?}");
}

//! The redeemer, on a till that does what the test says, and on the development chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use tombola_chain::bindings::Escrow::{self, EscrowErrors};
use tombola_chain::redeemer::{Notice, Order, Redeemer, RedeemerConfig, Terms, TokenPrice, raised};
use tombola_chain::watcher::Settled;
use tombola_chain::{
    Evm, EvmConfig, EvmTill, Executed, Fees, LedgerError, Payment, Refusal, Revert, Till, Turn,
};
use tombola_mixing::Rng;
use tombola_tickets::{
    ClassNumber, Domain, PriceClass, SignerKey, UnixSeconds, WinProbability, WindowClaim, WindowNumber,
    decode_calldata,
};

use crate::claims::Link;
use crate::world::{DAY, FACE, World};

const RECIPIENT: Address = Address::repeat_byte(2);
const GWEI: u128 = 1_000_000_000;

/// A contract and a pool, as simple as they can be.
#[derive(Default)]
struct Bank {
    /// Windows that were paid, in which block.
    paid: BTreeMap<WindowNumber, u64>,
    /// By number.
    pool: BTreeMap<u64, Payment>,
    nonce: u64,
    executed: BTreeMap<B256, Executed>,
    height: u64,
    base: u128,
    sent: Vec<Payment>,
    /// What the next calls answer instead.
    estimate: Option<LedgerError>,
    send: Option<LedgerError>,
    /// The window whose claims are refused.
    bad: BTreeSet<WindowNumber>,
    /// The blocks from which payments were searched.
    searched: Vec<u64>,
    /// How often windows were paid beyond the first time.
    twice: usize,
}

#[derive(Clone, Default)]
struct FakeTill(Arc<Mutex<Bank>>);

fn windows(data: &Bytes) -> Vec<WindowClaim> {
    decode_calldata(data).unwrap().1
}

fn revert(error: EscrowErrors) -> LedgerError {
    LedgerError::Reverted(Revert::Escrow(error))
}

impl FakeTill {
    fn bank<T>(&self, look: impl FnOnce(&mut Bank) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Executes what waits.
    fn mine(&self) {
        self.bank(|bank| {
            bank.height += 1;
            let height = bank.height;
            while let Some(payment) = bank.pool.remove(&bank.nonce) {
                for window in windows(&payment.data) {
                    bank.twice += usize::from(bank.paid.insert(window.window, height).is_some());
                }
                bank.nonce += 1;
                bank.executed.insert(hash(&payment), Executed { block: height, success: true });
            }
        });
    }

    /// Takes the last block back.
    fn reorganise(&self) {
        self.bank(|bank| {
            let height = bank.height;
            bank.paid.retain(|_, block| *block < height);
            bank.executed.retain(|_, executed| executed.block < height);
            bank.nonce = bank.executed.len() as u64;
            bank.height -= 1;
        });
    }
}

fn hash(payment: &Payment) -> B256 {
    keccak256(format!("{payment:?}"))
}

impl Till for FakeTill {
    async fn estimate(&self, data: &Bytes) -> Result<u64, LedgerError> {
        self.bank(|bank| {
            if let Some(error) = bank.estimate.take() {
                return Err(error);
            }
            for claim in windows(data) {
                if bank.paid.contains_key(&claim.window) {
                    let window = U256::from(claim.window.0);
                    let issuer = claim.issuer;
                    return Err(revert(EscrowErrors::WindowClaimed(Escrow::WindowClaimed {
                        issuer,
                        window,
                    })));
                }
                if bank.bad.contains(&claim.window) {
                    return Err(revert(EscrowErrors::InvalidSignature(Escrow::InvalidSignature {})));
                }
            }
            Ok(100_000)
        })
    }

    async fn fees(&self) -> Result<Fees, LedgerError> {
        Ok(self.bank(|bank| Fees { base: bank.base, tip: GWEI }))
    }

    async fn nonce(&self) -> Result<u64, LedgerError> {
        Ok(self.bank(|bank| bank.nonce))
    }

    fn hash(&self, payment: &Payment) -> B256 {
        hash(payment)
    }

    async fn send(&self, payment: &Payment) -> Result<(), LedgerError> {
        self.bank(|bank| {
            if let Some(error) = bank.send.take() {
                return Err(error);
            }
            let refused = |reason| Err(LedgerError::Transaction { reason, message: String::new() });
            if payment.nonce < bank.nonce {
                return refused(Refusal::NonceTooLow);
            }
            if let Some(before) = bank.pool.get(&payment.nonce) {
                if before == payment {
                    return refused(Refusal::Known);
                }
                let enough = |new: u128, old: u128| new * 8 >= old * 9;
                if !enough(payment.max_fee, before.max_fee) || !enough(payment.max_tip, before.max_tip) {
                    return refused(Refusal::Underpriced);
                }
            }
            bank.pool.insert(payment.nonce, payment.clone());
            bank.sent.push(payment.clone());
            Ok(())
        })
    }

    async fn executed(&self, hash: B256) -> Result<Option<Executed>, LedgerError> {
        Ok(self.bank(|bank| bank.executed.get(&hash).copied()))
    }

    async fn height(&self) -> Result<u64, LedgerError> {
        Ok(self.bank(|bank| bank.height))
    }

    async fn time(&self, number: u64) -> Result<Option<UnixSeconds>, LedgerError> {
        Ok(Some(UnixSeconds(u32::try_from(number).unwrap() * 12)))
    }

    async fn payment_of(
        &self,
        _: Address,
        _: Address,
        window: WindowNumber,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, u128)>, LedgerError> {
        let block = self.bank(|bank| {
            bank.searched.push(from);
            bank.paid.get(&window).copied()
        });
        Ok(block.filter(|block| (from..=to).contains(block)).map(|block| (block, 3000)))
    }
}

fn class() -> PriceClass {
    PriceClass {
        face_value: FACE,
        win_probability: WinProbability::MAX,
        valid_from: UnixSeconds(1000),
        expiry: UnixSeconds(1000 + DAY),
        epoch: 0,
    }
}

fn claim(window: u32) -> WindowClaim {
    let key = SignerKey::from_bytes(&[7; 32]).unwrap();
    let domain = Domain::new(1, Address::ZERO);
    let link = Link { domain, issuer: key.address(), key: &key, recipient: RECIPIENT, class: ClassNumber(0) };
    link.window(&mut Rng::from_seed([u8::try_from(window).unwrap(); 32]), window, 1)
}

fn config(price: TokenPrice) -> RedeemerConfig {
    let terms = Terms { spread: Duration::ZERO, ..Terms::new(RECIPIENT, price) };
    RedeemerConfig { confirmations: 0, ..RedeemerConfig::new(terms) }
}

fn redeemer(till: &FakeTill, price: TokenPrice, windows: core::ops::Range<u32>) -> Redeemer<FakeTill> {
    let mut redeemer = Redeemer::new(till.clone(), config(price), [3; 32]);
    for window in windows {
        redeemer.order(Order::Claim(Box::new(claim(window)), class()), UnixSeconds(2000));
    }
    redeemer
}

async fn steps(redeemer: &mut Redeemer<FakeTill>, now: u32, count: usize) -> Vec<Notice> {
    let mut told = Vec::new();
    for _ in 0..count {
        redeemer.step(UnixSeconds(now), &mut told).await;
    }
    told
}

fn key(window: u32) -> (Address, WindowNumber) {
    (claim(window).issuer, WindowNumber(window))
}

#[tokio::test]
async fn several_windows_are_redeemed_in_one_call_and_settled_by_the_watcher() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..5);
    assert_eq!(steps(&mut redeemer, 2000, 3).await, [Notice::Sent { windows: 5, again: 0 }]);
    till.mine();
    steps(&mut redeemer, 2001, 3).await;
    assert_eq!(redeemer.waiting(), 5, "a receipt settles nothing");
    (0..5).for_each(|window| redeemer.order(Order::Settled(key(window)), UnixSeconds(2002)));
    steps(&mut redeemer, 2002, 3).await;
    assert_eq!((redeemer.waiting(), till.bank(|bank| bank.sent.len())), (0, 1));
    // Told again, it is known.
    redeemer.order(Order::Claim(Box::new(claim(1)), class()), UnixSeconds(2003));
    assert_eq!(redeemer.waiting(), 0);
}

#[tokio::test]
async fn whenever_it_dies_every_window_is_paid_once_and_settled() {
    for dies_after in 0..8 {
        for mined_before in [false, true] {
            let till = FakeTill::default();
            let mut first = redeemer(&till, TokenPrice::ANY, 0..3);
            steps(&mut first, 2000, dies_after).await;
            drop(first);
            if mined_before {
                till.mine();
            }
            // The claims come again; of those that were paid meanwhile the watcher told nobody.
            let mut second = redeemer(&till, TokenPrice::ANY, 0..3);
            let mut settled = BTreeSet::new();
            for round in 0..40 {
                let now = 2001 + round * 30;
                for notice in steps(&mut second, now, 2).await {
                    if let Notice::Settled(Settled { window, .. }) = notice {
                        settled.insert(window.0);
                    }
                }
                till.mine();
                // The watcher is asleep; the redeemer is, too, every now and then.
                if round == 12 {
                    second = redeemer(&till, TokenPrice::ANY, 0..3);
                    settled.clear();
                }
            }
            assert_eq!(settled, BTreeSet::from([0, 1, 2]), "{dies_after} {mined_before}");
            assert_eq!(till.bank(|bank| (bank.paid.len(), bank.twice)), (3, 0));
        }
    }
}

#[tokio::test]
async fn a_transaction_that_is_not_mined_is_raised_by_an_eighth() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    steps(&mut redeemer, 2000, 1).await;
    steps(&mut redeemer, 2059, 1).await;
    assert_eq!(till.bank(|bank| bank.sent.len()), 1, "not before its time");
    let told = steps(&mut redeemer, 2060, 1).await;
    assert_eq!(told, [Notice::Sent { windows: 1, again: 1 }]);
    let (first, second) = till.bank(|bank| (bank.sent[0].clone(), bank.sent[1].clone()));
    assert_eq!(first.nonce, second.nonce);
    assert!(second.max_fee >= raised(first.max_fee) && second.max_tip >= raised(first.max_tip));
    till.mine();
    steps(&mut redeemer, 2121, 2).await;
    assert_eq!(till.bank(|bank| (bank.sent.len(), bank.twice)), (2, 0));
}

#[tokio::test]
async fn fees_are_never_more_than_configured() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    for round in 0..200 {
        steps(&mut redeemer, 2000 + round * 61, 1).await;
    }
    let most = till.bank(|bank| bank.sent.iter().map(|payment| payment.max_fee).max().unwrap());
    assert!(most <= 500 * GWEI && most > 200 * GWEI, "{most}");
    till.bank(|bank| bank.base = 600 * GWEI);
    let mut late = self::redeemer(&FakeTill(Arc::clone(&till.0)), TokenPrice::ANY, 1..2);
    assert_eq!(steps(&mut late, 2000, 4).await, [Notice::Dear]);
}

#[tokio::test]
async fn a_loss_is_refused_and_told_until_it_pays() {
    let till = FakeTill::default();
    // A winner is worth a million gwei. It takes 110 000 gas, at the base fee and 1 gwei.
    let price = TokenPrice { wei: 1_000_000 * GWEI, units: FACE };
    let winners: u32 = claim(0).winners();
    let mut redeemer = redeemer(&till, price, 0..1);
    till.bank(|bank| bank.base = u128::from(winners) * 10 * GWEI);
    let told = steps(&mut redeemer, 2000, 3).await;
    assert!(matches!(told[..], [Notice::Loss { cost, worth }] if cost > worth), "{told:?}");
    assert_eq!(steps(&mut redeemer, 2500, 3).await, [], "said once");
    // Even at the end not at a loss.
    assert_eq!(steps(&mut redeemer, 1000 + DAY - 10, 3).await, []);
    assert_eq!(till.bank(|bank| bank.sent.len()), 0);
    till.bank(|bank| bank.base = 0);
    // In the last second it is asked once more.
    assert!(matches!(steps(&mut redeemer, 1000 + DAY - 1, 2).await[..], [Notice::Sent { .. }]));
    // Hurrying it is redeemed for what it costs, which is too little while there is time.
    let till = FakeTill::default();
    let mut late = self::redeemer(&till, price, 0..1);
    till.bank(|bank| bank.base = u128::from(winners) * 6 * GWEI);
    assert!(matches!(steps(&mut late, 2000, 2).await[..], [Notice::Loss { .. }]), "less than twice the cost");
    assert!(matches!(steps(&mut late, 1000 + DAY - 100, 2).await[..], [Notice::Sent { .. }]));
}

#[tokio::test]
async fn what_expires_is_told() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    assert_eq!(steps(&mut redeemer, 1001 + DAY, 2).await, [Notice::Expired(key(0))]);
    assert_eq!(redeemer.waiting(), 0);
}

#[tokio::test]
async fn what_was_paid_in_the_last_second_is_not_lost_before_it_is_final() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    let last = 1000 + DAY;
    assert!(matches!(steps(&mut redeemer, last, 1).await[..], [Notice::Sent { .. }]));
    till.mine();
    assert_eq!(steps(&mut redeemer, last + 100, 3).await, []);
    redeemer.order(Order::Settled(key(0)), UnixSeconds(last + 100));
    assert_eq!(steps(&mut redeemer, last + 10_000, 3).await, []);
}

#[tokio::test]
async fn one_bad_claim_does_not_hold_up_the_others() {
    let till = FakeTill::default();
    till.bank(|bank| bank.bad.insert(WindowNumber(3)));
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..8);
    let mut told = Vec::new();
    for round in 0..60 {
        told.extend(steps(&mut redeemer, 2000 + round * 20, 6).await);
        till.mine();
        let paid = till.bank(|bank| bank.paid.keys().copied().collect::<Vec<_>>());
        for window in paid {
            redeemer.order(Order::Settled((claim(0).issuer, window)), UnixSeconds(2000));
        }
    }
    assert_eq!((redeemer.waiting(), till.bank(|bank| bank.paid.len())), (1, 7));
    let refused = |notice: &&Notice| matches!(notice, Notice::Refused { key, kind: "InvalidSignature", .. } if key.1 == WindowNumber(3));
    assert!((2..12).contains(&told.iter().filter(refused).count()), "tried again, and less and less often");
}

#[tokio::test]
async fn an_issuer_that_cannot_pay_all_is_waited_for_and_then_pays_what_it_has() {
    let (till, mut redeemer, little) = of_an_issuer_with(2);
    till.bank(|bank| bank.estimate = Some(little()));
    let told = steps(&mut redeemer, 2000, 1).await;
    assert!(matches!(&told[..], [Notice::Refused { .. }]), "{told:?}");
    // Shortly before the claim expires.
    till.bank(|bank| bank.estimate = Some(little()));
    let told = steps(&mut redeemer, 1000 + DAY - 60, 2).await;
    assert!(matches!(told[..], [Notice::Sent { .. }]), "{told:?}");
    assert_eq!(till.bank(|bank| windows(&bank.sent[0].data)[0].least), 2);
}

#[tokio::test]
async fn when_everything_is_to_be_claimed_an_issuer_is_not_waited_for_long() {
    for has in [2, 0] {
        let (till, mut redeemer, little) = of_an_issuer_with(has);
        redeemer.order(Order::Hasten, UnixSeconds(2000));
        for now in [2000, 2100] {
            till.bank(|bank| bank.estimate = Some(little()));
            let told = steps(&mut redeemer, now, 1).await;
            assert!(matches!(&told[..], [Notice::Refused { .. }]), "it may get more: {told:?}");
        }
        till.bank(|bank| bank.estimate = Some(little()));
        let told = steps(&mut redeemer, 3000, 2).await;
        match has {
            0 => assert!(matches!(told[..], [Notice::GivenUp(_)]) && redeemer.waiting() == 0, "{told:?}"),
            _ => assert_eq!(till.bank(|bank| windows(&bank.sent[0].data)[0].least), 2),
        }
    }
}

/// A claim of three winners, and what is said of an issuer that can pay so many.
fn of_an_issuer_with(winners: u128) -> (FakeTill, Redeemer<FakeTill>, impl Fn() -> LedgerError) {
    let till = FakeTill::default();
    let mut claim = claim(0);
    // As if three had won.
    claim.least = 3;
    let mut redeemer = Redeemer::new(till.clone(), config(TokenPrice::ANY), [3; 32]);
    redeemer.order(Order::Claim(Box::new(claim), class()), UnixSeconds(2000));
    let little = move || {
        let (paid, least) = (U256::from(winners * FACE), U256::from(3 * FACE));
        revert(EscrowErrors::TooLittle(Escrow::TooLittle { paid, least }))
    };
    (till, redeemer, little)
}

#[tokio::test]
async fn after_a_reorganisation_it_is_submitted_again() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    steps(&mut redeemer, 2000, 1).await;
    till.mine();
    steps(&mut redeemer, 2005, 2).await;
    till.reorganise();
    steps(&mut redeemer, 2010, 2).await;
    till.mine();
    assert_eq!(till.bank(|bank| (bank.sent.len(), bank.paid.len())), (2, 1));
    // And when what the watcher called final is gone.
    steps(&mut redeemer, 2020, 1).await;
    redeemer.order(Order::Settled(key(0)), UnixSeconds(2020));
    assert_eq!(redeemer.waiting(), 0);
    till.reorganise();
    redeemer.order(Order::Withdrawn(key(0)), UnixSeconds(2030));
    steps(&mut redeemer, 2040, 2).await;
    till.mine();
    assert_eq!(till.bank(|bank| (bank.sent.len(), bank.paid.len())), (3, 1));
}

/// Regression: a transaction whose predecessors a reorganisation had taken waited for them, and they for it.
#[tokio::test]
async fn a_reorganisation_that_takes_several_transactions_holds_up_none() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    steps(&mut redeemer, 2000, 1).await;
    till.mine();
    steps(&mut redeemer, 2005, 1).await;
    redeemer.order(Order::Settled(key(0)), UnixSeconds(2005));
    redeemer.order(Order::Claim(Box::new(claim(1)), class()), UnixSeconds(2010));
    steps(&mut redeemer, 2010, 1).await;
    till.mine();
    steps(&mut redeemer, 2015, 1).await;
    assert_eq!(till.bank(|bank| (bank.paid.len(), bank.nonce)), (2, 2));
    till.reorganise();
    till.reorganise();
    assert_eq!(till.bank(|bank| (bank.paid.len(), bank.nonce)), (0, 0));
    redeemer.order(Order::Withdrawn(key(0)), UnixSeconds(2020));
    for now in (2020..2320).step_by(20) {
        steps(&mut redeemer, now, 3).await;
        till.mine();
        for window in till.bank(|bank| bank.paid.keys().copied().collect::<Vec<_>>()) {
            redeemer.order(Order::Settled(key(window.0)), UnixSeconds(now));
        }
    }
    assert_eq!(till.bank(|bank| (bank.paid.len(), bank.twice)), (2, 0));
    assert_eq!(redeemer.waiting(), 0);
}

#[tokio::test]
async fn a_reorganisation_after_a_restart_takes_nothing_away() {
    let till = FakeTill::default();
    let mut first = redeemer(&till, TokenPrice::ANY, 0..3);
    steps(&mut first, 2000, 1).await;
    till.mine();
    (0..3).for_each(|window| first.order(Order::Settled(key(window)), UnixSeconds(2010)));
    drop(first);
    // Whoever handed them in has forgotten those that were settled, but for what is needed to make them again.
    let mut second = Redeemer::new(till.clone(), config(TokenPrice::ANY), [5; 32]);
    let keep = |window| Order::Keep(Box::new(claim(window)), class());
    (0..3).for_each(|window| second.order(keep(window), UnixSeconds(2020)));
    assert_eq!((steps(&mut second, 2020, 5).await, second.waiting()), (vec![], 0), "settled is settled");
    assert_eq!(till.bank(|bank| bank.sent.len()), 1);
    // Their block is gone; one of them is in another one, since somebody has sent it again.
    till.reorganise();
    till.bank(|bank| bank.paid.insert(WindowNumber(1), bank.height));
    second.order(Order::Reorganised, UnixSeconds(2030));
    second.order(Order::Withdrawn(key(0)), UnixSeconds(2030));
    let mut told = Vec::new();
    for round in 0..4 {
        told.extend(steps(&mut second, 2030 + round * 20, 4).await);
        till.mine();
    }
    let settled: BTreeSet<u32> = told
        .iter()
        .filter_map(|notice| match notice {
            Notice::Settled(settled) => Some(settled.window.0),
            _ => None,
        })
        .collect();
    assert_eq!(settled, BTreeSet::from([1]), "{told:?}");
    assert!(told.contains(&Notice::Sent { windows: 2, again: 0 }), "{told:?}");
    assert_eq!(till.bank(|bank| (bank.paid.len(), bank.twice)), (3, 0));
    [0, 2].into_iter().for_each(|at| second.order(Order::Settled(key(at)), UnixSeconds(2100)));
    assert_eq!(second.waiting(), 0);
}

#[tokio::test]
async fn a_claim_that_is_handed_in_is_settled_though_it_was_kept_as_settled() {
    let till = FakeTill::default();
    let mut first = redeemer(&till, TokenPrice::ANY, 0..1);
    steps(&mut first, 2000, 1).await;
    till.mine();
    drop(first);
    // The process ended between two files: in one of them it is settled, in the other it is not.
    let mut second = Redeemer::new(till.clone(), config(TokenPrice::ANY), [5; 32]);
    second.order(Order::Keep(Box::new(claim(0)), class()), UnixSeconds(2020));
    second.order(Order::Claim(Box::new(claim(0)), class()), UnixSeconds(2020));
    let told = steps(&mut second, 2021, 4).await;
    assert!(matches!(&told[..], [Notice::Settled(settled)] if settled.window.0 == 0), "{told:?}");
    assert_eq!((second.waiting(), till.bank(|bank| bank.twice)), (0, 0));
}

#[tokio::test]
async fn answers_of_servers_that_are_no_answers_lose_nothing() {
    let outage = || LedgerError::Unavailable { server: "here".into(), what: "gone".into() };
    let refusal = |reason| LedgerError::Transaction { reason, message: String::new() };
    for error in [
        outage(),
        refusal(Refusal::Known),
        refusal(Refusal::NonceTooLow),
        refusal(Refusal::Underpriced),
        refusal(Refusal::FeeTooLow),
        refusal(Refusal::Funds),
        refusal(Refusal::Other),
    ] {
        let till = FakeTill::default();
        let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..2);
        till.bank(|bank| bank.send = Some(error.clone()));
        for round in 0..30 {
            steps(&mut redeemer, 2000 + round * 61, 3).await;
            till.mine();
            let paid = till.bank(|bank| bank.paid.keys().copied().collect::<Vec<_>>());
            for window in paid {
                redeemer.order(Order::Settled((claim(0).issuer, window)), UnixSeconds(2000));
            }
        }
        assert_eq!(till.bank(|bank| (bank.paid.len(), bank.twice)), (2, 0), "{error:?}");
    }
}

#[tokio::test]
async fn a_payment_is_not_searched_before_it_could_be_made() {
    let till = FakeTill::default();
    let config = RedeemerConfig { range: 10, ..config(TokenPrice::ANY) };
    let mut redeemer = Redeemer::new(till.clone(), config, [3; 32]);
    redeemer.order(Order::Claim(Box::new(claim(0)), class()), UnixSeconds(6100));
    // It was paid before a restart, in a block that is not final yet. Its class is valid since block 84.
    till.bank(|bank| {
        bank.height = 500;
        bank.paid.insert(WindowNumber(0), 501);
    });
    steps(&mut redeemer, 6100, 2).await;
    let searched = till.bank(|bank| bank.searched.clone());
    assert!(searched.len() > 40, "it was searched: {searched:?}");
    assert!(searched.iter().all(|from| *from > 70), "{searched:?}");
    till.bank(|bank| bank.height = 501);
    let told = steps(&mut redeemer, 6200, 3).await;
    assert!(matches!(&told[..], [Notice::Settled(settled)] if settled.window.0 == 0), "{told:?}");
}

#[tokio::test]
async fn what_somebody_else_sends_with_the_key_is_waited_for_and_not_outbid() {
    let till = FakeTill::default();
    let turn = Turn::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1).with_turn(turn.clone());
    // It sends something, which is in no block for a long time.
    let mut held = turn.take().await;
    held.note(0);
    assert_eq!(steps(&mut redeemer, 2000, 3).await, []);
    let theirs = Payment { nonce: 0, gas: 1, max_fee: GWEI, max_tip: GWEI, data: Bytes::new() };
    till.bank(|bank| {
        bank.sent.push(theirs.clone());
        bank.send = Some(LedgerError::Transaction { reason: Refusal::Underpriced, message: String::new() });
    });
    // And gives up waiting for it, though it may still come.
    drop(held);
    assert_eq!(steps(&mut redeemer, 2001, 1).await, []);
    assert_eq!(till.bank(|bank| bank.sent.clone()), [theirs], "it was not replaced");
    // Then it came. While our own waits it is nobody else's turn, and when it is in a block it is.
    till.bank(|bank| bank.nonce = 1);
    assert_eq!(steps(&mut redeemer, 2100, 1).await, [Notice::Sent { windows: 1, again: 0 }]);
    assert!(turn.try_take().is_none());
    till.mine();
    steps(&mut redeemer, 2101, 1).await;
    assert!(turn.try_take().is_some());
}

#[tokio::test]
async fn a_wrong_redeemer_is_told_once() {
    let till = FakeTill::default();
    let mut redeemer = redeemer(&till, TokenPrice::ANY, 0..1);
    for now in [2000, 2100, 2200] {
        till.bank(|bank| bank.estimate = Some(revert(EscrowErrors::NotRedeemer(Escrow::NotRedeemer {}))));
        let told = steps(&mut redeemer, now, 1).await;
        assert_eq!(told, if now == 2000 { vec![Notice::NotRedeemer] } else { vec![] });
    }
}

#[tokio::test]
async fn who_leaves_waits_neither_for_what_he_has_nor_for_what_comes() {
    let till = FakeTill::default();
    let mut config = config(TokenPrice::ANY);
    config.terms.spread = Duration::from_secs(1 << 30);
    let mut redeemer = Redeemer::new(till.clone(), config, [3; 32]);
    let order = |window| Order::Claim(Box::new(claim(window)), class());
    redeemer.order(order(0), UnixSeconds(2000));
    assert_eq!(steps(&mut redeemer, 2000, 2).await, []);
    redeemer.order(Order::Hasten, UnixSeconds(2001));
    assert_eq!(steps(&mut redeemer, 2001, 1).await, [Notice::Sent { windows: 1, again: 0 }]);
    till.mine();
    redeemer.order(Order::Settled(key(0)), UnixSeconds(2002));
    redeemer.order(order(1), UnixSeconds(2003));
    assert_eq!(steps(&mut redeemer, 2003, 1).await, [Notice::Sent { windows: 1, again: 0 }]);
}

#[tokio::test]
async fn redemptions_are_spread() {
    let till = FakeTill::default();
    let mut config = config(TokenPrice::ANY);
    config.terms.spread = Duration::from_secs(3600);
    let mut redeemer = Redeemer::new(till.clone(), config, [9; 32]);
    for window in 0..20 {
        redeemer.order(Order::Claim(Box::new(claim(window)), class()), UnixSeconds(2000));
    }
    let mut times = Vec::new();
    for now in (2000..2000 + 5 * 3600).step_by(60) {
        let before = till.bank(|bank| bank.paid.len());
        steps(&mut redeemer, now, 2).await;
        till.mine();
        let paid = till.bank(|bank| bank.paid.keys().copied().collect::<Vec<_>>());
        times.extend((before..paid.len()).map(|_| now - 2000));
        for window in paid {
            redeemer.order(Order::Settled((claim(0).issuer, window)), UnixSeconds(now));
        }
    }
    assert!(times.len() >= 17, "{times:?}");
    let early = times.iter().filter(|time| **time < 1800).count();
    assert!((2..15).contains(&early), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_paid_on_the_development_chain() {
    let world = World::new().await;
    let contracts = &world.contracts;
    let (number, price) = world.class(DAY).await;
    let key = SignerKey::from_bytes(&world.keys[1]).unwrap();
    let (issuer, recipient) = (world.issuer.address(), world.recipient.address());
    let link = Link { domain: world.domain(), issuer, key: &key, recipient, class: number };
    let mut rng = Rng::from_seed([4; 32]);
    let claims = [link.window(&mut rng, 0, 2), link.window(&mut rng, 1, 1)];
    let winners: u32 = claims.iter().map(WindowClaim::winners).sum();
    world.issuer.deposit(contracts, issuer, 500_000).await.unwrap();
    world.recipient.set_redeemer(contracts, world.redeemer.address()).await.unwrap();
    let evm = Evm::new(&EvmConfig::new(&world.url), world.domain()).unwrap();
    let till = EvmTill::new(evm, Arc::clone(&world.redeemer));
    let terms = Terms { spread: Duration::ZERO, ..Terms::new(recipient, TokenPrice::ANY) };
    let config = RedeemerConfig { confirmations: 0, ..RedeemerConfig::new(terms) };
    let now = UnixSeconds(u32::try_from(crate::world::now()).unwrap());
    let mut redeemer = Redeemer::new(till.clone(), config, [3; 32]);
    let mut told = Vec::new();
    for claim in &claims {
        redeemer.order(Order::Claim(Box::new(claim.clone()), price), now);
    }
    redeemer.step(now, &mut told).await;
    assert_eq!(told, [Notice::Sent { windows: 2, again: 0 }]);
    let credits = world.rich.balances(contracts, recipient).await.unwrap().credits;
    assert_eq!(credits, u128::from(winners) * FACE);
    // It dies; the claims come again, and what was paid is found.
    let mut again = Redeemer::new(till, config, [5; 32]);
    for claim in &claims {
        again.order(Order::Claim(Box::new(claim.clone()), price), now);
    }
    let mut told = Vec::new();
    for _ in 0..6 {
        again.step(now, &mut told).await;
    }
    let paid: u32 = told
        .iter()
        .map(|notice| match notice {
            Notice::Settled(settled) => settled.settlement(&price).paid,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!((paid, again.waiting()), (winners, 0));
}

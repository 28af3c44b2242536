//! What `tombola account` rests on: what an account has and had, read back from contracts and events, and transactions that are
//! waited for until they are final. The same on our development chain and on anvil.

use std::time::Duration;

use alloy_primitives::U256;
use tombola_chain::ops::{Operator, OpsError, Reserve};
use tombola_chain::{EvmConfig, Wallet};
use tombola_mixing::Rng;
use tombola_tickets::{SignerKey, encode};

use crate::claims::Link;
use crate::hosts::Host;
use crate::world::{CHAIN_ID, DAY, FACE, Parties, stranger};

async fn what_an_account_did_is_read_back(host: Host) {
    let parties = Parties::new(&host.url()).await;
    let (contracts, issuer) = (&parties.contracts, &parties.issuer);
    let (payer, recipient) = (issuer.address(), parties.recipient.address());
    let units = issuer.units(contracts).await.unwrap();
    assert_eq!((units.decimals(), units.show(1_500_000_000_000_000_000_u128)), (18, "1.5 TTT".to_owned()));

    issuer.open_reserve(contracts, recipient, 70_000).await.unwrap();
    parties.rich.fund_reserve(contracts, payer, recipient, 5_000).await.unwrap();
    issuer.open_reserve(contracts, stranger(), 300).await.unwrap();
    parties.rich.fund_reserve(contracts, recipient, payer, 1).await.unwrap();
    let reserves = issuer.reserves(contracts, payer, 0).await.unwrap();
    let of = |to, balance, leaves_at| Reserve { recipient: to, balance, leaves_at };
    let mut expected = [of(recipient, 75_000, 0), of(stranger(), 300, 0)];
    expected.sort_by_key(|reserve| reserve.recipient);
    assert_eq!(reserves, expected);
    assert_eq!(issuer.funded(contracts, payer, recipient, 0).await.unwrap(), 75_000);

    let (class, _) = parties.class(DAY).await;
    let key = SignerKey::from_bytes(&parties.keys[1]).unwrap();
    let link = Link { domain: parties.domain(), issuer: payer, key: &key, recipient, class };
    let mut rng = Rng::from_seed([9; 32]);
    let windows = [3, 8].map(|number| link.window(&mut rng, number, 1));
    for window in &windows {
        let claims = encode(std::slice::from_ref(window)).unwrap();
        parties.recipient.redeem(contracts, recipient, claims).await.unwrap();
    }
    let worth = |at: usize| u128::from(windows[at].winners()) * FACE;
    let (earned, nothing) = parties.rich.redemptions(contracts, recipient, 0).await.unwrap();
    let of_windows: Vec<_> = earned.iter().map(|one| (one.issuer, one.window.0, one.paid)).collect();
    assert_eq!(of_windows, [(payer, 3, worth(0)), (payer, 8, worth(1))]);
    assert_eq!(nothing, []);
    let (nothing, spent) = parties.rich.redemptions(contracts, payer, 0).await.unwrap();
    assert_eq!((nothing, spent), (vec![], earned.clone()));
    let late = earned[1].block;
    let (rest, _) = parties.rich.redemptions(contracts, recipient, late).await.unwrap();
    assert_eq!(rest, earned[1..], "from a block on");
    // What left a reserve was put in all the same.
    assert_eq!(issuer.funded(contracts, payer, recipient, 0).await.unwrap(), 75_000);
    assert_eq!(issuer.reserve(contracts, payer, recipient).await.unwrap().0, 75_000 - worth(0) - worth(1));

    // Only what is needed is allowed.
    let allowed = || async { issuer.allowance(contracts, payer, contracts.escrow).await.unwrap() };
    issuer.approve(contracts, contracts.escrow, U256::from(5)).await.unwrap();
    issuer.allow(contracts, contracts.escrow, 5).await.unwrap();
    assert_eq!(allowed().await, U256::from(5));
    issuer.allow(contracts, contracts.escrow, 9).await.unwrap();
    assert_eq!(allowed().await, U256::from(9));
    assert!(!issuer.is_waiting().await.unwrap());
}

async fn blocks_are_waited_for(host: Host) {
    let parties = Parties::new(&host.url()).await;
    let contracts = &parties.contracts;
    let of = |patience| {
        let wallet = Wallet::from_bytes(&parties.keys[1]).unwrap();
        let operator = Operator::new(&EvmConfig::new(host.url()), CHAIN_ID, wallet.into()).unwrap();
        operator.with_confirmations(3).with_patience(patience)
    };
    let issuer = of(Duration::from_secs(300));
    let account = issuer.address();
    let mining = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            host.mine(1).await;
        }
    };
    let done = tokio::select! {
        done = issuer.deposit(contracts, account, 50) => done,
        () = mining => unreachable!("it goes on"),
    };
    assert_eq!(done.unwrap(), 50);
    // No block comes: what is so is said, and that it may be looked at.
    let impatient = of(Duration::from_secs(15));
    let error = impatient.deposit(contracts, account, 7).await.unwrap_err();
    assert!(matches!(error, OpsError::Unconfirmed { followed: 0, confirmations: 3, .. }), "{error}");
    assert_eq!(parties.rich.balances(contracts, account).await.unwrap().deposit, 57);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_did_is_read_back_on_the_development_chain() {
    what_an_account_did_is_read_back(Host::ours().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_did_is_read_back_on_anvil() {
    what_an_account_did_is_read_back(Host::anvil().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_waited_for_on_the_development_chain() {
    blocks_are_waited_for(Host::ours().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_waited_for_on_anvil() {
    blocks_are_waited_for(Host::anvil().await).await;
}

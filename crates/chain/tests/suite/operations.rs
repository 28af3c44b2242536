//! Every operation of an account, on the development chain.

use alloy_primitives::{Address, U256};
use tombola_chain::LedgerError;
use tombola_chain::Revert;
use tombola_chain::ops::{NodeRole, OpsError};
use tombola_tickets::{ClassNumber, PriceClass, WinProbability};

use crate::world::{DAY, World, identity, stranger};

fn reason<T: std::fmt::Debug>(result: Result<T, OpsError>) -> String {
    match result {
        Err(OpsError::Ledger { source: LedgerError::Reverted(revert), .. }) => revert.to_string(),
        other => panic!("no revert: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deposits_are_announced_and_withdrawn() {
    let world = World::new().await;
    let (issuer, contracts) = (&world.issuer, &world.contracts);
    assert_eq!(issuer.deposit(contracts, issuer.address(), 5000).await.unwrap(), 5000);
    assert_eq!(world.rich.deposit(contracts, issuer.address(), 500).await.unwrap(), 500);
    assert!(reason(issuer.withdraw_deposit(contracts).await).contains("announced"));
    issuer.request_unlock(contracts, 2000).await.unwrap();
    let balances = issuer.balances(contracts, issuer.address()).await.unwrap();
    assert_eq!((balances.deposit, balances.unlocking), (5500, 2000));
    assert!(balances.unlocks_at > 0);
    assert!(reason(issuer.withdraw_deposit(contracts).await).contains("notice runs until"));
    world.pass(3 * DAY + 1);
    issuer.set_payout(contracts, stranger()).await.unwrap();
    assert_eq!(issuer.withdraw_deposit(contracts).await.unwrap(), 2000);
    let balances = issuer.balances(contracts, stranger()).await.unwrap();
    assert_eq!(balances.tokens, U256::from(2000));
    assert!(reason(issuer.deposit(contracts, issuer.address(), 0).await).contains("nothing to move"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserves_are_opened_funded_closed_and_withdrawn() {
    let world = World::new().await;
    let (issuer, contracts, to) = (&world.issuer, &world.contracts, world.recipient.address());
    assert_eq!(issuer.open_reserve(contracts, to, 700).await.unwrap(), 700);
    assert_eq!(world.rich.fund_reserve(contracts, issuer.address(), to, 50).await.unwrap(), 50);
    assert_eq!(issuer.reserve(contracts, issuer.address(), to).await.unwrap(), (750, 0));
    issuer.close_reserve(contracts, to).await.unwrap();
    assert!(issuer.reserve(contracts, issuer.address(), to).await.unwrap().1 > 0);
    assert!(reason(issuer.withdraw_reserve(contracts, to).await).contains("notice"));
    world.pass(3 * DAY + 1);
    assert_eq!(issuer.withdraw_reserve(contracts, to).await.unwrap(), 750);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_with_a_stake_and_leave() {
    let world = World::new().await;
    let (node, contracts) = (&world.recipient, &world.contracts);
    assert!(reason(node.leave(contracts).await).contains("no member"));
    let least = reason(node.join(contracts, NodeRole::Mix, identity(1), 99).await);
    assert_eq!(least, "a node stakes at least 100, and 99 arrived");
    node.join(contracts, NodeRole::Gateway, identity(1), 600).await.unwrap();
    assert!(reason(node.join(contracts, NodeRole::Mix, identity(1), 600).await).contains("member"));
    assert_eq!(node.current_epoch(contracts).await.unwrap(), 0);
    world.pass(DAY);
    assert_eq!(node.current_epoch(contracts).await.unwrap(), 1);
    node.leave(contracts).await.unwrap();
    world.pass(5 * DAY);
    assert_eq!(node.withdraw_stake(contracts).await.unwrap(), 600);
    let balances = node.balances(contracts, node.address()).await.unwrap();
    assert_eq!((balances.stake, balances.tokens), (0, U256::from(1_000_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_added_limited_and_revoked() {
    let world = World::new().await;
    let (issuer, contracts, signer) = (&world.issuer, &world.contracts, stranger());
    assert!(reason(issuer.revoke_signer(contracts, signer).await).contains("does not sign"));
    issuer.add_signer(contracts, signer, u128::MAX).await.unwrap();
    issuer.cap_signer(contracts, signer, 50).await.unwrap();
    issuer.revoke_signer(contracts, signer).await.unwrap();
    assert!(reason(issuer.add_signer(contracts, signer, 1).await).contains("or was revoked"));
    issuer.set_redeemer(contracts, world.redeemer.address()).await.unwrap();
    assert!(reason(issuer.add_signer(contracts, Address::ZERO, 1).await).contains("last 16 bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_are_registered_and_read_back() {
    let world = World::new().await;
    let (number, class) = world.class(DAY).await;
    assert_eq!(number, ClassNumber(0));
    assert_eq!(world.rich.class(&world.contracts, number).await.unwrap(), Some(class));
    assert_eq!(world.rich.class(&world.contracts, ClassNumber(1)).await.unwrap(), None);
    let free = PriceClass { win_probability: WinProbability::new(0).unwrap(), ..class };
    assert!(
        reason(world.rich.register_class(&world.contracts, &free).await).contains("no such class can be")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_wei_are_sent() {
    let world = World::new().await;
    let poor = stranger();
    world.rich.send_wei(poor, U256::from(7)).await.unwrap();
    world.rich.transfer(&world.contracts, poor, 8).await.unwrap();
    let balances = world.rich.balances(&world.contracts, poor).await.unwrap();
    assert_eq!((balances.wei, balances.tokens), (U256::from(7), U256::from(8)));
    let missing = reason(world.rich.transfer(&world.contracts, poor, u128::MAX).await);
    assert!(missing.contains("needs"), "{missing}");
}

#[test]
fn unknown_reverts_are_shown() {
    let revert = Revert::decode(&alloy_primitives::Bytes::from_static(&[9, 9, 9, 9]));
    assert!(revert.to_string().contains("0x09090909"));
}

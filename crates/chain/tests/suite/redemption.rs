//! Windows with winners, claimed and paid on the development chain.

use tombola_mixing::Rng;
use tombola_tickets::{SignerKey, encode};

use crate::claims::Link;
use crate::world::{DAY, FACE, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_with_several_winners_are_paid_once() {
    let world = World::new().await;
    let (issuer, recipient, contracts) = (&world.issuer, &world.recipient, &world.contracts);
    let (class, price) = world.class(DAY).await;
    let key = SignerKey::from_bytes(&world.keys[1]).unwrap();
    let link = Link {
        domain: world.domain(),
        issuer: issuer.address(),
        key: &key,
        recipient: recipient.address(),
        class,
    };
    let mut rng = Rng::from_seed([1; 32]);
    let windows = [link.window(&mut rng, 0, 3), link.window(&mut rng, 300, 2)];
    let winners: u32 = windows.iter().map(|window| window.winners()).sum();
    assert!(winners >= 5);
    issuer.deposit(contracts, issuer.address(), 500_000).await.unwrap();
    let claims = encode(&windows).unwrap();
    let gas = recipient.redeem(contracts, recipient.address(), claims.clone()).await.unwrap();
    assert!(gas > 21_000 && gas < 2_000_000, "{gas}");
    let paid = u128::from(winners) * price.face_value;
    assert_eq!(price.face_value, FACE);
    let rich = &world.rich;
    let balances = |account| async move { rich.balances(contracts, account).await.unwrap() };
    assert_eq!(balances(issuer.address()).await.deposit, 500_000 - paid);
    assert_eq!(balances(recipient.address()).await.credits, paid);
    let again = recipient.redeem(contracts, recipient.address(), claims.clone()).await.unwrap_err();
    assert!(again.to_string().contains("was claimed before"), "{again}");
    let stranger = issuer.redeem(contracts, recipient.address(), claims).await.unwrap_err();
    assert!(stranger.to_string().contains("does not redeem"), "{stranger}");
    recipient.deposit_credits(contracts, 500).await.unwrap();
    let sent = recipient.withdraw_credits(contracts, recipient.address()).await.unwrap();
    assert_eq!(sent, paid - 500);
    assert_eq!(balances(recipient.address()).await.deposit, 500);
}

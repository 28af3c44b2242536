//! A client that cannot pay what it sends, and does not know: somebody shows it another chain than its gateway's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tombola::local::Chain;
use tombola_chain::devchain::Genesis;
use tombola_chain::keystore::{Keystore, Password, Work};
use tombola_chain::ops::{Contracts, EscrowTerms, Operator};
use tombola_chain::{EvmConfig, Wallet};
use tombola_client::{Home, NewHome};
use tombola_node::clock::unix_now;
use tombola_node::earnings;
use tombola_node::payment::PaymentConfig;
use tombola_tests::hand::quick;
use tombola_tests::kills::World;
use tombola_tests::nodes::PaidNetwork;
use tombola_tests::process::Process;
use tombola_tests::{Metrics, PATIENCE, eventually};
use tombola_tickets::{Address, PriceClass, UnixSeconds, WinProbability};

const CHAIN_ID: u64 = 31_337;
const MUCH: u128 = 1_000_000_000_000_000_000_000;
const DAY: u32 = 86_400;
/// Winners that the client can pay. It has half of another one more, so that it is served until all are won.
const WINNERS: u32 = 3;
/// And so many more, with a probability of less than one in a million, may win in what is accepted at a time: 160 tickets at most.
const MORE: u32 = 12;

/// Whoever owns the first account of a development chain.
fn operator(url: &str) -> Operator {
    let genesis = Genesis { chain_id: CHAIN_ID, seed: "tombola".into(), accounts: 10, time: 0 };
    let wallet = Arc::new(Wallet::from_bytes(&genesis.key(0)).unwrap());
    Operator::new(&EvmConfig::new(url), CHAIN_ID, wallet).unwrap()
}

/// A chain of its own on which the same account deploys the same: everything has the same address, and other money is in it.
async fn deploy_again(url: &str, classes: usize) -> (Operator, Contracts) {
    let operator = operator(url);
    let token = operator.deploy_token(18).await.unwrap();
    let now = u32::try_from(unix_now()).unwrap();
    let terms = EscrowTerms {
        max_ticket_life: 9 * DAY,
        notice_period: 10 * DAY,
        genesis: u64::from(now - DAY),
        epoch_length: 9 * DAY,
        min_stake: 1,
    };
    let contracts = operator.deploy_escrow(token, &terms).await.unwrap();
    operator.mint(&contracts, operator.address(), MUCH).await.unwrap();
    operator.approve(&contracts, contracts.escrow, u128::MAX.try_into().unwrap()).await.unwrap();
    for _ in 0..classes {
        let price = PriceClass {
            face_value: 1,
            win_probability: WinProbability::from_ratio(1, 64).unwrap(),
            valid_from: UnixSeconds(now - DAY / 2),
            expiry: UnixSeconds(now + 8 * DAY),
            epoch: 0,
        };
        operator.register_class(&contracts, &price).await.unwrap();
    }
    (operator, contracts)
}

#[test]
fn a_client_that_cannot_pay_is_refused_and_nobody_else_is() {
    let mut network = PaidNetwork::start(1, 1, 1, quick(1), Chain::Own);
    network.unpaid = MORE.into();
    let epoch = network.network.network().epochs().first().unwrap().clone();
    let gateway = epoch.node(epoch.gateways()[0]).unwrap();
    let recipient = Address::from(gateway.account.unwrap().0);
    let metrics = network.network.nodes().find(|node| node.name == "gateway 1").unwrap().metrics;

    // It has what a client has, but on another chain.
    let rich = network.network.new_client("rich").unwrap();
    let text = std::fs::read_to_string(rich.join("payment.toml")).unwrap();
    let mut config: PaymentConfig = toml::from_str(&text).unwrap();
    let home = network.network.folder().join("clients/poor");
    let authority = network.network.authority().to_string();
    let new = NewHome {
        network: network.network.document(),
        authority: &authority,
        gateway: Some(&gateway.identity.to_string()),
    };
    Home::create(&home, &new).unwrap();
    let password = Password::generate(&home.join(&config.password)).unwrap();
    let poor = Keystore::new(home.join(&config.keystore)).create(&password, Work::Light).unwrap().address();
    let mut shown =
        Process::tombola("another chain", &["devchain", "--listen", "127.0.0.1:0", "--exit-with-stdin"]);
    let line = shown.line().unwrap();
    let url = line.split_once(" at ").unwrap().1.split_once(',').unwrap().0.to_owned();
    let real = std::mem::replace(&mut config.rpc_url, url.clone());
    config.start_block = 0;
    std::fs::write(home.join("payment.toml"), toml::to_string(&config).unwrap()).unwrap();
    let classes = epoch.payment().unwrap().classes.clone();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (operator_shown, contracts) = deploy_again(&url, classes.len()).await;
        operator_shown.fund_reserve(&contracts, poor, recipient, MUCH / 2).await.unwrap();
        let operator = operator(&real);
        let number = tombola_tickets::ClassNumber(classes[0]);
        let face = operator.class(&contracts, number).await.unwrap().unwrap().face_value;
        let reserve = u128::from(WINNERS) * face + face / 2;
        operator.fund_reserve(&contracts, poor, recipient, reserve).await.unwrap();
    });
    let network_folder = network.network.folder().to_path_buf();
    let mut world = World::around(network, &["gateway 1", "gateway 1"]);
    let args = ["client", "--home", home.to_str().unwrap(), "run", "--save"];
    let save = home.join("received");
    let mut client = Process::tombola("poor", &[&args[..], &[save.to_str().unwrap()]].concat());
    let address = client.event("ready")["address"].as_str().unwrap().to_owned();
    let unpaid = || Metrics::of(metrics).with("tombola_packets_dropped_total", "reason", "unpaid");
    // What it has pays for a while; then nothing of it goes on.
    let data = network_folder.join("gateway-1/data");
    let won = || -> u32 {
        let Some((_, windows)) = earnings::read(&data).unwrap() else { return 0 };
        windows.iter().filter(|window| window.issuer == poor).map(|window| window.winners).sum()
    };
    let deadline = Instant::now() + PATIENCE * 3;
    while won() < WINNERS {
        assert!(Instant::now() < deadline, "{} of {WINNERS} were won", won());
        std::thread::sleep(Duration::from_millis(500));
    }
    eventually("packets are refused", || (unpaid() > 50.0).then_some(()));
    client.tell(&json!({ "send": { "to": address, "text": "for nothing" } }).to_string());
    let before = unpaid();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        for from in 0..2 {
            if world.book.may_send(from) {
                world.send_text(from, 1 - from, 0);
            }
        }
        world.look();
    }
    // After so many that nobody acknowledges it waits half a minute until it counts the first of them as lost.
    eventually("it goes on, and so does the gateway's refusing", || (unpaid() > before).then_some(()));
    // What it was served on credit when the last one won may have won too, and is worth less than a winner on average.
    assert!((WINNERS..=WINNERS + MORE).contains(&won()), "{} have won", won());
    let said = client.lines_so_far();
    assert!(!said.iter().any(|line| line.contains("\"received\"")), "{said:?}");
    client.close_input();
    client.wait();
    world.settle(PATIENCE);
    let (totals, tickets) = world.settle_up();
    let tickets = tickets.unwrap();
    assert!(totals.messages > 20, "{totals:?}");
    assert!(tickets.redeemed > 0, "{tickets:#?}");
}

//! What payment needs of the chain, on the development chain: prices of a client whose document moves on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tombola_chain::devchain::{DevChain, Genesis, Server};
use tombola_chain::ops::{Contracts, EscrowTerms, Operator};
use tombola_chain::{EvmConfig, Wallet};
use tombola_link::LinkSecret;
use tombola_mixing::Time;
use tombola_node::clock::{Clock, unix_now};
use tombola_node::payment::PaymentConfig;
use tombola_node::payment_client::{ClientChain, ClientPayer, ClientWatch};
use tombola_node::purse::{Purse, PurseFile};
use tombola_node::shutdown::Shutdown;
use tombola_protocol::client::{Client, ClientKeys};
use tombola_protocol::payment::{Fact, Payments, Unpaid};
use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_tickets::records::tables;
use tombola_tickets::{
    Address, Change, ClassNumber, PriceClass, Restore, SignerKey, UnixSeconds, WinProbability,
};
use tombola_topology::{
    AuthoritySecret, ChainAddress, Draft, EpochDraft, EpochNumber, IdentityKey, Network, Node, Parameters,
    Payment, Role, SphinxKey, UnixTime,
};

const CHAIN_ID: u64 = 31_337;
const DAY: u32 = 86_400;

fn identity(number: u8) -> IdentityKey {
    LinkSecret::from_seed([number; 32]).identity()
}

fn node(number: u8, role: Role) -> Node {
    Node {
        role,
        identity: identity(number),
        sphinx_key: SphinxKey::from_bytes(SecretKey::from_bytes([number; 32]).public_key().to_bytes()),
        addresses: vec![format!("/ip4/127.0.0.1/tcp/{}", 1000 + u16::from(number))],
        client_addresses: if role == Role::Gateway { vec!["/ip4/127.0.0.1/tcp/1".into()] } else { vec![] },
        account: Some(ChainAddress([number; 20])),
    }
}

/// A chain with an escrow, and whoever registers classes there.
struct World {
    chain: Arc<DevChain>,
    _server: Server,
    url: String,
    operator: Operator,
    contracts: Contracts,
}

impl World {
    async fn new() -> Self {
        let genesis = Genesis { chain_id: CHAIN_ID, seed: "node".into(), accounts: 1, time: unix_now() };
        let wallet = Arc::new(Wallet::from_bytes(&genesis.key(0)).unwrap());
        let chain = Arc::new(DevChain::new(genesis));
        let server = chain.start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()).unwrap();
        let url = server.url();
        let operator = Operator::new(&EvmConfig::new(&url), CHAIN_ID, wallet).unwrap();
        let token = operator.deploy_token(18).await.unwrap();
        let terms = EscrowTerms {
            max_ticket_life: 2 * DAY,
            notice_period: 3 * DAY,
            genesis: unix_now() - 1000,
            epoch_length: DAY,
            min_stake: 100,
        };
        let contracts = operator.deploy_escrow(token, &terms).await.unwrap();
        Self { chain, _server: server, url, operator, contracts }
    }

    async fn class(&self) -> ClassNumber {
        let valid_from = UnixSeconds(u32::try_from(unix_now()).unwrap() - 10);
        let class = PriceClass {
            face_value: 1000,
            win_probability: WinProbability::MAX,
            valid_from,
            expiry: UnixSeconds(valid_from.0 + DAY),
            epoch: 0,
        };
        self.operator.register_class(&self.contracts, &class).await.unwrap()
    }

    /// A document of one epoch, whose links are all of one class.
    fn network(&self, number: u64, class: ClassNumber) -> Network {
        let payment = Payment {
            chain_id: CHAIN_ID,
            escrow: ChainAddress(self.contracts.escrow.into()),
            classes: vec![class.0; 3],
        };
        let nodes = vec![node(1, Role::Mix { layer: 1 }), node(2, Role::Gateway)];
        let epoch = EpochDraft {
            number: EpochNumber(number),
            valid_from: UnixTime(1_000_000 * number),
            valid_until: UnixTime(1_000_000 * (number + 1)),
            payment: Some(payment),
            nodes,
        };
        let parameters = Parameters { layers: 1, ..Parameters::default() };
        let draft = Draft { name: "payment".into(), serial: number, parameters, epochs: vec![epoch] };
        draft.sign(&AuthoritySecret::from_seed([9; 32])).unwrap()
    }

    fn config(&self) -> PaymentConfig {
        PaymentConfig {
            rpc_url: self.url.clone(),
            keystore: "none".into(),
            password: "none".into(),
            account: None,
            confirmations: 0,
            start_block: 0,
            poll: Duration::from_millis(20),
            redeem_spread: Duration::ZERO,
            token_price: None,
            least_return_percent: None,
            max_fee_gwei: None,
            account_reserves: None,
        }
    }
}

type Started = (Payments, Purse, ClientWatch, mpsc::Receiver<Fact>);

/// A client of the gateway, with what it has kept.
async fn start(world: &World, network: &Network, file: &Path, stop: &Shutdown) -> anyhow::Result<Started> {
    let chain = ClientChain::open(&world.config(), network, stop).await?;
    let payer = ClientPayer {
        signer: SignerKey::from_bytes(&[5; 32]).unwrap(),
        gateway: Address::from([2; 20]),
        file,
        me: identity(77),
        clock: Clock::start(),
        parameters: network.parameters(),
    };
    let (told, facts) = mpsc::channel(1024);
    let tell = move |fact| {
        let told = told.clone();
        async move { told.send(fact).await.is_ok() }
    };
    let (payments, purse, mut watch) = chain.start(payer, Arc::default(), tell, stop).await?;
    watch.begin();
    Ok((payments, purse, watch, facts))
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), what).await.expect("it comes within five minutes")
}

#[tokio::test]
async fn the_address_of_a_chain_may_have_a_key_in_it_and_is_not_shown() {
    let world = World::new().await;
    let shown = format!("{:?}", world.config());
    assert!(shown.contains("confirmations") && !shown.contains(&world.url), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_starts_though_its_document_does_not_name_what_it_paid_in_any_more() {
    let world = World::new().await;
    let (old, new) = (world.class().await, world.class().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tickets.redb");
    // A window of the old class: its record stays, because no number may be used twice.
    let key = [[2_u8; 20].as_slice(), &600_u32.to_be_bytes()].concat();
    let parts: [&[u8]; 5] =
        [&[1], &old.0.to_be_bytes(), &[7; 32], &1_u16.to_be_bytes(), &1_u32.to_be_bytes()];
    let value = [parts.concat(), vec![1]].concat();
    let (purse, kept) = PurseFile::open(&file).unwrap();
    assert!(kept.is_empty());
    let mut read = Restore::default();
    read.feed(tables::ISSUED, &key, &value).unwrap();
    assert_eq!(read.issued_places().into_iter().collect::<Vec<_>>(), [(Address::from([2; 20]), old)]);
    purse.write(vec![Change::Put { table: tables::ISSUED, key: key.into(), value: value.into() }]).unwrap();
    drop(purse);

    let stop = Shutdown::new();
    let started = patiently(start(&world, &world.network(2, new), &file, &stop)).await;
    assert!(started.is_ok(), "{:?}", started.err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_learns_what_the_classes_of_a_later_document_are_worth() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let stop = Shutdown::new();
    let network = world.network(1, world.class().await);
    let file = folder.path().join("tickets.redb");
    let (payments, mut purse, watch, mut facts) =
        patiently(start(&world, &network, &file, &stop)).await.unwrap();
    let later = world.class().await;
    let document = world.network(2, later);
    let view = EpochView::of(&document, &document.epochs()[0]).unwrap();
    let keys =
        ClientKeys { sphinx: SecretKey::from_bytes([77; 32]), identity: identity(77), gateway: identity(2) };
    let (now, parity) = (Time::ZERO, view.parity());
    let mut client = Client::account(now, view, keys, [1; 32]).unwrap().with_payments(now, payments);
    let asked = client.payments().unwrap().may_send_first(now, &identity(2), parity);
    assert_eq!(asked, Err(Unpaid::NoTerms), "nobody knows what a ticket of that document is worth");

    watch.network(&document);
    world.chain.mine();
    let learnt = async {
        loop {
            let fact = facts.recv().await.unwrap();
            client.handle_fact(now, fact);
            if matches!(fact, Fact::Class(number, _) if number == later) {
                return;
            }
        }
    };
    patiently(learnt).await;
    let asked = client.payments().unwrap().may_send_first(now, &identity(2), parity);
    assert!(matches!(asked, Err(Unpaid::Stop(_))), "the link is down, and that is all: {asked:?}");

    // It goes on where it was once that is kept, and is not told any more when nobody wants it.
    let cursor = folder.path().join("tickets.cursor");
    let kept = async {
        while !cursor.exists() {
            purse.serve(client.payments().unwrap());
            purse.note_fact();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(kept).await;
    drop(watch);
    let ended = async { while facts.recv().await.is_some() {} };
    patiently(ended).await;
}

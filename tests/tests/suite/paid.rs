//! A network in which every packet is paid for, on a chain of its own: real processes, real money of no worth.

use std::time::Duration;

use tombola::local::{Chain, LocalNetwork, Options};
use tombola_client::{Client, Content, Home};
use tombola_node::clock::unix_now;
use tombola_tests::PATIENCE;

/// One metric of a node, summed over what its labels say.
fn metric(address: std::net::SocketAddr, start: &str) -> f64 {
    let text =
        ureq::get(format!("http://{address}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    text.lines().filter(|line| line.starts_with(start)).filter_map(value).sum()
}

#[test]
fn every_node_earns_and_redeems_while_messages_arrive() {
    tombola_client::install_crypto_provider();
    let options = Options { chain: Chain::Own, ..Options::default() };
    let network = LocalNetwork::start(&options).unwrap();
    let homes = ["alice", "bob"].map(|name| Home::open(network.new_client(name).unwrap()).unwrap());
    let begun = unix_now();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let alice = Client::connect(&homes[0]).await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        for number in 0..10 {
            alice.send(&bob.address(), &Content::Text(format!("paid {number}"))).await.unwrap();
        }
        for _ in 0..10 {
            tokio::time::timeout(PATIENCE, bob.receive()).await.unwrap().unwrap();
        }
        // Traffic goes on until everybody was paid on the chain.
        loop {
            let paid = |node: &tombola::local::NodeInfo| {
                metric(node.metrics, "tombola_tickets_total{stage=\"paid\"}") > 0.0
            };
            if network.nodes().all(paid) {
                break;
            }
            assert!(unix_now() - begun < 3 * PATIENCE.as_secs(), "not everybody was paid");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        alice.close().await.unwrap();
        bob.close().await.unwrap();
    });
    for node in network.nodes() {
        let of = |stage: &str| metric(node.metrics, &format!("tombola_tickets_total{{stage=\"{stage}\"}}"));
        assert_eq!(of("lost"), 0.0, "{}", node.name);
        assert_eq!(metric(node.metrics, "tombola_payment_violations_total"), 0.0, "{}", node.name);
        assert!(of("won") >= of("paid") && of("opened") > 500.0 && of("issued") > 500.0, "{}", node.name);
        // Packets are lost only where processors are.
        assert!(of("unopened") <= of("opened") / 10.0, "{}", node.name);
    }
    network.stop();
}

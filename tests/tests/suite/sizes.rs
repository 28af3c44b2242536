//! Networks of other sizes, and of TCP or QUIC alone.

use std::time::Duration;

use tombola_client::{Client, Content, Home};
use tombola_tests::PATIENCE;
use tombola_tests::hand::{HandNetwork, Spec};
use tombola_tests::process::run;

fn a_run(layers: &str, width: &str, gateways: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    std::fs::write(&file, vec![5; 9000]).unwrap();
    let size = ["--layers", layers, "--width", width, "--gateways", gateways];
    let load = ["--messages", "10", "--mean-delay", "20ms", "--file", file.to_str().unwrap()];
    let table = run(&[size.as_slice(), &load, more].concat()).success();
    assert!(table.contains("arrived unchanged") && table.contains("had 2448 bytes"), "{table}");
}

#[test]
fn the_smallest_network_works() {
    a_run("1", "1", "1", &[]);
}

#[test]
fn one_wide_layer_works() {
    a_run("1", "3", "2", &[]);
}

#[test]
fn two_layers_of_three_work() {
    a_run("2", "3", "2", &[]);
}

#[test]
fn a_network_over_quic_alone_works() {
    a_run("1", "2", "1", &["--transport", "quic"]);
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    for (flag, value) in [("--layers", "4"), ("--layers", "0"), ("--width", "0"), ("--gateways", "17")] {
        let outcome = run(&[flag, value]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(flag) && outcome.stderr.contains(value), "{outcome:?}");
    }
}

/// Without QUIC addresses in the document everything goes over TCP, and works just the same.
#[test]
fn a_network_without_quic_works() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&Spec { tcp_only: true, ..Spec::new(3, 1, 1) }, |_, _| {});
    assert!(!std::fs::read_to_string(&network.document).unwrap().contains("quic"));
    network.start();
    let homes = ["alice", "bob"].map(|name| Home::open(network.client(name, "gateway 1")).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let alice = Client::connect(&homes[0]).await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        let file = Content::File { name: "f".to_owned(), bytes: vec![3; 20_000] };
        for content in [Content::Text("over TCP".to_owned()), file] {
            alice.send(&bob.address(), &content).await.unwrap();
            let received = tokio::time::timeout(PATIENCE, bob.receive()).await.unwrap().unwrap();
            assert_eq!(received.content, content);
        }
        alice.close().await.unwrap();
        bob.close().await.unwrap();
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    for node in &network.nodes {
        assert!(node.metrics().sum("tombola_frames_in_total") > 0.0, "{}", node.name);
    }
    network.stop();
}

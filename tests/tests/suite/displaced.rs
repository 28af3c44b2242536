//! A client's folder that is used in two places.

use std::path::Path;

use rustix::process::Signal;
use tombola_client::{Client, ClientAddress, ConnectOptions, Content, Home};
use tombola_tests::eventually;
use tombola_tests::hand::{HandNetwork, Spec};
use tombola_tests::process::Process;

const GATEWAY: &str = "gateway 1";

fn receiver(name: &str, home: &Path) -> Process {
    let home = home.to_str().unwrap();
    Process::tombola(name, &["client", "--home", home, "receive", "--save", home])
}

fn send(from: &Path, to: &ClientAddress, text: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = ConnectOptions { collect: false, ..ConnectOptions::default() };
        let client = Client::connect_with(&Home::open(from).unwrap(), options).await.unwrap();
        client.send(to, &Content::Text(text.to_owned())).await.unwrap();
        client.flush().await.unwrap();
        client.close().await.unwrap();
    });
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn of_two_processes_on_a_copied_folder_the_older_one_ends_and_says_why() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&Spec::new(1, 1, 1), |_, _| {});
    let (alice, bob) = (network.client("alice", GATEWAY), network.client("bob", GATEWAY));
    let elsewhere = network.folder().join("elsewhere");
    copy(&bob, &elsewhere);
    network.start();
    let address = Home::address_in(&bob).unwrap();

    let mut first = receiver("first", &bob);
    eventually("the first one is there", || {
        (network.node(GATEWAY).metrics().sum("tombola_mailboxes") >= 2.0).then_some(())
    });
    send(&alice, &address, "to the first");
    assert_eq!(first.line().as_deref(), Some("to the first"));

    let mut second = receiver("second", &elsewhere);
    assert_eq!(first.wait().code(), Some(1));
    let words = first.stderr();
    assert!(words.lines().last().unwrap().contains("in use elsewhere"), "{words}");
    assert!(!words.contains("connecting again"), "it did not try to come back:\n{words}");
    send(&alice, &address, "to the second");
    // What the first one had shown and not yet acknowledged when it was displaced comes once more: the folders are two.
    second.line_where("the second text", |line| line == "to the second");

    // A process that is killed, and started again while the gateway still believes in its link, displaces nobody; neither
    // does one whose gateway was away.
    second.signal(Signal::KILL);
    let _ = second.wait();
    let mut third = receiver("third", &elsewhere);
    send(&alice, &address, "to the third");
    // What the second one was showing when it was killed may come once more.
    third.line_where("the third text", |line| line == "to the third");
    network.kill(GATEWAY);
    network.restart(GATEWAY);
    send(&alice, &address, "again");
    assert_eq!(third.line().as_deref(), Some("again"));
    assert!(third.is_running());
    third.signal(Signal::INT);
    assert!(third.wait().success(), "{}", third.stderr());
    network.stop();
}

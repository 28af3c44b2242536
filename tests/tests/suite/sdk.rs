//! What an application gets: the SDK, the commands, the lines for programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use tombola::local::{LocalNetwork, Options};
use tombola_client::{Client, Content, Home, Received};
use tombola_tests::hand::quick;
use tombola_tests::process::{Process, run};
use tombola_tests::{PATIENCE, tombola};

fn network(layers: u8) -> LocalNetwork {
    tombola_client::install_crypto_provider();
    let options = Options {
        layers,
        width: 1,
        gateways: 2,
        parameters: Some(quick(layers)),
        binary: Some(tombola().to_owned()),
        ..Options::default()
    };
    LocalNetwork::start(&options).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

async fn receive(client: &mut Client) -> Received {
    tokio::time::timeout(PATIENCE, client.receive()).await.expect("a message comes").expect("the client runs")
}

#[test]
fn an_application_sends_and_receives() {
    let network = network(3);
    let homes = [("alice", 0), ("bob", 1)]
        .map(|(name, gateway)| Home::open(network.new_client_at(name, Some(gateway)).unwrap()).unwrap());
    block_on(async {
        let mut alice = Client::connect(&homes[0]).await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        assert_eq!(alice.address(), homes[0].address().unwrap());
        assert!(alice.is_connected());

        // One after the other, of every kind, and to oneself.
        let file = Content::File {
            name: "a file".to_owned(),
            bytes: (0..300 << 10).map(|n| (n % 249) as u8).collect(),
        };
        let empty = Content::File { name: "empty".to_owned(), bytes: Vec::new() };
        let text = |text: &str| Content::Text(text.to_owned());
        let bytes = Content::Bytes(vec![0, 255, 10, 13]);
        for content in [text("hello"), text(""), text("grüezi 🎟"), bytes, empty, file] {
            let id = alice.send(&bob.address(), &content).await.unwrap();
            let received = receive(&mut bob).await;
            assert_eq!((received.message, received.content), (id, content));
        }
        let id = bob.send(&bob.address(), &text("note to myself")).await.unwrap();
        assert_eq!(receive(&mut bob).await.message, id);

        // Many at once, both ways: each arrives once.
        let mut expected = [BTreeMap::new(), BTreeMap::new()];
        for number in 0..60 {
            let [there, back] = [format!("there {number}"), format!("back {number}")];
            expected[0].insert(alice.send(&bob.address(), &text(&there)).await.unwrap(), there);
            expected[1].insert(bob.send(&alice.address(), &text(&back)).await.unwrap(), back);
        }
        for (client, mut expected) in [&mut bob, &mut alice].into_iter().zip(expected) {
            while !expected.is_empty() {
                let received = receive(client).await;
                let sent = expected.remove(&received.message);
                assert_eq!(sent.as_deref().map(str::as_bytes), Some(received.content.as_bytes()));
            }
        }
        let counts = alice.counts().await.unwrap();
        assert!(counts.real > 60 && counts.cover > 0 && counts.loops > 0 && counts.drops > 0, "{counts:?}");

        // A second connection of the same client is refused while the first is there.
        assert!(Home::open(homes[0].path()).is_err());
        let too_long = Content::Bytes(vec![0; tombola_client::MESSAGE_MAX]);
        assert!(alice.send(&bob.address(), &too_long).await.is_err());
        alice.close().await.unwrap();
        bob.close().await.unwrap();
    });
    drop(homes);
    network.stop();
}

#[test]
fn mail_waits_for_a_client_that_is_away() {
    let network = network(2);
    let homes = [("alice", 0), ("bob", 1)]
        .map(|(name, gateway)| Home::open(network.new_client_at(name, Some(gateway)).unwrap()).unwrap());
    block_on(async {
        // A mailbox is there from a client's first visit on.
        let bob = Client::connect(&homes[1]).await.unwrap();
        let address = bob.address();
        bob.close().await.unwrap();
        let alice = Client::connect(&homes[0]).await.unwrap();
        let content = Content::Bytes(vec![7; 20_000]);
        let id = alice.send(&address, &content).await.unwrap();
        alice.flush().await.unwrap();
        alice.close().await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        let received = receive(&mut bob).await;
        assert_eq!((received.message, received.content), (id, content));
        bob.close().await.unwrap();
    });
    drop(homes);

    // The same by command, with a text and a file.
    let [alice, bob] = ["alice", "bob"].map(|name| network.folder().join("clients").join(name));
    let client = |home: &Path, args: &[&str]| {
        run(&[&["client", "--home", home.to_str().unwrap()], args].concat()).success()
    };
    let address = client(&bob, &["address"]);
    assert!(client(&alice, &["send", &address, "a text\u{1b}[2J"]).starts_with("sent "));
    let file = network.folder().join("picture.bin");
    std::fs::write(&file, vec![9; 5000]).unwrap();
    client(&alice, &["send", &address, "--file", file.to_str().unwrap()]);
    let save = network.folder().join("saved");
    let receive = ["receive", "--count", "2", "--timeout", "300", "--save", save.to_str().unwrap()];
    let printed = client(&bob, &receive);
    assert!(printed.contains("a text\u{fffd}[2J"), "{printed:?}");
    assert!(printed.contains("picture.bin (5000 bytes)"), "{printed:?}");
    assert_eq!(std::fs::read(save.join("picture.bin")).unwrap(), vec![9; 5000]);
    let home = bob.to_str().unwrap();
    run(&["client", "--home", home, "receive", "--count", "1", "--timeout", "1"])
        .refusal(&["0 of 1 messages arrived in time"]);
    network.stop();
}

#[test]
fn a_program_speaks_to_a_client_in_lines() {
    let network = network(1);
    let save = network.folder().join("saved");
    let mut clients = ["alice", "bob"].map(|name| {
        let home = network.new_client(name).unwrap();
        let args = ["client", "--home", home.to_str().unwrap(), "run", "--save", save.to_str().unwrap()];
        Process::tombola(name, &args)
    });
    let addresses =
        clients.each_mut().map(|client| client.event("ready")["address"].as_str().unwrap().to_owned());
    let [alice, bob] = &mut clients;
    let to = &addresses[1];

    // What is no command is answered, and changes nothing.
    let mistyped = format!("{}q{}", &to[..20], &to[21..]);
    let mistyped = if mistyped == *to { format!("{}p{}", &to[..20], &to[21..]) } else { mistyped };
    for (command, words) in [
        ("hello".to_owned(), "not a command"),
        ("{\"send\": {}}".to_owned(), "missing field `to`"),
        ("{\"receive\": {}}".to_owned(), "unknown variant `receive`"),
        (json!({ "send": { "to": to, "text": "x", "txt": 1 } }).to_string(), "unknown field `txt`"),
        (json!({ "send": { "to": to } }).to_string(), "either \"text\" or \"file\""),
        (
            json!({ "send": { "to": to, "text": "x", "file": "/x" } }).to_string(),
            "either \"text\" or \"file\"",
        ),
        (json!({ "send": { "to": to, "file": "/nowhere/x" } }).to_string(), "/nowhere/x: cannot be read"),
        (json!({ "send": { "to": mistyped, "text": "x" } }).to_string(), "mistyped"),
        ("\u{0}".to_owned(), "not a command"),
    ] {
        alice.tell(&command);
        let event = alice.event("error");
        assert!(event["message"].as_str().unwrap().contains(words), "{command}: {event}");
    }
    alice.tell("");
    alice.tell(&json!({ "send": { "to": to, "text": "hello", "tag": "7" } }).to_string());
    let queued = alice.event("queued");
    assert_eq!((queued["tag"].as_str(), queued["bytes"].as_u64()), (Some("7"), Some(5)));
    let emitted = alice.event("emitted");
    assert_eq!((&emitted["id"], emitted["count"].as_u64()), (&queued["id"], Some(1)));
    assert!(emitted["emitted_ns"].as_u64() >= emitted["queued_ns"].as_u64(), "{emitted}");
    let received = bob.event("received");
    assert_eq!((&received["id"], received["text"].as_str()), (&queued["id"], Some("hello")));

    let file = network.folder().join("file.bin");
    for _ in 0..2 {
        std::fs::write(&file, vec![4; 7000]).unwrap();
        alice.tell(&json!({ "send": { "to": to, "file": file } }).to_string());
        let received = bob.event("received");
        assert_eq!(std::fs::read(received["file"].as_str().unwrap()).unwrap(), vec![4; 7000], "{received}");
    }
    assert_eq!(std::fs::read_dir(&save).unwrap().count(), 2, "the second file has not replaced the first");

    bob.tell("{\"stats\": {}}");
    let stats = bob.event("stats");
    assert!(stats["received"]["mail"].as_u64() >= Some(9) && stats["waiting"] == 0, "{stats}");
    let lengths: Vec<&String> = stats["frame_lengths"].as_object().unwrap().keys().collect();
    assert_eq!(lengths, ["2448"], "{stats}");

    // A command without end is not collected for ever.
    alice.tell(&"x".repeat((1 << 20) + 1));
    let event = alice.event("error");
    assert!(event["message"].as_str().unwrap().contains("longer than"), "{event}");
    bob.close_input();
    for client in &mut clients {
        assert!(client.wait().success(), "{}", client.stderr());
    }
    network.stop();
}

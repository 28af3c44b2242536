//! Mail outlives its gateway: killed, restarted, with a disk that is full or a file that is damaged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tombola_client::{Client, ClientAddress, ConnectOptions, Content, Home};
use tombola_tests::hand::{HandNetwork, Spec, link_secret};
use tombola_tests::process::{Process, run};
use tombola_tests::{Metrics, PATIENCE, eventually, tombola};
use tombola_topology::MailboxId;

const GATEWAY: &str = "gateway 1";

/// The smallest network, with the clients alice and bob.
fn network(main_interval: Duration) -> (HandNetwork, PathBuf, PathBuf) {
    tombola_client::install_crypto_provider();
    let mut spec = Spec::new(1, 1, 1);
    spec.parameters.main_interval = main_interval;
    let network = HandNetwork::new(&spec, |_, _| {});
    let (alice, bob) = (network.client("alice", GATEWAY), network.client("bob", GATEWAY));
    (network, alice, bob)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// Opens a client's mailbox; its address.
async fn visit(home: &Path) -> ClientAddress {
    let client = Client::connect(&Home::open(home).unwrap()).await.unwrap();
    let address = client.address();
    client.close().await.unwrap();
    address
}

/// Sends messages of one packet each, named by their first two bytes, and waits until they have left.
async fn send(client: &Client, to: &ClientAddress, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let mut bytes = vec![0; 1500];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        client.send(to, &Content::Bytes(bytes)).await.unwrap();
    }
    client.flush().await.unwrap();
}

/// Receives so many messages, each of them once; their names.
async fn receive(client: &mut Client, count: usize) -> BTreeSet<u16> {
    let mut names = BTreeSet::new();
    while names.len() < count {
        let next = tokio::time::timeout(PATIENCE, client.receive());
        let received = next.await.unwrap_or_else(|_| panic!("{} of {count} came", names.len())).unwrap();
        let bytes = received.content.as_bytes();
        assert!(names.insert(u16::from_be_bytes([bytes[0], bytes[1]])), "twice");
    }
    names
}

fn unwritten(metrics: &Metrics) -> f64 {
    metrics.sum("tombola_mail_unwritten_packets")
}

/// Waits until that much mail waits at the gateway, all of it on disk.
fn wait_for_mail(network: &HandNetwork, count: usize) {
    eventually(&format!("{count} mails are on disk"), || {
        let metrics = network.node(GATEWAY).metrics();
        (metrics.sum("tombola_mail_packets") >= count as f64 && unwritten(&metrics) == 0.0).then_some(())
    });
}

#[test]
fn mail_for_a_client_that_is_away_outlives_a_gateway_that_is_killed() {
    let (mut network, alice, bob) = network(Duration::from_millis(10));
    network.start();
    let to = block_on(async {
        let to = visit(&bob).await;
        let options = ConnectOptions { collect: false, ..ConnectOptions::default() };
        let client = Client::connect_with(&Home::open(&alice).unwrap(), options).await.unwrap();
        send(&client, &to, 0..150).await;
        client.close().await.unwrap();
        to
    });
    wait_for_mail(&network, 150);
    network.kill(GATEWAY);
    network.restart(GATEWAY);
    let mail = network.node(GATEWAY).metrics().sum("tombola_mail_packets");
    assert!(mail >= 150.0, "{mail} after the restart");
    block_on(async {
        let mut client = Client::connect(&Home::open(&bob).unwrap()).await.unwrap();
        assert_eq!(receive(&mut client, 150).await, (0..150).collect());
        // It goes on, and what was collected is gone for good.
        send(&client, &to, 150..160).await;
        assert_eq!(receive(&mut client, 10).await, (150..160).collect());
        // Its last acknowledgement may not have left: mail that comes again then is known to it.
        client.close().await.unwrap();
    });
    let metrics = eventually("what it has fetched is counted", || {
        let metrics = network.node(GATEWAY).metrics();
        (metrics.sum("tombola_mail_fetches_total") >= 3.0).then_some(metrics)
    });
    assert_eq!(metrics.sum("tombola_mail_wrong_acknowledgements_total"), 0.0);
    assert_eq!(metrics.with("tombola_packets_dropped_total", "reason", "unknown_mailbox"), 0.0);
    // In order this time: nothing is lost that came just before the end.
    network.node(GATEWAY).process.as_ref().unwrap().signal(Signal::TERM);
    assert!(network.end(GATEWAY).success());
    network.restart(GATEWAY);
    block_on(async {
        let mut client = Client::connect(&Home::open(&bob).unwrap()).await.unwrap();
        send(&client, &to, 160..161).await;
        assert_eq!(receive(&mut client, 1).await, [160].into(), "nothing comes twice");
        client.close().await.unwrap();
    });
    network.stop();
}

#[test]
fn mail_waits_for_a_client_that_was_made_and_never_used() {
    let (mut network, alice, _) = network(Duration::from_millis(10));
    network.start();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (document, authority) = (text(&network.document), network.authority.key().to_string());
    let folder = network.folder().to_owned();
    let home = |name: &str| text(&folder.join(name));
    let init = |name: &str, more: &[&str]| {
        let new =
            ["client", "--home", &home(name), "init", "--network", &document, "--authority", &authority];
        run(&[&new, more].concat())
    };
    let made = init("dora", &[]).success();
    let offline = init("emil", &["--offline"]);
    assert!(offline.stderr.contains("does not know it yet"), "{}", offline.stderr);
    let unknown = offline.success();
    assert!(network.node(GATEWAY).metrics().sum("tombola_mailboxes") >= 1.0);
    block_on(async {
        let client = Client::connect(&Home::open(&alice).unwrap()).await.unwrap();
        send(&client, &made.parse().unwrap(), 0..5).await;
        send(&client, &unknown.parse().unwrap(), 5..10).await;
        eventually("mail for the other one is refused", || {
            let metrics = network.node(GATEWAY).metrics();
            let refused = metrics.with("tombola_packets_dropped_total", "reason", "unknown_mailbox");
            (refused >= 5.0).then_some(())
        });
        wait_for_mail(&network, 5);
        let mut dora = Client::connect(&Home::open(home("dora")).unwrap()).await.unwrap();
        assert_eq!(receive(&mut dora, 5).await, (0..5).collect());
        dora.close().await.unwrap();
        client.close().await.unwrap();
    });
    // Without its gateway it is made all the same, and whoever made it is told.
    network.kill(GATEWAY);
    let lost = init("fred", &[]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.stdout.starts_with("tombola1") && lost.stderr.contains("did not answer"), "{lost:?}");
    assert_eq!(run(&["client", "--home", &home("fred"), "address"]).success(), lost.stdout);
}

#[test]
fn a_damaged_mail_file_is_named_at_the_start_and_never_served() {
    let (mut network, alice, bob) = network(Duration::from_millis(10));
    network.start();
    block_on(async {
        let to = visit(&bob).await;
        let client = Client::connect(&Home::open(&alice).unwrap()).await.unwrap();
        send(&client, &to, 0..40).await;
        client.close().await.unwrap();
    });
    wait_for_mail(&network, 40);
    network.stop();
    let (config, home) = (network.node(GATEWAY).config(), network.node(GATEWAY).home.clone());
    let path = home.join("data/mail.redb");
    let sound = std::fs::read(&path).unwrap();
    let start = || run(&["gateway", "--config", config.to_str().unwrap()]);
    // One bit wherever the file speaks of the mailbox: some of these places are no longer in use.
    let id = MailboxId::of(&link_secret(&bob).identity());
    let mut damaged = sound.clone();
    let places: Vec<_> = sound.windows(28).enumerate().filter(|(_, bytes)| *bytes == id.as_bytes()).collect();
    assert!(places.len() > 40);
    places.iter().for_each(|(at, _)| damaged[at + 5] ^= 0x10);
    std::fs::write(&path, &damaged).unwrap();
    start().refusal(&["mail.redb", "damaged"]);
    // Cut off, another file, a folder.
    std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    start().refusal(&["mail.redb"]);
    std::fs::write(&path, b"something else").unwrap();
    start().refusal(&["mail.redb"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    start().refusal(&["mail.redb"]);
    std::fs::remove_dir(&path).unwrap();
    // None of them has touched it: the mail is still there.
    std::fs::write(&path, &sound).unwrap();
    network.start();
    block_on(async {
        let mut client = Client::connect(&Home::open(&bob).unwrap()).await.unwrap();
        assert_eq!(receive(&mut client, 40).await, (0..40).collect());
        client.close().await.unwrap();
    });
    network.stop();
}

#[test]
fn a_full_disk_refuses_mail_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let (mut network, alice, bob) = network(Duration::from_millis(5));
    let carol = network.client("carol", GATEWAY);
    network.start_without(&[GATEWAY]);
    // No file of this process may grow beyond 2 MB, as if the disk were full there; 512-byte blocks.
    let config = network.node(GATEWAY).config();
    let script = "trap '' XFSZ; ulimit -S -f 4096; exec \"$0\" gateway --exit-with-stdin --config \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(tombola()).arg(&config);
    network.adopt(GATEWAY, Process::spawn(GATEWAY, &mut command));
    let dropped = |network: &HandNetwork| {
        let metrics = network.node(GATEWAY).metrics();
        metrics.with("tombola_packets_dropped_total", "reason", "storage")
    };
    let flag = |network: &HandNetwork| network.node(GATEWAY).metrics().sum("tombola_storage_trouble");
    let (to, sent) = block_on(async {
        let to = visit(&bob).await;
        let mut carol = Client::connect(&Home::open(&carol).unwrap()).await.unwrap();
        let client = Client::connect(&Home::open(&alice).unwrap()).await.unwrap();
        send(&client, &carol.address(), 0..1).await;
        assert_eq!(receive(&mut carol, 1).await.len(), 1);
        let mut sent = 0;
        while dropped(&network) < 50.0 {
            assert!(sent < 20_000, "the disk is never full");
            send(&client, &to, sent..sent + 100).await;
            sent += 100;
        }
        assert_eq!(flag(&network), 1.0);
        // Whoever collects is served all the same.
        send(&client, &carol.address(), 0..20).await;
        assert_eq!(receive(&mut carol, 20).await.len(), 20);
        carol.close().await.unwrap();
        client.close().await.unwrap();
        (to, sent)
    });
    // Room.
    let pid = network.node(GATEWAY).process.as_ref().unwrap().pid();
    let unlimited = Rlimit { current: None, maximum: None };
    prlimit(Pid::from_raw(pid.try_into().unwrap()), Resource::Fsize, unlimited).unwrap();
    eventually("the disk is written again", || (flag(&network) == 0.0).then_some(()));
    // What was taken while the disk was full is safe now.
    wait_for_mail(&network, 1);
    let mail = |network: &HandNetwork| network.node(GATEWAY).metrics().sum("tombola_mail_packets");
    let kept = mail(&network);
    network.kill(GATEWAY);
    network.restart(GATEWAY);
    assert!(kept > 100.0 && mail(&network) >= kept, "{kept} packets, then {}", mail(&network));
    // And what was refused comes again from its sender.
    block_on(async {
        let client = Client::connect(&Home::open(&alice).unwrap()).await.unwrap();
        send(&client, &to, sent..sent + 10).await;
        let mut bob = Client::connect(&Home::open(&bob).unwrap()).await.unwrap();
        assert_eq!(receive(&mut bob, usize::from(sent) + 10).await, (0..sent + 10).collect());
        bob.close().await.unwrap();
        client.close().await.unwrap();
    });
    let words: Vec<_> = network.stop().into_iter().map(|(_, words)| words).collect();
    assert!(!words.concat().contains("panicked"));
}

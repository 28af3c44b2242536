//! Epochs change, documents change, nodes die and come back, while packets are on their way.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use rustix::process::Signal;
use tombola_client::{Client, Content, Home};
use tombola_link::{ChannelSink, LinkConfig, LinkEvent, Links, NODE_PROTOCOL, Peer, Policy};
use tombola_mixing::Rng;
use tombola_node::clock::{unix_now, unix_time_now};
use tombola_node::keys::{SecretFile, Sphinx};
use tombola_protocol::frame::{Frame, LinkMeta};
use tombola_protocol::hop::NextHop;
use tombola_protocol::view::EpochView;
use tombola_sphinx::{Destination, HopField, RouteSecrets, build};
use tombola_tests::hand::{HandNetwork, HandNode, Spec};
use tombola_tests::{PATIENCE, eventually};
use tombola_tickets::por::RouteTickets;
use tombola_topology::{Draft, Network, NodeIndex, Role, UnixTime};

/// Epochs so short that a test can wait for them. With L layers keys take (L + 1) x 600 ms to be retired.
fn short(layers: u8, width: usize, epochs: u64, length: u64) -> Spec {
    let mut spec = Spec::new(layers, width, 2);
    spec.parameters.max_delay = Duration::from_millis(600);
    spec.parameters.loop_timeout = Duration::from_secs(3);
    spec.epochs = epochs;
    spec.epoch_length = Duration::from_secs(length);
    spec
}

/// The last epoch lasts until the test is over, however slow the machine.
fn stay(draft: &mut Draft) {
    draft.epochs.last_mut().unwrap().valid_until.0 += 3600;
}

fn dropped(node: &HandNode, reason: &str) -> f64 {
    node.metrics().with("tombola_packets_dropped_total", "reason", reason)
}

/// Waits until the wall clock shows that time.
fn until(time: Duration) {
    std::thread::sleep(time.saturating_sub(unix_time_now()));
}

fn end_of(network: &HandNetwork, epoch: usize) -> Duration {
    Duration::from_secs(network.draft.epochs[epoch - 1].valid_until.0)
}

/// Nothing was dropped but cover where it ends.
fn assert_nothing_lost(node: &HandNode) {
    let metrics = node.metrics();
    let lost: Vec<_> = metrics
        .samples("tombola_packets_dropped_total")
        .filter(|(labels, _)| !labels.contains("discarded"))
        .collect();
    assert!(lost.is_empty(), "{}: {lost:?}", node.name);
}

/// Texts that come, until each has come. None comes twice.
async fn receive_all(client: &mut Client, mut expected: Vec<String>) {
    let all = expected.len();
    while !expected.is_empty() {
        let received = tokio::time::timeout(PATIENCE, client.receive()).await;
        let received = received.unwrap_or_else(|_| panic!("of {all}, these did not come: {expected:?}"));
        let received = received.unwrap_or_else(|| panic!("{}", client.ended()));
        let Content::Text(text) = received.content else { panic!("another kind") };
        let at = expected.iter().position(|one| *one == text);
        expected.remove(at.unwrap_or_else(|| panic!("{text:?} was not expected")));
    }
}

#[test]
fn epochs_change_in_the_middle_of_traffic_and_nothing_is_lost() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&short(3, 1, 3, 30), |draft, _| {
        // Another index in each epoch.
        draft.epochs[1].nodes.rotate_right(2);
        draft.epochs[2].nodes.rotate_right(3);
        stay(draft);
    });
    network.start();
    let homes = [("alice", "gateway 1"), ("bob", "gateway 2")]
        .map(|(name, gateway)| Home::open(network.client(name, gateway)).unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut alice = Client::connect(&homes[0]).await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        let [mut to_bob, mut to_alice] = [vec![], vec![]];
        // From the first epoch until senders have gone over to the third, and longer if that is here already.
        while unix_time_now() < end_of(&network, 2) + Duration::from_secs(1) || to_bob.len() <= 20 {
            for (from, to, sent) in [(&alice, &bob, &mut to_bob), (&bob, &alice, &mut to_alice)] {
                let text = format!("at {}", unix_time_now().as_micros());
                from.send(&to.address(), &Content::Text(text.clone())).await.unwrap();
                sent.push(text);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        receive_all(&mut bob, to_bob).await;
        receive_all(&mut alice, to_alice).await;
        alice.close().await.unwrap();
        bob.close().await.unwrap();
    });
    // Senders have gone over to the third epoch, and the first one's keys are gone.
    for node in &network.nodes {
        eventually(&format!("{} is in the third epoch", node.name), || {
            (node.metrics().sum("tombola_epoch") == 3.0).then_some(())
        });
        eventually(&format!("{} has erased a key", node.name), || {
            (node.metrics().sum("tombola_keys_erased_total") == 1.0).then_some(())
        });
    }
    // Accounts of the third epoch take part, so its loops come back.
    let mix = network.node("mix 2.1");
    eventually("loops come back", || {
        let metrics = mix.metrics();
        let ratios: Vec<f64> =
            metrics.samples("tombola_loop_delivery_ratio").map(|(_, ratio)| ratio).collect();
        // On a machine that is overcommitted many are late.
        (ratios.len() == 4 && ratios.iter().all(|ratio| *ratio > 0.0)).then_some(())
    });
    network.nodes.iter().for_each(assert_nothing_lost);
    network.stop();
}

// ---- memory

/// Whether these bytes, which do not begin with zero, are somewhere in a region.
fn contains(mut region: &[u8], wanted: &[u8]) -> bool {
    // The standard library's search for a byte is quick in a build for development too.
    while region.skip_until(wanted[0]).unwrap() > 0 {
        if region.starts_with(&wanted[1..]) {
            return true;
        }
    }
    false
}

/// Which of these secrets a process has in its memory.
fn in_memory<const N: usize>(pid: u32, secrets: [&Vec<u8>; N]) -> [bool; N] {
    let mut found = [false; N];
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        // What nobody may write holds no key; and the kernel's own pages cannot be read.
        if !rights.starts_with("rw") || memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        let mut region = Vec::new();
        // A region that has just been given back ends early.
        let _ = (&mut memory).take(to - from).read_to_end(&mut region);
        for (found, secret) in found.iter_mut().zip(secrets) {
            *found |= contains(&region, secret);
        }
    }
    found
}

#[test]
fn what_is_in_memory_would_be_found() {
    assert!(contains(b"abcabd", b"abd") && contains(b"abd", b"abd") && contains(b"aabd", b"abd"));
    assert!(!contains(b"abcab", b"abd") && !contains(b"", b"abd"));
}

/// The bytes that every form of a secret contains: clamping changes the first and the last.
fn core_of(key: &Path) -> Vec<u8> {
    let core = SecretFile::<Sphinx>::new(key).load().unwrap().expose()[1..31].to_vec();
    core.into_iter().skip_while(|&byte| byte == 0).collect()
}

#[test]
fn an_expired_key_is_in_no_memory_and_in_no_file() {
    tombola_client::install_crypto_provider();
    // The second mix node leaves with the first epoch.
    let mut network = HandNetwork::new(&short(1, 2, 3, 40), |draft, nodes| {
        let leaving = nodes.iter().find(|node| node.name == "mix 1.2").unwrap().identity;
        for epoch in &mut draft.epochs[1..] {
            epoch.nodes.retain(|node| node.identity != leaving);
        }
        stay(draft);
    });
    network.start();
    let names = ["mix 1.1", "gateway 1"];
    let keys = names.map(|name| network.node(name).keys.clone());
    let secrets = keys.each_ref().map(|keys| keys[..2].iter().map(|key| core_of(key)).collect::<Vec<_>>());
    let pid = |name: &str| network.node(name).process.as_ref().unwrap().pid();
    for (name, secrets) in names.iter().zip(&secrets) {
        assert_eq!(in_memory(pid(name), [&secrets[0]]), [true], "{name}: this test sees what is there");
    }
    // Both keys have opened packets.
    until(end_of(&network, 1) + Duration::from_secs(5));
    for (name, secrets) in names.iter().zip(&secrets) {
        let found = in_memory(pid(name), [&secrets[0], &secrets[1]]);
        assert_eq!(found, [true; 2], "{name}: the keys of epochs 1 and 2 are in use");
    }
    until(end_of(&network, 2));
    for ((name, secrets), keys) in names.iter().zip(&secrets).zip(&keys) {
        let node = network.node(name);
        eventually(&format!("{name} has erased a key"), || {
            (node.metrics().sum("tombola_keys_erased_total") == 1.0).then_some(())
        });
        assert!(!keys[0].exists() && keys[1].exists() && keys[2].exists(), "{name}");
        let logs = std::fs::read_dir(node.home.join("data")).unwrap();
        let logs = logs.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "log"));
        assert_eq!(logs.count(), 2, "{name}");
        // The threads that open packets have opened some under the other keys meanwhile.
        eventually(&format!("{name} has it in no memory"), || {
            let found = in_memory(pid(name), [&secrets[0], &secrets[1]]);
            assert!(found[1], "{name}: the key of epoch 2 lives");
            (!found[0]).then_some(())
        });
    }
    // It served the overlap, and ended by itself.
    let mut left = network.node_mut("mix 1.2").process.take().unwrap();
    assert!(left.wait().success());
    assert!(left.stderr().contains("served its last"), "{}", left.stderr());
    network.stop();
}

// ---- a hand-made link

/// The test plays gateway 2 towards mix 1.1, and sends packets that end at mix 2.1.
struct Rogue {
    view: Arc<EpochView>,
    mixes: [NodeIndex; 2],
    rng: Rng,
    links: Links,
    _events: Receiver<LinkEvent>,
}

impl Rogue {
    /// Links of its own: those to a process that was killed take long to notice.
    async fn new(network: &HandNetwork, seed: u8) -> Self {
        let text = std::fs::read_to_string(&network.document).unwrap();
        let document = Network::verify(&text, &network.authority.key()).unwrap();
        let view = EpochView::at(&document, UnixTime(unix_now())).unwrap();
        let index = |name: &str| view.epoch().index_of(&network.node(name).identity).unwrap();
        let mixes = ["mix 1.1", "mix 2.1"].map(index);
        let mix = network.node("mix 1.1");
        let (sink, events) = ChannelSink::new(4096);
        let secret = network.node("gateway 2").link_secret();
        let config = LinkConfig::new(secret, Policy::DialOnly, NODE_PROTOCOL);
        let peer = Peer::dialled(mix.identity, mix.listen.clone());
        let links = tombola_link::start(config, vec![peer], Arc::new(sink)).await.unwrap();
        // What is sent before is stale when the link comes up.
        while links.stats().links == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { view, mixes, rng: Rng::from_seed([seed; 32]), links, _events: events }
    }

    fn packets(&mut self, count: usize, delay: Duration) -> Vec<Frame> {
        (0..count).map(|_| self.packet(delay)).collect()
    }

    fn packet(&mut self, delay: Duration) -> Frame {
        let keys = self.mixes.map(|mix| *self.view.key(mix).unwrap());
        let secrets = RouteSecrets::derive(self.rng.seed(), &keys).unwrap();
        let tickets = RouteTickets::of(&secrets, 2);
        let [first, second] = [0, 1].map(|hop| *tickets.challenge(hop).as_bytes());
        let check = *tickets.check(0).as_bytes();
        let next = NextHop::Node { index: self.mixes[1], check, challenge: second };
        let field = HopField { next: next.to_bytes(), delay_ns: delay.as_nanos() as u64 };
        let destination = Destination { address: self.rng.seed(), identifier: [7; 16] };
        let mut frame = Frame::zeroed();
        build(&secrets, &[field], &destination, self.rng.seed(), b"", frame.packet_mut()).unwrap();
        let meta = LinkMeta { challenge: first, ack_check: *tickets.first_ack().as_bytes() };
        frame.set_link_packet(self.view.parity(), &meta);
        frame
    }

    fn send(&self, network: &HandNetwork, frames: &[Frame]) {
        for frame in frames {
            self.links.send(&network.node("mix 1.1").identity, frame.clone()).unwrap();
        }
    }
}

/// How long packets are held: it takes some seconds until everything has been seen that happens meanwhile.
const HELD: Duration = Duration::from_secs(30);

/// Layers of one mix node; gateway 2 is the test.
fn for_rogue() -> HandNetwork {
    tombola_client::install_crypto_provider();
    let mut spec = Spec::new(2, 1, 2);
    (spec.parameters.max_delay, spec.parameters.loop_timeout) = (2 * HELD, 4 * HELD);
    let mut network = HandNetwork::new(&spec, |_, _| {});
    network.start_without(&["gateway 2"]);
    network
}

#[test]
fn what_was_accepted_before_a_kill_is_refused_after_it() {
    const COUNT: usize = 60;
    let mut network = for_rogue();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut rogue = Rogue::new(&network, 5).await;
        let recorded = rogue.packets(COUNT, Duration::from_millis(5));
        rogue.send(&network, &recorded);
        let arrived = |network: &HandNetwork| dropped(network.node("mix 2.1"), "discarded");
        eventually("all arrive", || (arrived(&network) == COUNT as f64).then_some(()));
        // At this moment the last one has just left.
        let mix = network.node_mut("mix 1.1");
        let mut process = mix.process.take().unwrap();
        process.signal(Signal::KILL);
        assert!(!process.wait().success());
        rogue.links.shutdown().await;
        mix.start();
        mix.wait_listening();
        let mix = network.node("mix 1.1");
        assert_eq!(dropped(mix, "replay"), 0.0);
        let mut rogue = Rogue::new(&network, 6).await;
        rogue.send(&network, &recorded);
        eventually("all are refused", || (dropped(mix, "replay") == COUNT as f64).then_some(()));
        // What is new passes, and nothing else has.
        let fresh = rogue.packets(10, Duration::from_millis(5));
        rogue.send(&network, &fresh);
        let expected = (COUNT + 10) as f64;
        eventually("new ones arrive", || (arrived(&network) >= expected).then_some(()));
        // Metrics are handed over once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(arrived(&network), expected);
        assert_eq!(dropped(network.node("mix 2.1"), "replay"), 0.0);
        rogue.links.shutdown().await;
    });

    // Without its log the key is not used again.
    let mix = network.node_mut("mix 1.1");
    let mut process = mix.process.take().unwrap();
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    let logs = std::fs::read_dir(mix.home.join("data")).unwrap().map(|file| file.unwrap().path());
    let log = logs.into_iter().find(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
    std::fs::remove_file(&log).unwrap();
    mix.start();
    let mut process = mix.process.take().unwrap();
    assert_eq!(process.wait().code(), Some(1));
    let said = process.stderr();
    for word in ["used before", "is missing", log.to_str().unwrap(), "node-keys --next"] {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
    network.stop();
}

#[test]
fn a_node_that_is_told_to_end_first_lets_go_of_what_it_holds() {
    let mut network = for_rogue();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut rogue = Rogue::new(&network, 5).await;
        let held = rogue.packets(20, HELD);
        let late = rogue.packets(5, Duration::ZERO);
        let arrived = |network: &HandNetwork| dropped(network.node("mix 2.1"), "discarded");
        let pool = |network: &HandNetwork| network.node("mix 1.1").metrics().sum("tombola_pool_packets");
        rogue.send(&network, &held);
        eventually("they are in the pool", || (pool(&network) >= 20.0).then_some(()));
        network.node("mix 1.1").process.as_ref().unwrap().signal(Signal::TERM);
        let mix = network.node("mix 1.1");
        eventually("it drains", || mix.process.as_ref()?.stderr().contains("draining").then_some(()));
        rogue.send(&network, &late);
        eventually("it takes nothing new", || (dropped(mix, "draining") >= 5.0).then_some(()));
        let mut process = network.node_mut("mix 1.1").process.take().unwrap();
        assert!(process.wait().success());
        assert!(process.stderr().contains("drained"), "{}", process.stderr());
        rogue.links.shutdown().await;
        eventually("all that it held arrives", || (arrived(&network) >= 20.0).then_some(()));

        // A second signal does not wait for them.
        let mix = network.node_mut("mix 1.1");
        mix.start();
        mix.wait_listening();
        let mut rogue = Rogue::new(&network, 6).await;
        let held = rogue.packets(20, HELD);
        rogue.send(&network, &held);
        eventually("they are in the pool again", || (pool(&network) >= 20.0).then_some(()));
        let mut process = network.node_mut("mix 1.1").process.take().unwrap();
        process.signal(Signal::TERM);
        // Two signals at once are one.
        eventually("it drains again", || process.stderr().contains("draining").then_some(()));
        process.signal(Signal::TERM);
        assert!(process.wait().success());
        // Metrics are handed over once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(arrived(&network), 20.0, "neither these nor what was refused");
        rogue.links.shutdown().await;
    });
    network.stop();
}

#[test]
fn a_new_document_brings_an_epoch_and_a_node_while_all_run() {
    // What comes before the second epoch takes a few seconds, or longer on a machine that has much else to do.
    let lengths = [40, 120, 360];
    assert!(lengths.into_iter().any(new_document), "it is never done in time");
}

/// `false` if the first epoch, of so many seconds, has ended too early.
fn new_document(length: u64) -> bool {
    tombola_client::install_crypto_provider();
    let mut later = None;
    let mut network = HandNetwork::new(&short(1, 2, 2, length), |draft, nodes| {
        let new = nodes.iter().find(|node| node.name == "mix 1.2").unwrap().identity;
        draft.epochs[0].nodes.retain(|node| node.identity != new);
        let mut next = draft.clone();
        next.serial = 2;
        stay(&mut next);
        later = Some(next);
        draft.epochs.pop();
    });
    let later = later.unwrap();
    network.start_without(&["mix 1.2"]);
    network.publish(&later);
    for node in network.nodes.iter().filter(|node| node.name != "mix 1.2") {
        // One is told, the others see it.
        if node.name == "mix 1.1" {
            node.process.as_ref().unwrap().signal(Signal::HUP);
        }
        eventually(&format!("{} has the new document", node.name), || {
            (node.metrics().sum("tombola_document_serial") == 2.0).then_some(())
        });
    }
    // It is in no epoch yet, and waits for its own.
    let new = network.node_mut("mix 1.2");
    new.start();
    new.wait_listening();
    let packets = |name: &str| network.node(name).metrics().sum("tombola_packets_in_total");
    let is_late = || unix_time_now() >= end_of(&network, 1);
    let too_early = packets("mix 1.2");
    if is_late() {
        return false;
    }
    assert_eq!(too_early, 0.0);

    // What must not follow is refused, and all goes on.
    let mut wrong = later.clone();
    wrong.serial = 3;
    wrong.epochs[0].nodes[0].addresses.push("/ip4/127.0.0.1/tcp/1".into());
    network.publish(&wrong);
    for node in &network.nodes {
        eventually(&format!("{} refuses it", node.name), || {
            let refused = node.metrics().sum("tombola_documents_refused_total") == 1.0;
            (refused || is_late()).then_some(())
        });
        if is_late() {
            return false;
        }
        assert_eq!(node.metrics().sum("tombola_document_serial"), 2.0);
        let said = node.process.as_ref().unwrap().stderr();
        assert!(said.contains("epoch 1 has begun"), "{said}");
    }
    eventually("the new node mixes", || (packets("mix 1.2") > 20.0).then_some(()));
    let mixes = network.nodes.iter().filter(|node| node.role != Role::Gateway);
    for node in mixes {
        eventually(&format!("{} is in the second epoch", node.name), || {
            (node.metrics().sum("tombola_epoch") == 2.0).then_some(())
        });
    }
    network.nodes.iter().for_each(assert_nothing_lost);
    network.stop();
    true
}

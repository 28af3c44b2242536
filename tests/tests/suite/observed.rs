//! What logs and metrics say, and what they must not say.

use libp2p::identity::Keypair;
use tombola_client::{Client, Content, Home};
use tombola_node::keys::{Link, SecretFile};
use tombola_tests::hand::{HandNetwork, Spec};
use tombola_tests::{Metrics, PATIENCE, eventually};
use tombola_topology::Role;

/// Every name of an identity that a log could show: hexadecimal, and as libp2p writes it.
pub(crate) fn names_of(home: &std::path::Path) -> [String; 2] {
    names_of_seed(*SecretFile::<Link>::new(home.join("link.key")).load().unwrap().expose())
}

pub(crate) fn names_of_seed(seed: [u8; 32]) -> [String; 2] {
    let peer = Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id();
    [tombola_link::LinkSecret::from_seed(seed).identity().to_string(), peer.to_string()]
}

/// The rule of `docs/logging.md`, at the default level: no line names a client in any way, none names what distinguishes
/// one packet or message, none speaks of a node and of packets, and times are whole seconds.
pub(crate) fn assert_discreet(logs: &[(String, String)], nodes: &[[String; 2]], secret_words: &[String]) {
    for (name, log) in logs {
        // A node begins with the one, a client ends with the other.
        let is_whole = ["started", "links are closed"].iter().any(|words| log.contains(words));
        assert!(is_whole, "{name} has written nothing:\n{log}");
        for line in log.lines() {
            for word in secret_words {
                assert!(!line.contains(word.as_str()), "{name} names {word}: {line}");
            }
            let speaks_of_packets = ["packet", "frame", "message", "mail", "loop"]
                .iter()
                .any(|word| line.to_lowercase().contains(word));
            let names_a_node = nodes.iter().flatten().any(|node| line.contains(node.as_str()));
            assert!(!(speaks_of_packets && names_a_node), "{name} joins what must be apart: {line}");
            let time = line.find('T').and_then(|at| line.get(at..at + 10)).unwrap_or_default();
            assert!(!time.contains('.'), "{name} writes fractions of a second: {line}");
            assert!(line.contains('Z'), "{name} writes something without a time: {line}");
        }
    }
}

/// What the metrics of a node that works have: all that is documented for its role, and for whether it is paid, and nothing else.
pub(crate) fn assert_healthy(metrics: &Metrics, name: &str, role: Role, is_paid: bool) {
    let mut wrong = Vec::new();
    for (metric, occasional) in documented() {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| metric.starts_with(prefix));
        let of_mixes = begins(&[
            "tombola_packets_emitted_total",
            "tombola_pool_packets",
            "tombola_tags_late_total",
            "tombola_loop_",
            "tombola_account_",
        ]);
        let of_gateways = begins(&["tombola_mail", "tombola_storage_"]);
        let of_payment = begins(&["tombola_ticket", "tombola_payment", "tombola_account", "tombola_chain_"]);
        let of_role = if role == Role::Gateway { !of_mixes } else { !of_gateways };
        let applies = of_role && (is_paid || !of_payment);
        // The local network, which is the one that pays, opens packets on the thread that reads them: there is no queue.
        let occasional = occasional || is_paid && metric == "tombola_queue_refused_total";
        if metrics.has(&metric) != applies && !(applies && occasional) {
            wrong.push(metric);
        }
    }
    assert!(wrong.is_empty(), "{name}: {wrong:?} are missing, or should not be there");
    for counted in ["tombola_frames_in_total", "tombola_packets_in_total", "tombola_packets_out_total"] {
        assert!(metrics.sum(counted) > 0.0, "{name}: {counted}");
    }
    assert_eq!(metrics.sum("tombola_queue_refused_total"), 0.0, "{name}");
    let lengths: Vec<&str> =
        metrics.samples("tombola_frame_lengths_total").map(|(labels, _)| labels).collect();
    assert_eq!(lengths, ["{bytes=\"2448\"}"], "{name}");
}

/// None of these words is in the metrics.
pub(crate) fn assert_nobody<'a>(metrics: &Metrics, name: &str, words: impl Iterator<Item = &'a String>) {
    let page = metrics.0.to_lowercase();
    for word in words {
        assert!(!page.contains(&word.to_lowercase()), "{name}: metrics name {word}");
    }
}

#[test]
fn logs_and_metrics_of_a_run_show_health_and_nobody() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&Spec::new(3, 1, 2), |_, _| {});
    network.start();
    let folders = [network.client("alice", "gateway 1"), network.client("bob", "gateway 2")];
    let homes = folders.each_ref().map(|folder| Home::open(folder).unwrap());
    let mut secret_words: Vec<String> = folders.iter().flat_map(|folder| names_of(folder)).collect();
    for home in &homes {
        let address = home.address().unwrap();
        secret_words.extend([
            address.to_string(),
            address.mailbox.to_string(),
            address.sphinx_key.to_string(),
        ]);
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let alice = Client::connect(&homes[0]).await.unwrap();
        let mut bob = Client::connect(&homes[1]).await.unwrap();
        for number in 0..20 {
            let id = alice.send(&bob.address(), &Content::Text(format!("word {number}"))).await.unwrap();
            secret_words.push(id.to_string());
        }
        for _ in 0..20 {
            tokio::time::timeout(PATIENCE, bob.receive()).await.unwrap().unwrap();
        }
        // Coming and going is what a log is tempted to write about.
        bob.close().await.unwrap();
        let bob = Client::connect(&homes[1]).await.unwrap();
        bob.close().await.unwrap();
        alice.close().await.unwrap();
    });

    for node in &network.nodes {
        if let Role::Mix { .. } = node.role {
            eventually("loops have come back", || {
                let metrics = node.metrics();
                let ratios: Vec<f64> =
                    metrics.samples("tombola_loop_delivery_ratio").map(|(_, ratio)| ratio).collect();
                // Two halves, at two gateways.
                (ratios.len() == 4 && ratios.iter().all(|&ratio| ratio > 0.9)).then_some(())
            });
        }
        let metrics = node.metrics();
        assert_healthy(&metrics, &node.name, node.role, false);
        let nodes: Vec<String> = network.nodes.iter().flat_map(|node| names_of(&node.home)).collect();
        assert_nobody(&metrics, &node.name, secret_words.iter().chain(&nodes));
        if node.role == Role::Gateway {
            // One client each, and an account of each of three mix nodes.
            assert_eq!(metrics.sum("tombola_mailboxes"), 4.0, "{}", node.name);
            assert!(metrics.sum("tombola_mail_stored_total") > 0.0, "{}", node.name);
            assert!(metrics.sum("tombola_mail_delivered_total") > 0.0, "{}", node.name);
        }
    }
    let nodes: Vec<[String; 2]> = network.nodes.iter().map(|node| names_of(&node.home)).collect();
    assert_discreet(&network.stop(), &nodes, &secret_words);
}

/// Names in the table of `docs/metrics.md`, and whether each is there only once something was refused, dropped or ended.
fn documented() -> Vec<(String, bool)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let rows =
        text.lines().filter_map(|line| line.strip_prefix("| `")).filter(|row| row.starts_with("tombola_"));
    let parse =
        |row: &str| Some((row.split_once('`')?.0.to_owned(), row.split('|').nth(3)?.contains("`reason`")));
    let names: Vec<(String, bool)> = rows.filter_map(parse).collect();
    assert!(names.len() >= 20 && names.iter().any(|(_, occasional)| *occasional), "{names:?}");
    names
}

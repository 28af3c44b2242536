//! What logs and wires of a network that pays have in common: nothing that joins the two sides of a hop.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tombola::local::{Chain, LocalNetwork, Options, Transport};
use tombola_tests::hand::{free_port, quick};
use tombola_tests::process::Process;
use tombola_tests::proxy::{Proxy, Seen};
use tombola_tests::{Metrics, PATIENCE, eventually, tombola};
use tombola_topology::Role;

use crate::observed::{assert_discreet, assert_healthy, assert_nobody, names_of};

/// Everything that Tombola's own crates can say, and what libraries say about themselves.
const LOG: &str = "info,tombola=trace";
/// Letters of the shortest value that is looked for among words: 8 bytes in base 58 or 64.
const WORD: usize = 11;
/// Digits of the shortest number: shorter ones are counts, which may be alike by chance.
const DIGITS: usize = 6;
/// Messages of each client.
const MESSAGES: usize = 20;
/// Bytes of a wire that are compared.
const BYTES: usize = 2 << 20;

/// Values in a text: hexadecimal, base 58 or 64 of 8 bytes or more, and numbers; not times, nor words, nor what a node says at its
/// end, which is sums: that two are the same is chance.
fn values(text: &str) -> BTreeSet<String> {
    let is_value = |word: &&str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        digits > 0 && word.len() >= WORD || digits == word.len() && digits >= DIGITS
    };
    let words = |line: &str| -> Vec<String> {
        let rest = line.find("Z ").filter(|&at| at < 40).map_or(line, |at| &line[at + 2..]);
        let split = rest.split(|letter: char| !letter.is_ascii_alphanumeric());
        split.filter(is_value).map(|word| word.trim_start_matches("0x").to_lowercase()).collect()
    };
    text.lines().filter(|line| !line.starts_with("{\"event\":\"settled\"")).flat_map(words).collect()
}

/// A program that is `tombola`, and leaves what it says in a folder.
fn talkative(folder: &Path) -> std::path::PathBuf {
    let script = folder.join("talkative");
    let text = format!(
        "#!/usr/bin/env bash\nexport TOMBOLA_LOG={LOG:?}\n\
         name={folder:?}/log-$$-$1\n\
         exec {binary:?} \"$@\" > >(exec tee -a \"$name.out\") 2> >(exec tee -a \"$name.err\" >&2)\n",
        binary = tombola()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    script
}

/// Whether the arguments of any process name a file in this folder, as those of whoever writes a log do.
fn is_named_by_a_process(folder: &Path) -> bool {
    let name = folder.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let arguments = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(name)
    })
}

/// Puts an eavesdropper where everybody looks for a node, and the node behind it.
fn behind_a_proxy(network: &mut LocalNetwork, name: &str) -> Proxy {
    let config = network.folder().join(name.replace(' ', "-")).join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (_, rest) = text.split_once("/udp/").unwrap();
    let old: u16 = rest.split_once('/').unwrap().0.parse().unwrap();
    let new = free_port();
    let moved = text.replace(&format!("/{old}/"), &format!("/{new}/"));
    std::fs::write(&config, moved.replace(&format!("/{old}\""), &format!("/{new}\""))).unwrap();
    network.kill(name).unwrap();
    let proxy = Proxy::udp_at(old, new);
    network.restart(name).unwrap();
    proxy
}

/// Every string of 8 bytes of what was seen from a moment on.
fn strings(seen: &[Seen], from: Instant) -> Vec<u64> {
    let mut total = 0;
    let recent = seen.iter().filter(|datagram| datagram.at >= from).take_while(|datagram| {
        total += datagram.bytes.len();
        total <= BYTES
    });
    let mut all: Vec<u64> = recent
        .flat_map(|datagram| {
            datagram.bytes.windows(8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn in_common(a: &[u64], b: &[u64]) -> usize {
    a.iter().filter(|string| b.binary_search(string).is_ok()).count()
}

#[test]
fn logs_and_wires_of_a_paid_run_join_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        layers: 2,
        width: 1,
        gateways: 2,
        parameters: Some(quick(2)),
        chain: Chain::Own,
        // What is seen are datagrams.
        transport: Transport::Quic,
        binary: Some(talkative(folder.path())),
        ..Options::default()
    };
    let mut network = LocalNetwork::start(&options).unwrap();
    // The links on the two sides of the node of layer 1.
    let proxies = ["mix 1.1", "mix 2.1"].map(|name| behind_a_proxy(&mut network, name));
    let mut clients = ["alice", "bob"].map(|name| {
        let home = network.new_client(name).unwrap();
        let home = home.to_str().unwrap();
        let args = ["client", "--log", LOG, "--home", home, "run", "--save", home];
        Process::tombola(name, &args)
    });
    let addresses =
        clients.each_mut().map(|client| client.event("ready")["address"].as_str().unwrap().to_owned());
    for number in 0..MESSAGES {
        for from in 0..2 {
            let text = format!("word {number} of {from}");
            let send = json!({ "to": addresses[1 - from], "text": text, "replies": 1 });
            clients[from].tell(&json!({ "send": send }).to_string());
        }
    }
    let mut ids = BTreeSet::new();
    for client in &mut clients {
        for _ in 0..MESSAGES {
            let event = client.event("received");
            ids.insert(event["id"].as_str().unwrap().to_owned());
        }
    }
    // Windows end, are claimed and paid meanwhile; and the first loops are due.
    let deadline = Instant::now() + 3 * PATIENCE;
    let paid = |address| Metrics::of(address).with("tombola_tickets_total", "stage", "paid") > 0.0;
    let judged = |address| Metrics::of(address).has("tombola_loop_delivery_ratio");
    while !network
        .nodes()
        .all(|node| paid(node.metrics) && (node.role == Role::Gateway || judged(node.metrics)))
    {
        assert!(Instant::now() < deadline, "not everybody was paid, or looked at loops");
        std::thread::sleep(Duration::from_secs(1));
    }
    let homes: Vec<_> =
        network.nodes().map(|node| network.folder().join(node.name.replace(' ', "-"))).collect();
    let nodes: Vec<[String; 2]> = homes.iter().map(|home| names_of(home)).collect();
    let accounts: Vec<String> = network.network().epochs()[0]
        .nodes()
        .iter()
        .map(|node| node.account.unwrap().to_string().trim_start_matches("0x").to_owned())
        .collect();
    for node in network.nodes() {
        let metrics = Metrics::of(node.metrics);
        assert_healthy(&metrics, &node.name, node.role, true);
        assert_nobody(
            &metrics,
            &node.name,
            nodes.iter().flatten().chain(&accounts).chain(&addresses).chain(&ids),
        );
    }
    let now = Instant::now();
    let captured = |proxy: &Proxy| -> usize {
        proxy.seen().iter().filter(|datagram| datagram.at >= now).map(|datagram| datagram.bytes.len()).sum()
    };
    eventually("there is enough to compare", || {
        std::thread::sleep(Duration::from_secs(1));
        proxies.iter().all(|proxy| captured(proxy) >= BYTES).then_some(())
    });
    let [before, behind] = proxies.each_ref().map(|proxy| strings(&proxy.seen(), now));
    println!("{} and {} strings before and behind a hop", before.len(), behind.len());
    assert!(before.len() > BYTES / 4 && behind.len() > BYTES / 4);
    assert_eq!(in_common(&before, &behind), 0, "the same bytes come before and behind a hop");

    let mut logs = Vec::new();
    for mut client in clients {
        client.close_input();
        assert!(client.wait().success(), "{}", client.stderr());
        logs.push((client.name().to_owned(), client.stderr()));
    }
    let tickets = network.wind_up(&|| false).unwrap().unwrap();
    assert_eq!(tickets.problems(), [""; 0]);
    let mut public = std::fs::read_to_string(network.document()).unwrap();
    for home in &homes {
        public += &std::fs::read_to_string(home.join("node.toml")).unwrap();
    }
    let mut public = values(&public);
    public.extend(nodes.iter().flatten().map(|name| name.to_lowercase()));
    network.stop();
    eventually("the logs are written", || (!is_named_by_a_process(folder.path())).then_some(()));
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains("mixnode.") || name.contains("gateway.") {
            logs.push((name.to_owned(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    // Those that were started again have two logs each, and each log two files.
    assert_eq!(logs.len(), 2 + 2 * 6, "{:?}", logs.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let errors: Vec<_> = logs.iter().filter(|(name, _)| !name.ends_with(".out")).cloned().collect();
    let words: Vec<String> = ids.into_iter().collect();
    assert_discreet(&errors, &nodes, &words);
    // Who says of itself that it is this node, in one of its files.
    let node_of = |name: &str| {
        let process = name.split('.').next();
        let log = |names: &&[String; 2]| {
            let word = format!("local_peer_id={}", names[1]);
            logs.iter().any(|(other, log)| other.split('.').next() == process && log.contains(&word))
        };
        nodes.iter().find(log).map(|names| names[0].clone())
    };
    let said: Vec<_> = logs
        .iter()
        .map(|(name, log)| (name, values(log).difference(&public).cloned().collect::<BTreeSet<_>>()))
        .collect();
    let owners: BTreeSet<_> = logs.iter().filter_map(|(name, _)| node_of(name)).collect();
    assert_eq!(owners.len(), nodes.len(), "every node has a log");
    for (place, (name, values)) in said.iter().enumerate() {
        println!("{name}: {values:?}");
        for (other, others) in &said[place + 1..] {
            // Of one client, or of one node, whose earlier process has its accounts, too.
            if name == other || node_of(name).is_some() && node_of(name) == node_of(other) {
                continue;
            }
            let both: Vec<_> = values.intersection(others).collect();
            assert!(both.is_empty(), "{name} and {other} both say {both:?}");
        }
    }
}

#[test]
fn what_is_common_would_be_found() {
    let line = "2026-01-01T00:00:00Z  INFO tombola_node::payment: window 123456 0xdeadbeefdeadbeef of 12D3KooWabcdefgh, 2 again";
    let expected = ["123456", "12d3koowabcdefgh", "deadbeefdeadbeef"].map(str::to_owned);
    assert_eq!(values(line), BTreeSet::from(expected));
    assert_eq!(values("{\"event\":\"settled\",\"issued\":12345}"), BTreeSet::new());
    let seen = |bytes: &[u8]| Seen {
        at: Instant::now(),
        flow: 0,
        from: tombola_tests::proxy::From::Dialler,
        bytes: bytes.to_vec(),
    };
    let begun = Instant::now();
    let strings = |bytes: &[u8]| strings(&[seen(bytes)], begun);
    assert_eq!(in_common(&strings(b"0123456789"), &strings(b"ab12345678")), 1);
    assert_eq!(in_common(&strings(b"0123456789"), &strings(b"9876543210")), 0);
}

//! Writes the data of a small network with the program as it is now, for the tests of later versions.
//!
//! `cargo xtask fixtures` runs it when a version is released; what it writes is checked in as `tests/fixtures/<version>` and
//! never changed again. See `tests/fixtures/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a tool of the tests: a panic says what is wrong"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tombola_node::clock::unix_now;
use tombola_tests::hand::free_port;
use tombola_tests::process::{Process, run};

/// How long the network's one epoch is valid. Tests sign a document of their own.
const VALID: u64 = 7 * 24 * 3600;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: fixtures NEW-FOLDER"));
    assert!(!folder.exists(), "{} exists; fixtures are never changed", folder.display());
    std::fs::create_dir_all(&folder).unwrap();
    let folder = std::fs::canonicalize(folder).unwrap();

    let authority = success(&["network", "keygen", "--secret", &text(&folder.join("authority/secret.key"))]);
    let nodes = [node(&folder, "mix", &authority), node(&folder, "gateway", &authority)];
    sign(&folder, &nodes);
    let network = text(&folder.join("network.json"));
    let addresses = ["alice", "bob"].map(|name| {
        let home = text(&folder.join(name));
        success(&[
            "client",
            "--home",
            &home,
            "init",
            "--offline",
            "--network",
            &network,
            "--authority",
            &authority,
        ])
    });

    let mut running = ["mix", "gateway"].map(|name| start(&folder, name));
    for node in &mut running {
        node.event("listening");
    }
    // A gateway keeps mail for whom it knows.
    let mut bob = client(&folder, "bob");
    bob.event("ready");
    bob.close_input();
    bob.wait();
    // One message in bob's mailbox, one in alice's outbox.
    let mut alice = client(&folder, "alice");
    alice.event("ready");
    let send = |alice: &mut Process, words: &str| {
        let command = json!({ "send": { "to": addresses[1], "text": words, "tag": words } });
        alice.tell(&command.to_string());
        alice.event("queued")["id"].as_str().unwrap().to_owned()
    };
    let mut pending = vec![send(&mut alice, "in the mailbox")];
    alice.event("emitted");
    std::thread::sleep(Duration::from_secs(2));
    pending.push(send(&mut alice, "in the outbox"));
    alice.signal(Signal::KILL);
    alice.wait();
    for node in &mut running {
        node.close_input();
        assert!(node.wait().success(), "{}", node.stderr());
    }
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "authority": authority,
        "addresses": { "alice": addresses[0], "bob": addresses[1] },
        "identities": { "mix": nodes[0]["identity"], "gateway": nodes[1]["identity"] },
        "pending": pending,
    });
    let file = folder.join("expected.json");
    std::fs::write(&file, serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
    println!("wrote {}", folder.display());
}

/// Makes a node's folder; its entry in the document.
fn node(folder: &Path, name: &str, authority: &str) -> Value {
    let home = folder.join(name);
    let mut entry: Value =
        serde_json::from_str(&success(&["network", "node-keys", "--home", &text(&home)])).unwrap();
    let addresses = || {
        let port = free_port();
        vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{port}")]
    };
    let (listen, client_listen) = (addresses(), addresses());
    let mut configuration = format!(
        "network = \"../network.json\"\nauthority = \"{authority}\"\nlink_secret = \"link.key\"\n\
         sphinx_secret = \"sphinx.key\"\nlisten = {listen:?}\nmetrics = \"127.0.0.1:0\"\nworkers = 1\n\
         link_threads = 1\nplaces = 1024\n"
    );
    entry["role"] = json!(name);
    entry["addresses"] = json!(listen);
    if name == "gateway" {
        entry["client_addresses"] = json!(client_listen);
        entry.as_object_mut().unwrap().remove("layer");
        configuration +=
            &format!("client_listen = {client_listen:?}\nmail_packets = 1024\nclients_per_origin = 0\n");
    } else {
        entry["layer"] = json!(1);
    }
    std::fs::write(home.join("node.toml"), configuration).unwrap();
    entry
}

fn sign(folder: &Path, nodes: &[Value]) {
    let now = unix_now();
    let draft = json!({ "network": {
        "format": 1,
        "name": "fixtures",
        "serial": 1,
        "parameters": {
            "layers": 1, "mean_delay": "20ms", "max_delay": "10s",
            "main_interval": "20ms", "loop_interval": "200ms", "drop_interval": "200ms",
            "mix_loop_interval": "200ms", "loop_timeout": "30s", "downlink_interval": "10ms",
            "mailbox_packets": 1024, "mailbox_retention": "14d",
            "clients_per_gateway": 16, "admitted_rate": 1000
        },
        "epochs": [{ "number": 1, "valid_from": now - 60, "valid_until": now + VALID, "nodes": nodes }],
    } });
    let file = folder.join("draft.json");
    std::fs::write(&file, draft.to_string()).unwrap();
    let (secret, out) = (text(&folder.join("authority/secret.key")), text(&folder.join("network.json")));
    success(&["network", "sign", &text(&file), "--secret", &secret, "--out", &out]);
    std::fs::remove_file(file).unwrap();
}

fn start(folder: &Path, name: &str) -> Process {
    let config = text(&folder.join(name).join("node.toml"));
    let role = if name == "gateway" { "gateway" } else { "mixnode" };
    Process::tombola(name, &[role, "--exit-with-stdin", "--config", &config])
}

fn client(folder: &Path, name: &str) -> Process {
    let home = text(&folder.join(name));
    Process::tombola(name, &["client", "--home", &home, "run", "--save", &home])
}

fn success(args: &[&str]) -> String {
    run(args).success()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

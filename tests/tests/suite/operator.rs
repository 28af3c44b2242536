//! Operators' and users' mistakes: each is answered by one line that says what is wrong, where, and what to do.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tombola_client::Home;
use tombola_node::clock::unix_now;
use tombola_node::keys::{Link, SecretFile, Sphinx};
use tombola_tests::hand::{HandNetwork, HandNode, Spec, port_of};
use tombola_tests::process::{Outcome, run};
use tombola_topology::{AuthoritySecret, Draft, UnixTime};

/// A network that is never started, and one of its nodes to make mistakes with.
struct Bench {
    network: HandNetwork,
}

impl Bench {
    fn new() -> Self {
        Self { network: HandNetwork::new(&Spec::new(3, 1, 2), |_, _| {}) }
    }

    fn node(&self) -> &HandNode {
        self.network.node("mix 2.1")
    }

    /// Starts the node with this configuration.
    fn start(&self, configuration: &str) -> Outcome {
        self.start_as("mixnode", configuration)
    }

    fn start_as(&self, role: &str, configuration: &str) -> Outcome {
        let config = self.node().home.join("wrong.toml");
        std::fs::write(&config, configuration).unwrap();
        run(&[role, "--exit-with-stdin", "--config", config.to_str().unwrap()])
    }

    /// The right configuration, changed.
    fn changed(&self, from: &str, to: &str) -> String {
        let right = self.network.configuration(self.node(), &self.network.document);
        assert!(right.contains(from), "{right}");
        right.replacen(from, to, 1)
    }

    /// Starts the node with another document.
    fn with_document(&self, text: &str) -> (Outcome, PathBuf) {
        let document = self.network.folder().join("other.json");
        std::fs::write(&document, text).unwrap();
        (self.start(&self.network.configuration(self.node(), &document)), document)
    }

    fn with_draft(&self, change: impl FnOnce(&mut Draft)) -> Outcome {
        let mut draft = self.network.draft.clone();
        change(&mut draft);
        self.with_document(draft.sign(&self.network.authority).unwrap().to_json()).0
    }

    /// The document as it was signed.
    fn document(&self) -> String {
        std::fs::read_to_string(&self.network.document).unwrap()
    }
}

#[test]
fn what_is_wrong_with_a_document_is_said() {
    let bench = Bench::new();
    let now = unix_now();
    bench
        .with_draft(|draft| {
            draft.epochs[0].valid_from = UnixTime(now - 7200);
            draft.epochs[0].valid_until = UnixTime(now - 60);
        })
        .refusal(&["other.json", "expired", "get the current one"]);
    bench
        .with_draft(|draft| {
            draft.epochs[0].valid_from = UnixTime(now + 3600);
        })
        .refusal(&["other.json", "not valid before", "clock"]);

    let signed = bench.document();
    let (outcome, path) = bench.with_document(&signed.replacen("\"by-hand\"", "\"by-foot\"", 1));
    outcome.refusal(&[path.to_str().unwrap(), "signature", "changed after it was signed"]);
    let other = AuthoritySecret::from_seed([7; 32]);
    let (outcome, _) = bench.with_document(bench.network.draft.sign(&other).unwrap().to_json());
    let (found, expected) = (other.key().to_string(), bench.network.authority.key().to_string());
    outcome.refusal(&["other.json", "authority", &found, &expected, "another network"]);
    let (outcome, _) = bench.with_document(&signed[..signed.len() / 2]);
    outcome.refusal(&["other.json", "JSON", "line"]);
    let (outcome, _) = bench.with_document("");
    outcome.refusal(&["other.json", "JSON"]);
    let (outcome, _) = bench.with_document(&signed.replacen("\"signature\"", "\"signatures\"", 1));
    outcome.refusal(&["other.json", "signatures", "unknown field", "`signature`"]);
    bench.start(&bench.changed("network.json", "nothing.json")).refusal(&[
        "nothing.json",
        "cannot be read",
        "No such file",
    ]);
}

/// A field that this version does not know, in a document that its authority has signed: found by the authority already.
#[test]
fn the_authority_signs_nothing_that_is_wrong() {
    let bench = Bench::new();
    let folder = bench.network.folder();
    let secret = folder.join("authority.key");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let key = run(&["network", "keygen", "--secret", &text(&secret)]).success();
    run(&["network", "keygen", "--secret", &text(&secret)]).refusal(&["authority.key", "never overwritten"]);
    let sign = |document: &str| {
        let (draft, out) = (folder.join("draft.json"), folder.join("signed.json"));
        std::fs::write(&draft, document).unwrap();
        run(&["network", "sign", &text(&draft), "--secret", &text(&secret), "--out", &text(&out)])
    };
    let document = bench.document();
    let outcome = sign(&document.replacen("\"mean_delay\"", "\"mean_dealy\"", 1));
    outcome.refusal(&["draft.json", "network.parameters.mean_dealy", "unknown field", "`mean_delay`"]);
    sign(&document.replacen("\"20ms\"", "\"20\"", 1)).refusal(&["draft.json", "network.parameters."]);
    sign(&document).success();
    let signed = text(&folder.join("signed.json"));
    let listing = run(&["network", "check", &signed, "--authority", &key]).success();
    assert!(listing.contains("by-hand") && listing.contains("2 gateways"), "{listing}");
    let wrong = bench.network.authority.key().to_string();
    run(&["network", "check", &signed, "--authority", &wrong]).refusal(&["signed.json", &key, &wrong]);
    run(&["network", "check", &signed, "--authority", &key[1..]]).refusal(&["authority's key", "64", "63"]);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let bench = Bench::new();
    let wrong = "wrong.toml";
    bench.start(&bench.changed("sphinx_secret", "sphinx_sceret")).refusal(&[
        wrong,
        "line",
        "unknown key \"sphinx_sceret\"",
        "did you mean \"sphinx_secret\"?",
    ]);
    bench.start(&bench.changed("workers = 1", "mean_delay = \"1ms\"")).refusal(&[
        wrong,
        "unknown key \"mean_delay\"",
        "valid here",
        "workers",
    ]);
    bench.start(&bench.changed("sphinx_secret = \"sphinx.key\"\n", "")).refusal(&[
        "exactly one",
        "\"sphinx_secrets\"",
        "\"sphinx_secret\"",
    ]);
    bench.start(&bench.changed("workers = 1", "workers = \"one\"")).refusal(&[
        wrong,
        "line",
        "\"workers\"",
        "expected",
        "string \"one\"",
    ]);
    bench.start(&bench.changed("workers = 1", "workers = ")).refusal(&[wrong, "line", "column"]);
    bench.start(&bench.changed("127.0.0.1:0", "0.0.0.0:0")).refusal(&[
        "0.0.0.0:0",
        "not a loopback address",
        "127.0.0.1",
    ]);
    let address = bench.node().listen[0].clone();
    bench.start(&bench.changed(&address, "localhost:9000")).refusal(&["\"localhost:9000\"", "/ip4/"]);
    let authority = bench.network.authority.key().to_string();
    bench.start(&bench.changed(&authority, &authority[2..])).refusal(&["\"authority\"", "62", "64"]);
    bench.start_as("gateway", &bench.changed("workers", "workers")).refusal(&[wrong, "client_listen"]);
    let missing = bench.network.folder().join("none.toml");
    run(&["mixnode", "--config", missing.to_str().unwrap()]).refusal(&["none.toml", "no such file"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let bench = Bench::new();
    let [quic, tcp] = &bench.node().listen[..] else { panic!("two addresses") };
    let right = bench.network.configuration(bench.node(), &bench.network.document);
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, port_of(quic))).unwrap();
    bench.start(&right).refusal(&[quic, "another program uses this port", "another port"]);
    drop(taken);
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port_of(tcp))).unwrap();
    bench.start(&right).refusal(&[tcp, "another program uses this port", "another port"]);
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let _taken = TcpListener::bind(metrics).unwrap();
    bench.start(&bench.changed("127.0.0.1:0", &metrics.to_string())).refusal(&[
        "metrics",
        &metrics.to_string(),
        "in use",
    ]);
}

#[test]
fn what_is_wrong_with_a_key_file_is_said() {
    let bench = Bench::new();
    let home = &bench.node().home;
    let right = bench.network.configuration(bench.node(), &bench.network.document);
    let with_link = |file: &str| bench.start(&bench.changed("link.key", file));

    let key = std::fs::read_to_string(home.join("link.key")).unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = home.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    write("open.key", &key, 0o644);
    with_link("open.key").refusal(&["open.key", "0644", "others have access", "chmod 600"]);
    with_link("nothing.key").refusal(&["nothing.key", "no such key file"]);
    write("later.key", &key.replace("-secret-1: ", "-secret-2: "), 0o600);
    with_link("later.key").refusal(&["later.key", "version 2", "up to 1", "newer"]);
    with_link("sphinx.key").refusal(&["sphinx.key", "tombola-sphinx-secret", "tombola-link-secret"]);
    write("cut.key", &key[..40], 0o600);
    let message = with_link("cut.key").refusal(&["cut.key", "not a key file", "64 hexadecimal digits"]);
    assert!(!message.contains(&key[24..38]), "a part of the key is shown: {message}");
    // A folder in place of a file.
    std::fs::create_dir(home.join("folder.key")).unwrap();
    with_link("folder.key").refusal(&["folder.key", "key file"]);

    SecretFile::<Link>::new(home.join("new-link.key")).generate().unwrap();
    with_link("new-link.key").refusal(&["does not list this node", "identity", "link_secret"]);
    SecretFile::<Sphinx>::new(home.join("new-sphinx.key")).generate().unwrap();
    bench.start(&right.replace("\"sphinx.key\"", "\"new-sphinx.key\"")).refusal(&[
        "Sphinx key",
        "sphinx_secret",
        "document",
    ]);
    let gateway = bench.network.node("gateway 1");
    let as_mix = bench
        .changed("link.key", gateway.home.join("link.key").to_str().unwrap())
        .replace("sphinx.key", gateway.home.join("sphinx.key").to_str().unwrap());
    bench.start(&as_mix).refusal(&["lists this node as a gateway", "start it as that"]);
}

#[test]
fn what_is_wrong_with_a_client_is_said() {
    let bench = Bench::new();
    let network = &bench.network;
    let folder = network.folder();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let client = |home: &str, args: &[&str]| {
        let home = text(&folder.join(home));
        run(&[&["client", "--home", &home], args].concat())
    };
    let (document, authority) = (text(&network.document), network.authority.key().to_string());
    let init = ["init", "--offline", "--network", &document, "--authority", &authority];

    client("alice", &["address"]).refusal(&["alice", "holds no client", "init --network"]);
    client("alice", &["send", "tombola1x", "hello"]).refusal(&["address"]);
    let address = client("alice", &init).success();
    assert_eq!(client("alice", &["address"]).success(), address);
    client("alice", &init).refusal(&["alice", "holds a client already", "--home"]);
    assert_eq!(client("alice", &["address"]).success(), address);

    // Every mistyped character is found before anything is sent.
    for at in [8, 30, address.len() - 1] {
        let old = address.as_bytes()[at];
        let new = if old == b'q' { 'p' } else { 'q' };
        let wrong = format!("{}{new}{}", &address[..at], &address[at + 1..]);
        client("alice", &["send", &wrong, "hello"]).refusal(&["recipient's address", "mistyped"]);
    }
    client("alice", &["send", &address[..60], "hello"]).refusal(&["recipient's address"]);
    let other = HandNetwork::new(&Spec::new(1, 1, 1), |_, _| {});
    let stranger = run(&["client", "--home", &text(&other.client("bob", "gateway 1")), "address"]).success();
    client("alice", &["send", &stranger, "hello"]).refusal(&["gateway", "network"]);

    let short = &authority[..10];
    client("bob", &["init", "--network", &document, "--authority", short]).refusal(&[
        "authority's key",
        short,
        "64 hexadecimal digits",
    ]);
    let identity = other.node("gateway 1").identity.to_string();
    let known = network.node("gateway 2").identity.to_string();
    client("bob", &[init.as_slice(), &["--gateway", &identity]].concat()).refusal(&[
        "gateway",
        &identity,
        "no gateway of this network",
        &known,
    ]);
    assert!(!folder.join("bob").exists());

    client("alice", &["send", &address, "--file", "/nowhere/file"]).refusal(&[
        "/nowhere/file",
        "cannot be read",
        "No such file",
    ]);
    client("alice", &["send", &address, "--file", "/"]).refusal(&["/"]);
    let large = folder.join("large.bin");
    std::fs::File::create(&large).unwrap().set_len(65 << 20).unwrap();
    client("alice", &["send", &address, "--file", &text(&large)]).refusal(&["large.bin", "67108864"]);

    // A folder that a later version has used.
    let settings = folder.join("alice").join("client.toml");
    let written = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, written.replacen("version = 2", "version = 3\nanything = true", 1)).unwrap();
    client("alice", &["address"]).refusal(&["client.toml", "version 3", "up to 2", "newer"]);
    std::fs::write(&settings, written).unwrap();

    // One process at a time; here this one.
    let busy = Home::open(folder.join("alice")).unwrap();
    for command in [&["receive", "--timeout", "1"] as &[&str], &["run"], &["send", &address, "hello"]] {
        client("alice", command).refusal(&["alice", "in use by another process", "once at a time"]);
    }
    drop(busy);
}

//! Data that earlier versions left on disk (`tests/fixtures`): the present program goes on with it, as the same node and
//! the same client.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tombola_client::Home;
use tombola_node::clock::unix_now;
use tombola_node::keys::{Authority, SecretFile};
use tombola_tests::hand::{free_port, link_secret, port_of};
use tombola_tests::process::{Process, run};
use tombola_topology::{AuthoritySecret, Draft, EpochNumber, UnixTime};

/// A copy of the data of one version, with a document that is valid now.
struct Fixture {
    folder: TempDir,
    expected: Value,
}

impl Fixture {
    fn folders() -> Vec<PathBuf> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
        let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    }

    fn copy(source: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("tombola-test-").tempdir().unwrap();
        copy_private(source, folder.path());
        let expected = serde_json::from_slice(&fs::read(source.join("expected.json")).unwrap()).unwrap();
        let fixture = Self { folder, expected };
        fixture.sign();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, pointer: &str) -> &str {
        self.expected.pointer(pointer).and_then(Value::as_str).unwrap()
    }

    /// Its authority signs a document with the same participants, valid now, on ports that are free now.
    fn sign(&self) {
        let secret = SecretFile::<Authority>::new(self.path("authority/secret.key")).load().unwrap();
        let authority = AuthoritySecret::from_seed(*secret.expose());
        assert_eq!(authority.key().to_string(), self.text("/authority"));
        let mut draft = Draft::from_json(&fs::read_to_string(self.path("network.json")).unwrap()).unwrap();
        let now = unix_now();
        draft.serial += 1;
        let epoch = draft.epochs.first_mut().unwrap();
        epoch.number = EpochNumber(epoch.number.0 + 1);
        (epoch.valid_from, epoch.valid_until) = (UnixTime(now - 60), UnixTime(now + 86_400));
        for node in &mut epoch.nodes {
            for address in node.addresses.iter_mut().chain(&mut node.client_addresses) {
                // The same port for UDP and TCP, as before.
                let old = port_of(address);
                *address = address.replace(&old.to_string(), &self.new_port(old).to_string());
            }
        }
        let document = draft.sign(&authority).unwrap().to_json().to_owned();
        for place in ["network.json", "alice/network.json", "bob/network.json"] {
            fs::write(self.path(place), &document).unwrap();
        }
    }

    /// Gives the nodes that listen on `old` another port; which.
    fn new_port(&self, old: u16) -> u16 {
        let known = self.path(&format!("port-{old}"));
        if let Ok(port) = fs::read_to_string(&known) {
            return port.parse().unwrap();
        }
        let new = free_port();
        for config in ["mix/node.toml", "gateway/node.toml"] {
            let text = fs::read_to_string(self.path(config)).unwrap();
            let changed = text.replace(&format!("/udp/{old}/"), &format!("/udp/{new}/"));
            let changed = changed.replace(&format!("/tcp/{old}\""), &format!("/tcp/{new}\""));
            fs::write(self.path(config), changed).unwrap();
        }
        fs::write(known, new.to_string()).unwrap();
        new
    }

    fn start(&self, role: &str, name: &str) -> Process {
        let config = self.path(name).join("node.toml");
        let args = [role, "--exit-with-stdin", "--config", config.to_str().unwrap()];
        Process::tombola(&format!("{name} of {}", self.text("/version")), &args)
    }

    fn client(&self, name: &str) -> Process {
        let home = self.path(name);
        let args = ["client", "--home", home.to_str().unwrap(), "run", "--save", home.to_str().unwrap()];
        Process::tombola(&format!("{name} of {}", self.text("/version")), &args)
    }
}

/// Copies a folder so that nobody else has access to it: what Git has checked out does not have the modes of secrets.
fn copy_private(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_private(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn data_of_every_version_keeps_its_addresses_and_identities() {
    let folders = Fixture::folders();
    assert!(folders.iter().any(|folder| folder.ends_with("0.1")), "{folders:?}");
    for folder in folders {
        let fixture = Fixture::copy(&folder);
        for name in ["alice", "bob"] {
            let address = fixture.text(&format!("/addresses/{name}"));
            assert_eq!(Home::address_in(&fixture.path(name)).unwrap().to_string(), address, "{folder:?}");
            // Twice: the first time may bring its files up to date.
            for _ in 0..2 {
                let home = Home::open(fixture.path(name)).unwrap();
                assert_eq!(home.address().unwrap().to_string(), address, "{folder:?}");
            }
        }
        for name in ["mix", "gateway"] {
            let identity = fixture.text(&format!("/identities/{name}"));
            assert_eq!(link_secret(&fixture.path(name)).identity().to_string(), identity, "{folder:?}");
        }
    }
}

#[test]
fn a_network_of_every_version_goes_on_from_its_data() {
    for folder in Fixture::folders() {
        let fixture = Fixture::copy(&folder);
        let mut nodes = [fixture.start("mixnode", "mix"), fixture.start("gateway", "gateway")];
        for node in &mut nodes {
            node.event("listening");
        }
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| fixture.client(name));
        let ready = [alice.event("ready"), bob.event("ready")];
        for (event, name) in ready.iter().zip(["alice", "bob"]) {
            assert_eq!(event["address"], fixture.expected["addresses"][name], "{folder:?}");
        }
        let words = format!("from version {} to the present", fixture.text("/version"));
        let command = json!({ "send": { "to": fixture.expected["addresses"]["bob"], "text": words } });
        alice.tell(&command.to_string());
        let new = queued_and_settled(&mut alice, &fixture.expected["pending"]);
        // What waited since then may come first.
        while bob.event("received")["id"] != *new {}
        for process in [&mut alice, &mut bob].into_iter().chain(&mut nodes) {
            process.close_input();
            assert!(process.wait().success(), "{}", process.stderr());
        }
    }
}

/// The id of the message that was just sent, once every message that the earlier version had accepted has got its end:
/// acknowledged, or expired in the meantime.
fn queued_and_settled(alice: &mut Process, pending: &Value) -> String {
    let mut pending: Vec<&str> = pending.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut new = None;
    loop {
        if let (Some(new), true) = (&new, pending.is_empty()) {
            return String::clone(new);
        }
        let line = alice.line_where("its message is queued and older ones are settled", |line| {
            ["\"queued\"", "\"acknowledged\"", "\"expired\""].iter().any(|event| line.contains(event))
        });
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "queued" {
            new = event["id"].as_str().map(str::to_owned);
        } else {
            pending.retain(|id| event["id"] != *id);
        }
    }
}

/// A folder that this version has used is not quietly damaged by the one before, which knows nothing of what is in it.
#[test]
fn a_folder_is_marked_when_it_is_first_opened() {
    let fixture = Fixture::copy(&Fixture::folders()[0]);
    let settings = fixture.path("alice/client.toml");
    assert!(!fs::read_to_string(&settings).unwrap().contains("version"));
    let home = fixture.path("alice");
    let address = run(&["client", "--home", home.to_str().unwrap(), "address"]).success();
    assert_eq!(address, fixture.text("/addresses/alice"));
    drop(Home::open(&home).unwrap());
    assert!(fs::read_to_string(&settings).unwrap().contains("version = 2"));
}

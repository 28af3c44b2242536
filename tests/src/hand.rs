//! A network that is put together by hand: the test writes the document and the configurations, and starts every process
//! itself, so that it can list other addresses, leave nodes out, play one of them, and read all that they write.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tombola_client::{Home, NewHome};
use tombola_link::LinkSecret;
use tombola_node::clock::unix_now;
use tombola_node::derive::random_seed;
use tombola_node::keyring::public_key;
use tombola_node::keys::{Link, SecretFile, Sphinx};
use tombola_topology::{
    AuthoritySecret, Draft, EpochDraft, EpochNumber, IdentityKey, Node, Parameters, Role, SphinxKey, UnixTime,
};

use crate::process::Process;
use crate::{Metrics, eventually, tombola};

/// Size of a network.
#[derive(Clone, Debug)]
pub struct Spec {
    pub layers: u8,
    pub width: usize,
    pub gateways: usize,
    pub parameters: Parameters,
    /// No QUIC address is listed: everything goes over TCP.
    pub tcp_only: bool,
    /// Epochs of the document; with more than one, nodes have a folder of keys.
    pub epochs: u64,
    /// The first one has begun an hour ago and lasts that much longer.
    pub epoch_length: Duration,
}

impl Spec {
    /// Small and quick.
    pub fn new(layers: u8, width: usize, gateways: usize) -> Self {
        Self {
            layers,
            width,
            gateways,
            parameters: quick(layers),
            tcp_only: false,
            epochs: 1,
            epoch_length: Duration::from_secs(86_400),
        }
    }
}

/// Parameters with which a test need not wait long.
pub fn quick(layers: u8) -> Parameters {
    Parameters {
        layers,
        mean_delay: Duration::from_millis(20),
        main_interval: Duration::from_millis(20),
        loop_interval: Duration::from_millis(200),
        drop_interval: Duration::from_millis(200),
        mix_loop_interval: Duration::from_millis(200),
        downlink_interval: Duration::from_millis(10),
        ..Parameters::default()
    }
}

/// One node.
#[derive(Debug)]
pub struct HandNode {
    /// Such as "mix 2.1" or "gateway 1".
    pub name: String,
    pub role: Role,
    /// Its folder: `link.key`, `sphinx.key` (or `sphinx/epoch-1.key` and so on), `node.toml`.
    pub home: PathBuf,
    pub identity: IdentityKey,
    /// Where it listens, whatever the document says.
    pub listen: Vec<String>,
    pub client_listen: Vec<String>,
    pub process: Option<Process>,
    pub metrics: Option<SocketAddr>,
    /// Key files of its Sphinx keys, by epoch.
    pub keys: Vec<PathBuf>,
}

impl HandNode {
    pub fn config(&self) -> PathBuf {
        self.home.join("node.toml")
    }

    /// The word for its role on the command line.
    pub fn command(&self) -> &'static str {
        if self.role == Role::Gateway { "gateway" } else { "mixnode" }
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::of(self.metrics.unwrap())
    }

    /// Starts its process.
    pub fn start(&mut self) {
        let config = self.config();
        let args =
            [self.command().as_ref(), "--exit-with-stdin".as_ref(), "--config".as_ref(), config.as_os_str()];
        self.process = Some(Process::tombola(&self.name, &args));
        self.metrics = None;
    }

    /// Waits until the process that was started listens.
    pub fn wait_listening(&mut self) {
        let event = self.process.as_mut().unwrap().event("listening");
        self.metrics = Some(event["metrics"].as_str().unwrap().parse().unwrap());
    }

    /// Whether the process that was started listens by now.
    pub fn is_listening(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        for line in process.lines_so_far() {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(metrics) = event["metrics"].as_str() {
                self.metrics = Some(metrics.parse().unwrap());
            }
        }
        self.metrics.is_some()
    }

    /// Kills its process with SIGKILL, if it has one.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        self.metrics = None;
    }

    /// Its link identity, for a test that plays it.
    pub fn link_secret(&self) -> LinkSecret {
        link_secret(&self.home)
    }
}

/// The link identity of a node or client.
pub fn link_secret(home: &Path) -> LinkSecret {
    LinkSecret::from_seed(*SecretFile::<Link>::new(home.join("link.key")).load().unwrap().expose())
}

/// A network of processes. Nodes end before the folder goes.
#[derive(Debug)]
pub struct HandNetwork {
    pub nodes: Vec<HandNode>,
    pub authority: AuthoritySecret,
    /// What was signed.
    pub draft: Draft,
    /// The signed document.
    pub document: PathBuf,
    folder: TempDir,
}

impl HandNetwork {
    /// Writes everything. `change` may alter the document before it is signed, for example list a proxy's address in place
    /// of a node's own.
    pub fn new(spec: &Spec, change: impl FnOnce(&mut Draft, &[HandNode])) -> Self {
        // Its epochs do not wait until the program is built.
        tombola();
        let folder = tempfile::Builder::new().prefix("tombola-test-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let authority = AuthoritySecret::from_seed(random_seed().unwrap());
        let document = folder.path().join("network.json");
        let (mut nodes, mut listed) = (Vec::new(), Vec::new());
        let mixes = (1..=spec.layers).flat_map(|layer| {
            (1..=spec.width).map(move |n| (format!("mix {layer}.{n}"), Role::Mix { layer }))
        });
        let gateways = (1..=spec.gateways).map(|n| (format!("gateway {n}"), Role::Gateway));
        for (name, role) in mixes.chain(gateways) {
            let home = folder.path().join(name.replace(' ', "-"));
            let link = SecretFile::<Link>::new(home.join("link.key")).generate().unwrap();
            let keys: Vec<_> = match spec.epochs {
                1 => vec![home.join("sphinx.key")],
                epochs => (1..=epochs).map(|n| home.join(format!("sphinx/epoch-{n}.key"))).collect(),
            };
            let public = keys.iter().map(|path| new_key(path));
            let identity = LinkSecret::from_seed(*link.expose()).identity();
            let listen = addresses(spec.tcp_only);
            let client_listen = if role == Role::Gateway { addresses(spec.tcp_only) } else { Vec::new() };
            let entries = public.map(|sphinx_key| Node {
                role,
                identity,
                sphinx_key,
                addresses: listen.clone(),
                client_addresses: client_listen.clone(),
                account: None,
            });
            listed.push(entries.collect::<Vec<_>>());
            let (process, metrics) = (None, None);
            nodes.push(HandNode {
                name,
                role,
                home,
                identity,
                listen,
                client_listen,
                process,
                metrics,
                keys,
            });
        }
        let now = unix_now();
        let end_of = |epoch: u64| UnixTime(now + epoch * spec.epoch_length.as_secs());
        let mut draft = Draft {
            name: "by-hand".to_owned(),
            serial: 1,
            parameters: spec.parameters.clone(),
            epochs: (1..=spec.epochs)
                .map(|number| EpochDraft {
                    number: EpochNumber(number),
                    valid_from: if number == 1 { UnixTime(now - 3600) } else { end_of(number - 1) },
                    valid_until: end_of(number),
                    payment: None,
                    nodes: listed.iter().map(|entries| entries[number as usize - 1].clone()).collect(),
                })
                .collect(),
        };
        change(&mut draft, &nodes);
        let network = Self { nodes, authority, draft, document, folder };
        network.publish(&network.draft);
        for node in &network.nodes {
            std::fs::write(node.config(), network.configuration(node, &network.document)).unwrap();
        }
        network
    }

    /// Signs a document and puts it in the place of the one that is there, at once.
    pub fn publish(&self, draft: &Draft) {
        let text = draft.sign(&self.authority).unwrap().to_json().to_owned();
        tombola_node::files::replace(&self.document, text.as_bytes(), 0o644).unwrap();
    }

    /// A node's configuration with another document, as an operator would write it.
    pub fn configuration(&self, node: &HandNode, document: &Path) -> String {
        let (authority, listen) = (self.authority.key(), &node.listen);
        let folder = node.keys.len() > 1;
        let keys = if folder { "sphinx_secrets = \"sphinx\"" } else { "sphinx_secret = \"sphinx.key\"" };
        let mut text = format!(
            "network = {document:?}\n\
             authority = \"{authority}\"\n\
             link_secret = \"link.key\"\n\
             {keys}\n\
             listen = {listen:?}\n\
             metrics = \"127.0.0.1:0\"\n\
             workers = 1\n\
             places = 4096\n"
        );
        if node.role == Role::Gateway {
            let listen = &node.client_listen;
            text += &format!("client_listen = {listen:?}\nmail_packets = 65536\nclients_per_origin = 0\n");
        }
        text
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts all nodes but those named, and waits until they listen.
    pub fn start_without(&mut self, left_out: &[&str]) {
        let wanted: Vec<usize> =
            (0..self.nodes.len()).filter(|&n| !left_out.contains(&self.nodes[n].name.as_str())).collect();
        for &n in &wanted {
            self.nodes[n].start();
        }
        for &n in &wanted {
            self.nodes[n].wait_listening();
        }
    }

    /// Starts all nodes, and waits until they are linked.
    pub fn start(&mut self) {
        self.start_without(&[]);
        self.wait_until_linked();
    }

    /// Makes a process that was started in another way the node's, and waits until all nodes are linked.
    pub fn adopt(&mut self, name: &str, mut process: Process) {
        let metrics = process.event("listening")["metrics"].as_str().unwrap().parse().unwrap();
        let node = self.node_mut(name);
        (node.process, node.metrics) = (Some(process), Some(metrics));
        self.wait_until_linked();
    }

    /// Starts a node that has ended, and waits until packets come to it: only then have its neighbours noticed that their
    /// links to its predecessor are dead.
    pub fn restart(&mut self, name: &str) {
        let node = self.node(name);
        let config = node.config();
        let args =
            [node.command().as_ref(), "--exit-with-stdin".as_ref(), "--config".as_ref(), config.as_os_str()];
        let process = Process::tombola(name, &args);
        self.adopt(name, process);
        eventually(&format!("packets come to {name}"), || {
            (self.node(name).metrics().sum("tombola_packets_in_total") > 0.0).then_some(())
        });
    }

    /// Kills a node, which has no time to do anything.
    pub fn kill(&mut self, name: &str) {
        let process = self.node(name).process.as_ref().unwrap();
        process.signal(rustix::process::Signal::KILL);
        assert!(!self.end(name).success());
    }

    /// Waits for a node's end.
    pub fn end(&mut self, name: &str) -> std::process::ExitStatus {
        self.node_mut(name).process.take().unwrap().wait()
    }

    fn wait_until_linked(&self) {
        for node in &self.nodes {
            let least = self.neighbours(node.role) + self.accounts(node.role);
            eventually(&format!("{} is linked", node.name), || {
                (node.metrics().sum("tombola_links_connected") >= least as f64).then_some(())
            });
        }
    }

    /// Accounts of a node of this role: of a mix node at two gateways, if there are two. Whoever counts the links of a
    /// gateway's clients later would otherwise count those that come late among them.
    fn accounts(&self, role: Role) -> usize {
        let gateways = self.nodes.iter().filter(|node| node.role == Role::Gateway).count();
        if role == Role::Gateway { 0 } else { gateways.min(2) }
    }

    /// Neighbours of a node of this role (its accounts and clients not counted).
    fn neighbours(&self, role: Role) -> usize {
        let count = |role: Role| self.nodes.iter().filter(|node| node.role == role).count();
        let layers = self.draft.parameters.layers;
        let mixes = |layer| count(Role::Mix { layer });
        match role {
            Role::Gateway if layers == 1 => mixes(1),
            Role::Gateway => mixes(1) + mixes(layers),
            Role::Mix { .. } if layers == 1 => count(Role::Gateway),
            Role::Mix { layer } => {
                let before = if layer == 1 { count(Role::Gateway) } else { mixes(layer - 1) };
                before + if layer == layers { count(Role::Gateway) } else { mixes(layer + 1) }
            }
        }
    }

    pub fn node(&self, name: &str) -> &HandNode {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    pub fn node_mut(&mut self, name: &str) -> &mut HandNode {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }

    /// Makes a client at a gateway; its folder.
    pub fn client(&self, name: &str, gateway: &str) -> PathBuf {
        let home = self.folder().join(name);
        let (gateway, authority) =
            (self.node(gateway).identity.to_string(), self.authority.key().to_string());
        let new = NewHome { network: &self.document, authority: &authority, gateway: Some(&gateway) };
        Home::create(&home, &new).unwrap();
        home
    }

    /// Ends all nodes in order; what each wrote to standard error.
    pub fn stop(&mut self) -> Vec<(String, String)> {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.close_input();
        }
        let ended = self.nodes.iter_mut().filter_map(|node| Some((node.name.clone(), node.process.take()?)));
        ended
            .map(|(name, mut process)| {
                let status = process.wait();
                let words = process.stderr();
                assert!(status.success(), "{name} ended with {status}:\n{words}");
                assert!(!words.contains("panicked"), "{name}:\n{words}");
                (name, words)
            })
            .collect()
    }
}

impl Drop for HandNetwork {
    fn drop(&mut self) {
        // All at once: one after the other would take long.
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.close_input();
        }
        self.nodes.clear();
    }
}

/// Makes a key file; the public key.
fn new_key(path: &Path) -> SphinxKey {
    let file = SecretFile::<Sphinx>::new(path);
    file.generate().unwrap();
    public_key(&file).unwrap()
}

fn addresses(tcp_only: bool) -> Vec<String> {
    let port = free_port();
    let tcp = format!("/ip4/127.0.0.1/tcp/{port}");
    // In the other order than those that `tombola` makes, so that both transports are tested.
    if tcp_only { vec![tcp] } else { vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), tcp] }
}

/// A port that is free for TCP and UDP, given out once in this process, and below those that the operating system gives to
/// outgoing connections (on Linux 32768 and above), so that nobody takes it by chance before it is used.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let [a, b, ..] = random_seed().unwrap();
    let first = u16::from_le_bytes([a, b]) % 20_000;
    let candidates = (0..20_000).map(|n| 12_000 + ((u32::from(first) + n) % 20_000) as u16);
    let free = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let port = candidates.into_iter().find(|&port| !taken.contains(&port) && free(port)).unwrap();
    taken.insert(port);
    port
}

/// The port of an address for TCP, or for QUIC.
pub fn port_of(address: &str) -> u16 {
    address.trim_end_matches("/quic-v1").rsplit('/').next().unwrap().parse().unwrap()
}

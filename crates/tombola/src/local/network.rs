//! A running local network.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;
use tombola_client::{Home, HomeError, NewHome};
use tombola_node::keys::KeyError;
use tombola_node::metrics::LINKS_CONNECTED;
use tombola_topology::{AuthorityKey, DocumentError, Network, Parameters, Role};

use super::child::Child;
use super::keeper::FOLDER_PREFIX;
use super::plan::{self, Plan, PlannedNode};
use super::scrape;

/// How long a node may take until it listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(20);
/// How long the nodes may take to connect to each other.
const LINK_PATIENCE: Duration = Duration::from_secs(30);
/// How long the keeper may take: longer than it waits for others.
const KEEPER_PATIENCE: Duration = Duration::from_secs(15);
/// How often a network is started anew because somebody else took a port in between.
const ATTEMPTS: usize = 3;
/// What a node says whose port is taken (`tombola_link::ListenError::InUse`).
const PORT_TAKEN: &str = "another program uses this port";

/// How large a local network is, and what it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mix layers, 1 to 3.
    pub layers: u8,
    /// Mix nodes per layer.
    pub width: u16,
    /// Gateways.
    pub gateways: u16,
    /// Mean delay at each mix node.
    pub mean_delay: Duration,
    /// The network's parameters, if not those that follow from `layers` and `mean_delay`.
    pub parameters: Option<Parameters>,
    /// How many epochs the document has. When the last one ends the network does.
    pub epochs: u32,
    /// How long each lasts, in whole seconds; at least (layers + 1) times the longest delay.
    pub epoch_length: Duration,
    /// The `tombola` binary; `None`: looked for as the crate's documentation says.
    pub binary: Option<PathBuf>,
}

impl Default for Options {
    /// Three layers of two mix nodes, two gateways, 0.45 s in each mix node on average, one epoch of a week.
    fn default() -> Self {
        Self {
            layers: 3,
            width: 2,
            gateways: 2,
            mean_delay: Parameters::default().mean_delay,
            parameters: None,
            epochs: 1,
            epoch_length: Duration::from_secs(7 * 24 * 3600),
            binary: None,
        }
    }
}

impl Options {
    pub(super) fn parameters(&self) -> Parameters {
        self.parameters.clone().unwrap_or_else(|| plan::parameters(self))
    }
}

/// Why a local network did not start, or did not stay up.
#[derive(Debug, Error)]
pub enum LocalError {
    /// No binary to start.
    #[error(
        "there is no `tombola` binary to start: build it with `cargo build --release`, and name it in TOMBOLA_BIN if it is not beside this program"
    )]
    NoBinary,
    /// A file or folder could not be made.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No ports.
    #[error("no free loopback port was found: {0}")]
    Ports(io::Error),
    /// The options make no valid network.
    #[error("these options make no valid network: {0}")]
    Document(Box<DocumentError>),
    /// The keys of an epoch could not be retired while the next one lasts.
    #[error(
        "an epoch must last at least {least:?} with these options: the longest delay, once for each layer and once more"
    )]
    EpochShort {
        /// How long at least.
        least: Duration,
    },
    /// A process could not be started.
    #[error("{name} could not be started ({}): {source}", binary.display())]
    Spawn {
        /// Which.
        name: String,
        /// The program.
        binary: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A process has ended before its time.
    #[error("{name} has ended ({status}); its last words:\n{last_words}")]
    Died {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// The end of its standard error.
        last_words: String,
    },
    /// A process has not done something in time.
    #[error("{name} {what} within {} s; its last words:\n{last_words}", patience.as_secs())]
    Late {
        /// Which.
        name: String,
        /// What it has not done.
        what: &'static str,
        /// How long it had.
        patience: Duration,
        /// The end of its standard error.
        last_words: String,
    },
    /// A client could not be made.
    #[error("the client {name}: {source}")]
    Client {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<HomeError>,
    },
    /// The network was told to end while it was starting.
    #[error("interrupted")]
    Interrupted,
}

/// What is known of a running node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Such as "mix 2.1" or "gateway 1".
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its process.
    pub pid: u32,
    /// Where it serves metrics.
    pub metrics: SocketAddr,
}

#[derive(Debug)]
struct RunningNode {
    child: Child,
    info: NodeInfo,
}

/// A running network. Its processes and its folder go when it is dropped; should this process die without that, when it
/// dies.
#[derive(Debug)]
pub struct LocalNetwork {
    nodes: Vec<RunningNode>,
    keeper: Child,
    binary: PathBuf,
    network: Network,
    document: PathBuf,
    folder: Option<TempDir>,
}

impl LocalNetwork {
    /// Starts a network and returns when all its links are up.
    ///
    /// # Errors
    /// The options make no network, or a process did not come up.
    pub fn start(options: &Options) -> Result<Self, LocalError> {
        Self::start_unless(options, &|| false)
    }

    /// As [`start`](Self::start), but gives up when `interrupted` says so.
    pub(super) fn start_unless(
        options: &Options,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self, LocalError> {
        let binary = find_binary(options)?;
        let mut attempt = 1;
        loop {
            match Self::try_start(options, &binary, interrupted) {
                Err(LocalError::Died { last_words, .. })
                    if attempt < ATTEMPTS && last_words.contains(PORT_TAKEN) =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(
        options: &Options,
        binary: &Path,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self, LocalError> {
        let at = |source| LocalError::Folder { path: std::env::temp_dir(), source };
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().map_err(at)?;
        // First, so that there is no moment without it.
        let keeper = Child::spawn(
            "keeper",
            binary,
            &["keeper".as_ref(), "--folder".as_ref(), folder.path().as_os_str()],
        )?;
        let Plan { nodes, network, document } = plan::make(folder.path(), options)?;
        let mut running = Self {
            nodes: Vec::new(),
            keeper,
            binary: binary.to_owned(),
            network,
            document,
            folder: Some(folder),
        };
        let mut children = Vec::new();
        for node in nodes {
            let child = running.spawn_node(&node)?;
            children.push((node, child));
        }
        for (node, mut child) in children {
            let metrics = wait_listening(&mut child, interrupted)?;
            let info = NodeInfo { name: node.name, role: node.role, pid: child.pid(), metrics };
            running.nodes.push(RunningNode { child, info });
        }
        running.wait_linked(interrupted)?;
        Ok(running)
    }

    fn spawn_node(&mut self, node: &PlannedNode) -> Result<Child, LocalError> {
        let role = match node.role {
            Role::Mix { .. } => "mixnode",
            Role::Gateway => "gateway",
        };
        let config = node.config.as_os_str();
        let args = [role.as_ref(), "--exit-with-stdin".as_ref(), "--config".as_ref(), config];
        self.spawn(&node.name, &args)
    }

    /// Starts a process of the network's own binary, and tells the keeper.
    pub(super) fn spawn(&mut self, name: &str, args: &[&std::ffi::OsStr]) -> Result<Child, LocalError> {
        let child = Child::spawn(name, &self.binary, args)?;
        self.keeper.tell(&child.pid().to_string())?;
        Ok(child)
    }

    fn wait_linked(&mut self, interrupted: &dyn Fn() -> bool) -> Result<(), LocalError> {
        let deadline = Instant::now() + LINK_PATIENCE;
        let expected: Vec<usize> = self.nodes.iter().map(|node| self.links_of(&node.info)).collect();
        for (node, expected) in self.nodes.iter_mut().zip(expected) {
            loop {
                let up = scrape::scrape(node.info.metrics)
                    .ok()
                    .and_then(|samples| scrape::value(&samples, LINKS_CONNECTED));
                if up.is_some_and(|up| up >= expected as f64) {
                    break;
                }
                if interrupted() {
                    return Err(LocalError::Interrupted);
                }
                if !node.child.is_running() {
                    return Err(node.child.died());
                }
                if Instant::now() > deadline {
                    return Err(LocalError::Late {
                        name: node.info.name.clone(),
                        what: "has not connected to all its neighbours",
                        patience: LINK_PATIENCE,
                        last_words: node.child.last_words(),
                    });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Links that a node has when everything is up, users' clients excluded: neighbours, and accounts at up to two
    /// gateways from each mix node.
    fn links_of(&self, info: &NodeInfo) -> usize {
        let width = |role: fn(&Role) -> bool| self.nodes.iter().filter(|n| role(&n.info.role)).count();
        let gateways = width(|role| matches!(role, Role::Gateway));
        let layers = self.network.parameters().layers;
        let in_layer =
            |layer: u8| self.nodes.iter().filter(|node| node.info.role == Role::Mix { layer }).count();
        match info.role {
            Role::Mix { layer } => {
                let before = if layer == 1 { gateways } else { in_layer(layer - 1) };
                let after = if layer == layers { gateways } else { in_layer(layer + 1) };
                // In a network of one layer the gateways are on both sides, over one link each.
                let neighbours = if layers == 1 { gateways } else { before + after };
                neighbours + gateways.min(2)
            }
            Role::Gateway if layers == 1 => in_layer(1),
            Role::Gateway => in_layer(1) + in_layer(layers),
        }
    }

    /// Makes a client in the network's folder. The folder returned is what [`Home::open`] takes.
    ///
    /// # Errors
    /// There is one of that name already.
    pub fn new_client(&self, name: &str) -> Result<PathBuf, LocalError> {
        self.new_client_at(name, None)
    }

    /// Makes a client at one gateway, counted from 0.
    ///
    /// # Errors
    /// There is one of that name already, or no such gateway.
    pub fn new_client_at(&self, name: &str, gateway: Option<usize>) -> Result<PathBuf, LocalError> {
        let home = self.folder().join("clients").join(name);
        let epoch = self.network.epochs().first();
        let identity = gateway.and_then(|n| {
            let epoch = epoch?;
            let index = epoch.gateways().get(n % epoch.gateways().len())?;
            Some(epoch.node(*index)?.identity.to_string())
        });
        let authority = self.authority().to_string();
        let new = NewHome { network: &self.document, authority: &authority, gateway: identity.as_deref() };
        Home::create(&home, &new)
            .map_err(|source| LocalError::Client { name: name.to_owned(), source: Box::new(source) })?;
        Ok(home)
    }

    /// The nodes, mix nodes first.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().map(|node| &node.info)
    }

    /// Whether all nodes still run; else what the first that does not has said.
    ///
    /// # Errors
    /// A node has ended.
    pub fn check(&mut self) -> Result<(), LocalError> {
        match self.nodes.iter_mut().find_map(|node| (!node.child.is_running()).then(|| node.child.died())) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The signed document.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The file of the signed document.
    #[must_use]
    pub fn document(&self) -> &Path {
        &self.document
    }

    /// The key that signed it.
    #[must_use]
    pub fn authority(&self) -> AuthorityKey {
        self.network.authority()
    }

    /// The network's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("."), TempDir::path)
    }

    /// Ends all processes in order and removes the folder. Dropping it does the same.
    pub fn stop(self) {}
}

impl Drop for LocalNetwork {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.child.dismiss();
        }
        for node in &mut self.nodes {
            node.child.wait();
        }
        drop(self.folder.take());
        // It waits for stragglers itself.
        self.keeper.wait_for(KEEPER_PATIENCE);
    }
}

fn wait_listening(child: &mut Child, interrupted: &dyn Fn() -> bool) -> Result<SocketAddr, LocalError> {
    let deadline = Instant::now() + LISTEN_PATIENCE;
    while Instant::now() < deadline {
        if interrupted() {
            return Err(LocalError::Interrupted);
        }
        let Some(line) = child.line(Duration::from_millis(100))? else { continue };
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(metrics) = event["metrics"].as_str().and_then(|text| text.parse().ok()) {
            return Ok(metrics);
        }
    }
    Err(LocalError::Late {
        name: child.name().to_owned(),
        what: "did not start",
        patience: LISTEN_PATIENCE,
        last_words: child.last_words(),
    })
}

fn find_binary(options: &Options) -> Result<PathBuf, LocalError> {
    if let Some(binary) = &options.binary {
        return Ok(binary.clone());
    }
    if let Some(binary) = std::env::var_os("TOMBOLA_BIN") {
        return Ok(binary.into());
    }
    let own = std::env::current_exe().map_err(|_| LocalError::NoBinary)?;
    if own.file_stem().is_some_and(|name| name == "tombola") {
        return Ok(own);
    }
    // Tests and examples of Cargo lie one folder deeper than binaries.
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("tombola"));
    beside.into_iter().find(|path| path.is_file()).ok_or(LocalError::NoBinary)
}

//! The nodes of a network, whoever started them, for tests that kill some and start them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tombola::local::{Chain, LocalNetwork, NOT_CONSERVED, NodeInfo, Options, Tickets};
use tombola_node::metrics::{PAYMENT_VIOLATIONS_TOTAL, TICKETS_TOTAL};
use tombola_topology::{Parameters, Role};

use crate::hand::HandNetwork;
use crate::{Metrics, eventually, tombola};

/// How often it is looked whether anybody complains about payment.
const LOOK: Duration = Duration::from_secs(1);

/// So many winners there are at least when a network that pays ends.
pub const WINNERS: f64 = 20.0;

/// Nodes that can be killed.
pub trait Nodes {
    /// Their names and roles. Elsewhere they are named by their places in here.
    fn nodes(&self) -> Vec<(String, Role)>;
    /// A folder for whatever a test needs.
    fn folder(&self) -> &Path;
    /// Makes a client at a gateway; its folder.
    fn new_client(&self, name: &str, gateway: &str) -> PathBuf;
    /// Kills a node with SIGKILL.
    fn kill_node(&mut self, node: usize);
    /// Starts a node that was killed.
    fn start_node(&mut self, node: usize);
    /// Sees that nobody has ended who was not killed.
    ///
    /// # Panics
    /// Somebody has.
    fn check(&mut self);
    /// What to say of them when something is missing.
    fn state(&self) -> String {
        String::new()
    }
    /// Ends all of them in order; what was paid, if packets are paid for.
    ///
    /// # Panics
    /// Something is not as promised.
    fn end(&mut self) -> Option<Tickets>;
}

impl Nodes for HandNetwork {
    fn nodes(&self) -> Vec<(String, Role)> {
        self.nodes.iter().map(|node| (node.name.clone(), node.role)).collect()
    }

    fn folder(&self) -> &Path {
        Self::folder(self)
    }

    fn new_client(&self, name: &str, gateway: &str) -> PathBuf {
        self.client(name, gateway)
    }

    fn kill_node(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// It need not listen before the next thing happens: whoever wants to reach it tries again.
    fn start_node(&mut self, node: usize) {
        self.nodes[node].start();
    }

    fn check(&mut self) {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            assert!(process.is_running(), "{} has ended:\n{}", process.name(), process.stderr());
        }
    }

    fn end(&mut self) -> Option<Tickets> {
        self.stop();
        None
    }
}

/// A network in which every packet is paid for.
#[derive(Debug)]
pub struct PaidNetwork {
    pub network: LocalNetwork,
    down: BTreeSet<usize>,
    /// So many winners may stay unpaid, because who lost them cannot pay.
    pub unpaid: u64,
    /// What each process has complained about.
    violations: BTreeMap<u32, f64>,
    looked: Instant,
}

impl PaidNetwork {
    /// Starts one on this chain.
    pub fn start(layers: u8, width: u16, gateways: u16, parameters: Parameters, chain: Chain) -> Self {
        let options = Options {
            layers,
            width,
            gateways,
            parameters: Some(parameters),
            chain,
            binary: Some(tombola().to_owned()),
            ..Options::default()
        };
        let network = LocalNetwork::start(&options).unwrap();
        let (down, violations) = (BTreeSet::new(), BTreeMap::new());
        Self { network, down, unpaid: 0, violations, looked: Instant::now() }
    }

    /// The contract that pays, `0x` and 40 hex.
    pub fn escrow(&self) -> String {
        let epoch = self.network.network().epochs().first().unwrap();
        epoch.payment().unwrap().escrow.to_string()
    }

    fn name(&self, node: usize) -> String {
        self.network.nodes().nth(node).unwrap().name.clone()
    }

    /// Notes what nodes complain about. A process takes what it has counted with it.
    fn look_at(&mut self, wanted: impl Fn(usize) -> bool) {
        let live = self.network.nodes().enumerate().filter(|(node, _)| !self.down.contains(node));
        for (_, node) in live.filter(|(node, _)| wanted(*node)) {
            if let Some(metrics) = Metrics::now(node.metrics) {
                self.violations.insert(node.pid, metrics.sum(PAYMENT_VIOLATIONS_TOTAL));
            }
        }
    }
}

impl Nodes for PaidNetwork {
    fn nodes(&self) -> Vec<(String, Role)> {
        self.network.nodes().map(|node| (node.name.clone(), node.role)).collect()
    }

    fn folder(&self) -> &Path {
        self.network.folder()
    }

    fn new_client(&self, name: &str, gateway: &str) -> PathBuf {
        let gateways = self.network.nodes().filter(|node| node.role == Role::Gateway);
        let place = gateways.into_iter().position(|node| node.name == gateway);
        self.network.new_client_at(name, Some(place.unwrap())).unwrap()
    }

    fn kill_node(&mut self, node: usize) {
        self.look_at(|other| other == node);
        let name = self.name(node);
        self.network.kill(&name).unwrap();
        self.down.insert(node);
    }

    fn start_node(&mut self, node: usize) {
        let name = self.name(node);
        let restart = self.network.restart(&name).unwrap();
        assert_eq!(restart.how, "was killed (signal 9)", "{name} has not waited for that");
        self.down.remove(&node);
    }

    fn check(&mut self) {
        if self.looked.elapsed() > LOOK {
            self.look_at(|_| true);
            self.looked = Instant::now();
        }
        // Whoever has ended by itself still has when nobody else is down.
        if self.down.is_empty() {
            self.network.check().unwrap();
        }
    }

    fn state(&self) -> String {
        let mut state = String::new();
        for node in self.network.nodes() {
            let page = Metrics::now(node.metrics).map(|metrics| metrics.0).unwrap_or_default();
            let words = ["tombola_ticket", "tombola_payment", "tombola_packets", "tombola_links"];
            for line in page.lines().filter(|line| words.iter().any(|word| line.starts_with(word))) {
                let _ = writeln!(state, "{}: {line}", node.name);
            }
        }
        state
    }

    fn end(&mut self) -> Option<Tickets> {
        self.look_at(|_| true);
        // Loops go on until luck has evened out, however slow the machine. Who was started again counts anew.
        eventually("everybody has won something", || {
            let won = |node: &NodeInfo| Metrics::of(node.metrics).with(TICKETS_TOTAL, "stage", "won");
            let won: Vec<f64> = self.network.nodes().map(won).collect();
            (won.iter().all(|&won| won > 0.0) && won.iter().sum::<f64>() >= WINNERS).then_some(())
        });
        let tickets = self.network.wind_up(&|| false).unwrap().unwrap();
        self.look_at(|_| true);
        let mut problems = tickets.problems();
        if self.unpaid > 0 {
            problems.retain(|problem| problem == NOT_CONSERVED);
        }
        assert!(problems.is_empty() && tickets.lost <= self.unpaid, "{problems:#?} {tickets:#?}");
        let complaints: f64 = self.violations.values().sum();
        assert_eq!(
            complaints, 0.0,
            "neighbours or clients have done what they must not: {:?}",
            self.violations
        );
        Some(tickets)
    }
}

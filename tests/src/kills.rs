//! A network whose processes are killed with SIGKILL at random instants while messages are under way.
//!
//! Nodes and clients are real processes; the [`Book`] judges what comes of it. Which process is killed when follows from a
//! seed, so that a run can be repeated as far as processes can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tombola::local::{Chain, Tickets};
use tombola_mixing::Rng;
use tombola_topology::{Parameters, Role};

use crate::PATIENCE;
use crate::book::{Book, Order, Totals};
use crate::hand::{HandNetwork, Spec, quick};
use crate::nodes::{Nodes, PaidNetwork};
use crate::process::Process;

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(10);

/// One client, and its process if it has one.
#[derive(Debug)]
struct Client {
    name: String,
    home: PathBuf,
    process: Option<Process>,
}

impl Client {
    fn start(&mut self) {
        let (home, save) = (&self.home, self.home.join("received"));
        let args = ["client", "--home", text(home), "run", "--save", text(&save), "--manual-accept"];
        self.process = Some(Process::tombola(&self.name, &args));
    }
}

/// A network with clients, and the book of what they send each other.
#[derive(Debug)]
pub struct World<N: Nodes = HandNetwork> {
    pub network: N,
    pub book: Book,
    clients: Vec<Client>,
    begun: Instant,
    files: u32,
}

impl World {
    /// Starts a network by hand and one client for each gateway that is named.
    pub fn start(spec: &Spec, clients: &[&str]) -> Self {
        let mut network = HandNetwork::new(spec, |_, _| {});
        network.start();
        Self::around(network, clients)
    }
}

impl<N: Nodes> World<N> {
    /// Starts one client for each gateway that is named.
    pub fn around(network: N, clients: &[&str]) -> Self {
        let mut started: Vec<Client> = clients
            .iter()
            .enumerate()
            .map(|(n, gateway)| {
                let name = format!("client {n}");
                let home = network.new_client(&name.replace(' ', "-"), gateway);
                Client { name, home, process: None }
            })
            .collect();
        started.iter_mut().for_each(Client::start);
        let addresses: Vec<String> = started
            .iter_mut()
            .map(|client| {
                let ready = client.process.as_mut().unwrap().event("ready");
                ready["address"].as_str().unwrap().to_owned()
            })
            .collect();
        let book = Book::new(addresses);
        Self { network, book, clients: started, begun: Instant::now(), files: 0 }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Client `from` is told to send a text.
    pub fn send_text(&mut self, from: usize, to: usize, replies: u32) {
        let order = self.book.text(from, to, replies);
        self.tell(from, &order);
    }

    /// Client `from` is told to send a file of `bytes`.
    pub fn send_file(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.files += 1;
        let path = Nodes::folder(&self.network).join(format!("file-{}", self.files));
        std::fs::write(&path, bytes).unwrap();
        let order = self.book.file(from, to, text(&path), bytes);
        self.tell(from, &order);
    }

    fn tell(&mut self, client: usize, Order(order): &Order) {
        if let Some(process) = &mut self.clients[client].process {
            process.tell(&order.to_string());
        }
    }

    /// Takes what clients have said, answers it, and makes sure that whoever should run does.
    ///
    /// # Panics
    /// A process has ended by itself, or something is not as promised.
    pub fn look(&mut self) {
        std::thread::sleep(TICK);
        for client in 0..self.clients.len() {
            let Some(process) = &self.clients[client].process else { continue };
            let lines = process.lines_so_far();
            self.take(client, &lines, true);
        }
        for process in self.clients.iter_mut().filter_map(|client| client.process.as_mut()) {
            assert!(process.is_running(), "{} has ended:\n{}", process.name(), process.stderr());
        }
        self.network.check();
        assert!(self.book.wrong().is_empty(), "not as promised:\n{}", self.book.wrong().join("\n"));
    }

    /// Looks until the condition holds.
    pub fn look_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}; open: {:#?}", self.book.open());
            self.look();
        }
    }

    fn take(&mut self, client: usize, lines: &[String], alive: bool) {
        let now = self.now();
        for line in lines {
            // Files are compared by their digest, which is of what was saved: see that it is.
            if line.contains("\"sha256\"") && line.contains("\"received\"") {
                check_saved(line);
            }
            for order in self.book.take(client, now, line) {
                if alive {
                    self.tell(client, &order);
                }
            }
        }
    }

    /// Kills a client.
    pub fn kill_client(&mut self, client: usize) {
        let Some(mut process) = self.clients[client].process.take() else { return };
        let last = process.kill();
        self.take(client, &last, false);
        let now = self.now();
        self.book.died(client, now);
    }

    /// Ends a client in order.
    pub fn stop_client(&mut self, client: usize) {
        let Some(mut process) = self.clients[client].process.take() else { return };
        process.close_input();
        let status = process.wait();
        assert!(status.success(), "{}: {status}\n{}", process.name(), process.stderr());
        self.take(client, &process.rest(), false);
        let now = self.now();
        self.book.died(client, now);
    }

    /// Starts a client again.
    pub fn start_client(&mut self, client: usize) {
        self.clients[client].start();
    }

    /// Looks until every message that was accepted has arrived and its sender knows.
    ///
    /// # Panics
    /// That has not happened in `bound`, or something is not as promised.
    pub fn settle(&mut self, bound: Duration) {
        let deadline = Instant::now() + bound;
        while !self.book.open().is_empty() {
            let open = self.book.open();
            assert!(
                Instant::now() < deadline,
                "after {bound:?} {} are open, the first of them:\n{}\n{}",
                open.len(),
                open[..open.len().min(20)].join("\n"),
                self.network.state()
            );
            // The book of a long run is thick: it is not read through each time.
            for _ in 0..20 {
                self.look();
            }
        }
        let wrong = self.book.verdict();
        assert!(wrong.is_empty(), "not as promised:\n{}", wrong.join("\n"));
    }

    /// Ends everything in order.
    ///
    /// # Panics
    /// A process fails, or something more arrives than should.
    pub fn finish(self) -> Totals {
        self.settle_up().0
    }

    /// Ends everything in order; also what was paid, if packets are paid for.
    ///
    /// # Panics
    /// As [`finish`](Self::finish), or the nodes' books and the chain's do not agree.
    pub fn settle_up(mut self) -> (Totals, Option<Tickets>) {
        for client in 0..self.clients.len() {
            self.stop_client(client);
        }
        let tickets = self.network.end();
        let wrong = self.book.wrong();
        assert!(wrong.is_empty(), "not as promised:\n{}", wrong.join("\n"));
        (self.book.totals(), tickets)
    }
}

/// The file that a `received` line names has the digest that it says. It is removed then: a long run makes many.
fn check_saved(line: &str) {
    use sha2::{Digest, Sha256};
    let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { return };
    let Some(path) = event["file"].as_str() else { return };
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(event["sha256"], hex::encode(Sha256::digest(&bytes)), "{path}");
    std::fs::remove_file(path).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A run with kills.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many processes are killed.
    pub kills: u32,
    /// Decides who is killed when, and what is sent.
    pub seed: u64,
    /// Mean time between kills.
    pub pause: Duration,
    /// A killed process is started again after up to so long.
    pub down: Duration,
    /// Mean time between messages of one client.
    pub message_interval: Duration,
    /// One message in so many is a file.
    pub file_every: u64,
    /// Length of a file.
    pub file_len: usize,
    /// How long it may take at the end until everything has arrived.
    pub settle: Duration,
}

impl Plan {
    /// A plan with so many kills.
    pub fn new(kills: u32, seed: u64) -> Self {
        Self {
            kills,
            seed,
            pause: Duration::from_secs(2),
            down: Duration::from_secs(2),
            message_interval: Duration::from_millis(400),
            file_every: 40,
            file_len: 100_000,
            // A wait is at most twice a message's age, and 300 kills take ten minutes.
            settle: Duration::from_secs(1500),
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Kills by the kind of process.
    pub kills: BTreeMap<&'static str, u32>,
    pub totals: Totals,
    /// What was earned meanwhile, if packets were paid for.
    pub tickets: Option<Tickets>,
    /// How long the kills took, and then until everything had arrived.
    pub under_fire: Duration,
    pub settling: Duration,
}

/// A process that can be killed: a node by its place, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Node(usize),
    Client(usize),
}

/// Three layers of two mix nodes, two gateways, three clients; kills as planned. `say` gets a line for each kill.
///
/// # Panics
/// Something is not as promised.
pub fn run(plan: &Plan, say: &mut dyn FnMut(&str)) -> Outcome {
    let mut spec = Spec::new(3, 2, 2);
    spec.parameters = parameters();
    let mut network = HandNetwork::new(&spec, |_, _| {});
    network.start();
    run_in(network, plan, say)
}

/// As [`run`], in a network in which every packet is paid for.
///
/// # Panics
/// Something is not as promised, or was not paid.
pub fn run_paid(plan: &Plan, say: &mut dyn FnMut(&str)) -> Outcome {
    run_in(PaidNetwork::start(3, 2, 2, parameters(), Chain::Own), plan, say)
}

/// Two cores carry it with time to spare, so that what is lost is lost to kills.
fn parameters() -> Parameters {
    Parameters {
        main_interval: Duration::from_millis(40),
        downlink_interval: Duration::from_millis(20),
        loop_interval: Duration::from_millis(300),
        ..quick(3)
    }
}

fn run_in<N: Nodes>(network: N, plan: &Plan, say: &mut dyn FnMut(&str)) -> Outcome {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&plan.seed.to_be_bytes());
    let mut rng = Rng::from_seed(seed);
    // Apart: how many messages are sent between two kills is not decided by the seed.
    let mut victims = rng.fork();
    let mut world = World::around(network, &["gateway 1", "gateway 2", "gateway 2"]);
    let all = world.network.nodes();
    let clients = world.clients.len();
    let mut kills = BTreeMap::new();
    let mut down: Vec<(Victim, Duration)> = Vec::new();
    let mut next_message: Vec<Duration> =
        (0..clients).map(|_| rng.exponential(plan.message_interval)).collect();
    let mut next_kill = world.now() + rng.exponential(plan.pause);
    let begun = world.now();
    let mut done = 0;
    while done < plan.kills {
        world.look();
        let now = world.now();
        for (from, due) in next_message.iter_mut().enumerate() {
            if now < *due {
                continue;
            }
            *due = now + rng.exponential(plan.message_interval);
            let to = (from + 1 + rng.below(clients as u64 - 1) as usize) % clients;
            if world.clients[from].process.is_none() || !world.book.may_send(from) {
                continue;
            }
            if rng.below(plan.file_every) == 0 {
                let mut bytes = vec![0; plan.file_len];
                rng.fill(&mut bytes);
                world.send_file(from, to, &bytes);
            } else {
                // Every fourth may be answered, once.
                world.send_text(from, to, u32::from(rng.below(4) == 0));
            }
        }
        while let Some(place) = down.iter().position(|&(_, until)| until <= now) {
            start(&mut world, down.swap_remove(place).0);
        }
        if now < next_kill {
            continue;
        }
        next_kill = now + victims.exponential(plan.pause);
        // Each kind once, then whoever it hits.
        let everybody = (0..all.len()).map(Victim::Node).chain((0..clients).map(Victim::Client));
        let mut drawn: Vec<_> =
            everybody.clone().filter(|victim| !kills.contains_key(kind_of(&all, *victim))).collect();
        if drawn.is_empty() {
            drawn = everybody.collect();
        }
        let victim = drawn[victims.below(drawn.len() as u64) as usize];
        if down.iter().any(|&(other, _)| other == victim) {
            continue;
        }
        let pause = victims.uniform(plan.down);
        let kind = kind_of(&all, victim);
        let name = kill(&mut world, &all, victim);
        down.push((victim, now + pause));
        *kills.entry(kind).or_default() += 1;
        done += 1;
        let totals = world.book.totals();
        say(&format!(
            "{:>7.1} s  kill {done:>4} of {}: {name:<10} for {:.1} s; {} messages accepted, {} packets sent again",
            now.as_secs_f64(),
            plan.kills,
            pause.as_secs_f64(),
            totals.messages,
            totals.retransmissions,
        ));
    }
    for (victim, _) in down {
        start(&mut world, victim);
    }
    let under_fire = world.now() - begun;
    let settling = world.now();
    world.settle(plan.settle);
    let settling = world.now() - settling;
    let (totals, tickets) = world.settle_up();
    Outcome { kills, totals, tickets, under_fire, settling }
}

fn kind_of(all: &[(String, Role)], victim: Victim) -> &'static str {
    match victim {
        Victim::Client(_) => "client",
        Victim::Node(node) if all[node].1 == Role::Gateway => "gateway",
        Victim::Node(_) => "mix",
    }
}

fn kill<N: Nodes>(world: &mut World<N>, all: &[(String, Role)], victim: Victim) -> String {
    match victim {
        Victim::Client(client) => {
            world.kill_client(client);
            world.clients[client].name.clone()
        }
        Victim::Node(node) => {
            world.network.kill_node(node);
            all[node].0.clone()
        }
    }
}

fn start<N: Nodes>(world: &mut World<N>, victim: Victim) {
    match victim {
        Victim::Client(client) => world.start_client(client),
        // It need not listen before the next thing happens: whoever wants to reach it tries again.
        Victim::Node(node) => world.network.start_node(node),
    }
}

//! A node under load and its neighbours, seen from outside: what is told to whom, and what came of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tombola::local::{Chain, LocalNetwork, Options, Transport};
use tombola_mixnode::Config;
use tombola_topology::Parameters;

use super::measure::{cpu_time, quantile, rss_mib};
use super::player::{Cast, Entry};
use crate::process::Process;
use crate::{Metrics, tombola};

/// Mix layers: the node under load is of the second one.
const LAYERS: u8 = 3;
/// Its name.
const NODE: &str = "mix 2.1";
/// Packets with which everything is brought into its usual state.
const WARM_UP: u64 = 2_000;
/// Packets a second that no node passes on.
const TOO_MANY: f64 = 500_000.0;
/// Longer delays are not waited for before it begins.
const LONG: Duration = Duration::from_secs(1);
/// How long a command may take beyond what it takes by itself.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What everything goes over; by default QUIC, which costs a node more.
    pub transport: Transport,
    /// Neighbours on either side.
    pub width: u16,
    /// Mean delay.
    pub mean_delay: Duration,
    /// Packets that the node has room for.
    pub places: usize,
    /// As in the configuration; absent: one for each processor.
    pub workers: Option<usize>,
    /// As in the configuration.
    pub link_threads: usize,
}

impl Default for Setting {
    /// What a node has that is not told otherwise, between four neighbours on either side.
    fn default() -> Self {
        Self {
            transport: Transport::Quic,
            width: 4,
            mean_delay: Parameters::default().mean_delay,
            places: 16_384,
            workers: None,
            link_threads: 1,
        }
    }
}

/// A node under load and its neighbours.
#[derive(Debug)]
pub struct Stage {
    senders: Process,
    receivers: Process,
    node: Process,
    network: LocalNetwork,
    /// The data of those around it.
    _memory: tempfile::TempDir,
    metrics: std::net::SocketAddr,
    /// Packets that have left so far.
    sent: u64,
    /// Packets that did not come so far.
    lost: u64,
    /// What had been used when the run began.
    before: [Duration; 3],
}

/// What came of a number of packets.
#[derive(Clone, Debug)]
pub struct Run {
    /// Packets that left.
    pub sent: u64,
    /// Packets that their senders could not pay for, because the node took no more.
    pub given_up: u64,
    /// Of those that left, packets that did not come.
    pub lost: u64,
    /// Packets that came in a second, in the middle of the run.
    pub packets_per_s: f64,
    /// Processor time of the node for each packet that came, in microseconds.
    pub cpu_us_per_packet: f64,
    /// The same of those before it, and of those behind it.
    pub others_us_per_packet: [f64; 2],
    /// What the node had in memory in the end.
    pub rss_mib: f64,
    /// From departure to arrival less the delay, in microseconds, sorted.
    pub added_us: Vec<f64>,
    /// The same in the order in which they were sent, with the time since the first in seconds.
    pub added_over_time: Vec<(f64, f64)>,
    /// Of each neighbour before the node, packets that left, and those of them that came.
    pub by_sender: BTreeMap<u64, [u64; 2]>,
}

impl Run {
    /// The time that the node adds to the delay of this share of packets at most, in microseconds.
    pub fn added_latency_us(&self, share: f64) -> f64 {
        quantile(&self.added_us, share)
    }
}

impl Stage {
    /// Starts everything.
    ///
    /// # Panics
    /// Something does not start.
    pub fn start(setting: &Setting) -> Self {
        let names = |layer: u8| (1..=setting.width).map(move |n| format!("mix {layer}.{n}"));
        let absent = (1..=LAYERS).flat_map(names).chain(["gateway 1".to_owned()]);
        // Nothing of what it sends itself shall show.
        let never = Duration::from_secs(86_400);
        let parameters = Parameters {
            layers: LAYERS,
            mean_delay: setting.mean_delay,
            max_delay: setting.mean_delay * 22,
            loop_timeout: never,
            mix_loop_interval: never,
            admitted_rate: 1_000_000,
            ..Parameters::default()
        };
        let options = Options {
            layers: LAYERS,
            width: setting.width,
            gateways: 1,
            parameters: Some(parameters),
            chain: Chain::Own,
            transport: setting.transport,
            absent: absent.collect(),
            binary: Some(tombola().to_owned()),
            ..Options::default()
        };
        let network = LocalNetwork::start(&options).unwrap();
        let home = network.home(NODE);
        configure(&home.join("node.toml"), |config| {
            config.workers = setting.workers;
            config.link_threads = setting.link_threads;
            config.places = setting.places;
        });
        let config = home.join("node.toml");
        let args =
            ["mixnode".as_ref(), "--exit-with-stdin".as_ref(), "--config".as_ref(), config.as_os_str()];
        let mut node = Process::tombola(NODE, &args);
        let event = node.event("listening");
        let metrics = event["metrics"].as_str().unwrap().parse().unwrap();
        let cast = |layer: u8, sends| Cast {
            folder: network.folder().to_owned(),
            homes: names(layer).map(|name| network.home(&name)).collect(),
            node: u32::from(setting.width),
            sends,
        };
        // Neighbours have disks of their own, elsewhere: theirs shall not keep the node's from its work.
        let memory = in_memory();
        for name in names(1).chain(names(LAYERS)) {
            configure(&network.home(&name).join("node.toml"), |config| {
                config.data = memory.path().join(&name);
                config.places = usize::MAX >> 1;
            });
        }
        let play = |name, cast: Cast| {
            Process::spawn(name, Command::new(super::program()).arg("neighbours").args(cast.to_args()))
        };
        let mut receivers = play("those behind the node", cast(LAYERS, false));
        let mut senders = play("those before the node", cast(1, true));
        receivers.line_where("readiness", |line| line == "ready");
        senders.line_where("readiness", |line| line == "ready");
        let mut stage = Self {
            senders,
            receivers,
            node,
            network,
            _memory: memory,
            metrics,
            sent: 0,
            lost: 0,
            before: Default::default(),
        };
        if setting.mean_delay <= LONG {
            stage.run(WARM_UP, 1000.0);
        }
        stage
    }

    /// Sends so many packets, so many a second, and waits for all of them.
    pub fn run(&mut self, packets: u64, per_second: f64) -> Run {
        self.begin(packets, per_second);
        self.finish()
    }

    /// Sends so many packets as fast as the node takes them, and waits for all of them.
    pub fn push(&mut self, packets: u64) -> Run {
        self.start_with(packets, &format!("push {TOO_MANY}"));
        self.finish()
    }

    /// Has so many packets built and then sent, so many a second. Returns when the first leaves.
    pub fn begin(&mut self, packets: u64, per_second: f64) {
        self.start_with(packets, &format!("send {per_second}"));
    }

    fn start_with(&mut self, packets: u64, command: &str) {
        self.senders.tell(&format!("build {packets}"));
        expect(&mut self.senders, "built");
        self.before = self.cpu();
        self.senders.tell(command);
    }

    /// Waits until all that [`begin`](Self::begin) had built have left.
    pub fn sent_all(&mut self) {
        expect(&mut self.senders, "sent");
    }

    /// Waits until all that were sent have come, or nothing comes any more.
    pub fn finish(&mut self) -> Run {
        self.sent_all();
        let sent = self.report(|stage| &mut stage.senders);
        self.sent += sent.iter().filter(|entry| matches!(entry, Entry::Sent { .. })).count() as u64;
        self.receivers.tell(&format!("wait {}", self.sent - self.lost));
        self.receivers.line_where("packets", |line| line == "arrived" || line == "missing");
        let used = self.cpu();
        let arrived = self.report(|stage| &mut stage.receivers);
        let used = [0, 1, 2].map(|at| (used[at] - self.before[at]).as_secs_f64() * 1e6);
        let run = Run::of(&sent, &arrived, used, rss_mib(self.node.pid()));
        self.lost += run.lost;
        run
    }

    /// The node's process.
    pub fn pid(&self) -> u32 {
        self.node.pid()
    }

    /// What the node says of itself.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(self.metrics)
    }

    /// Of the node, those before it, and those behind it.
    fn cpu(&self) -> [Duration; 3] {
        [&self.node, &self.senders, &self.receivers].map(|process| cpu_time(process.pid()))
    }

    fn report(&mut self, who: impl Fn(&mut Self) -> &mut Process) -> Vec<Entry> {
        let file = self.network.folder().join("report");
        let process = who(self);
        process.tell(&format!("report {}", file.display()));
        expect(process, "reported");
        Entry::read(&file)
    }
}

impl Run {
    fn of(before: &[Entry], behind: &[Entry], used_us: [f64; 3], rss_mib: f64) -> Self {
        let mut left = BTreeMap::new();
        let (mut by_sender, mut given_up) = (BTreeMap::<u64, [u64; 2]>::new(), 0);
        for entry in before {
            match entry {
                Entry::Sent { packet, player, at, delay } => {
                    left.insert(*packet, (*at, *delay, *player));
                    by_sender.entry(*player).or_default()[0] += 1;
                }
                _ => given_up += 1,
            }
        }
        let sent = left.len() as u64;
        let first = left.values().map(|(at, ..)| *at).min().unwrap_or_default();
        let (mut added, mut times) = (Vec::new(), Vec::new());
        for entry in behind {
            let Entry::Arrived { packet, at } = entry else { continue };
            // A packet of an earlier run that was given up for lost does not count here.
            let Some((departed, delay, player)) = left.remove(packet) else { continue };
            by_sender.entry(player).or_default()[1] += 1;
            let late = (*at as f64 - departed as f64 - delay as f64) / 1e3;
            added.push(((departed - first) as f64 / 1e9, late));
            times.push(*at);
        }
        times.sort_unstable();
        let arrived = times.len();
        // Without the beginning, where the pool fills, and the end, where it empties.
        let (from, to) = (arrived / 5, arrived * 4 / 5);
        let seconds = if to > from { (times[to] - times[from]) as f64 / 1e9 } else { f64::NAN };
        let mut added_us: Vec<f64> = added.iter().map(|(_, late)| *late).collect();
        added_us.sort_by(f64::total_cmp);
        added.sort_by(|a, b| a.0.total_cmp(&b.0));
        let each = used_us.map(|used| used / arrived as f64);
        Self {
            sent,
            given_up,
            lost: left.len() as u64,
            packets_per_s: (to - from) as f64 / seconds,
            cpu_us_per_packet: each[0],
            others_us_per_packet: [each[1], each[2]],
            rss_mib,
            added_us,
            added_over_time: added,
            by_sender,
        }
    }
}

/// Waits for a word for as long as the machine may need.
fn expect(process: &mut Process, word: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if process.lines_so_far().iter().any(|line| line == word) {
            return;
        }
        assert!(process.is_running() && Instant::now() < deadline, "{word}: in vain:\n{}", process.stderr());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder that is written to no disk, where there is such a thing with room enough.
fn in_memory() -> tempfile::TempDir {
    const ENOUGH: u64 = 1 << 30;
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |there| there.f_bavail * there.f_frsize);
    let folder = if free >= ENOUGH { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.or_else(|_| tempfile::tempdir()).unwrap()
}

/// Changes a configuration.
fn configure(file: &Path, change: impl FnOnce(&mut Config)) {
    let mut config: Config = tombola_node::config::load(file).unwrap();
    change(&mut config);
    std::fs::write(file, toml::to_string(&config).unwrap()).unwrap();
}

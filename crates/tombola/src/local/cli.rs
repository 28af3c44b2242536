//! `tombola` without a subcommand.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tombola_mixing::Rng;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_node::{derive, process};
use tombola_topology::duration;

use super::ledger::{Kind, Ledger, Load, NAMES};
use super::network::{Chain, Funder, LocalNetwork, Options, Transport};
use super::node::Restart;
use super::report::{Measured, Report};
use super::traffic::Traffic;

/// Length of the file that is sent when none is given.
const FILE_LEN: usize = 1 << 20;

/// Wins that every node can expect before the network is wound up: that one has none then happens once in 10^8 runs.
const EXPECTED_WINS: u32 = 20;

/// Epochs that are planned at most.
const EPOCHS_MAX: u32 = 40;

/// Arguments of the local network.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Pay for packets on this chain instead of one of the network's own: its JSON-RPC, such as "http://127.0.0.1:8545". For
    /// chains for development: contracts are deployed and tokens made.
    #[arg(long, value_name = "URL", conflicts_with = "unpaid")]
    rpc_url: Option<String>,
    /// The Web3 keystore of an account with money for gas on that chain; default: the first account of chains for
    /// development.
    #[arg(long, value_name = "FILE", requires = "rpc_url", requires = "funder_password")]
    funder: Option<PathBuf>,
    /// The file of its password, one line.
    #[arg(long, value_name = "FILE", requires = "funder")]
    funder_password: Option<PathBuf>,
    /// Blocks of that chain that must follow before something counts as final. More than 0 only if it makes blocks by itself.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0, requires = "rpc_url")]
    confirmations: u64,
    /// Pay for nothing, and start no chain.
    #[arg(long)]
    unpaid: bool,
    /// Mix layers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    layers: u8,
    /// Mix nodes per layer.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    width: u16,
    /// Gateways.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    gateways: u16,
    /// Messages in each direction.
    #[arg(long, default_value_t = 200)]
    messages: u32,
    /// How many of these ask for a reply, which comes through a reply block.
    #[arg(long, default_value_t = 50)]
    replies: u32,
    /// Mean delay at each mix node, such as "50ms".
    #[arg(long, value_name = "DURATION", default_value = "450ms", value_parser = duration::parse)]
    mean_delay: Duration,
    /// Mean interval between a client's packets, such as "10ms"; default: that of the parameters. Shorter is a faster
    /// network that costs more.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    main_interval: Option<Duration>,
    /// Interval between the packets that a gateway hands to a client; default: that of the parameters. Keep it below
    /// that of the clients.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    downlink_interval: Option<Duration>,
    /// What links go over; both: TCP, or QUIC where that is not let through.
    #[arg(long, value_enum, default_value_t = Transport::Both)]
    transport: Transport,
    /// Change epochs so often, such as "60s"; as many are planned as fit into a week, at most 40. Default: one epoch.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    epoch_length: Option<Duration>,
    /// The file that is sent; default: 1 MiB of random bytes.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where a report is written, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave the network up afterwards, to be used by hand.
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    flags: RunFlags,
}

impl Args {
    fn chain(&self) -> Chain {
        match &self.rpc_url {
            Some(url) => {
                let funder = self.funder.clone().zip(self.funder_password.clone());
                let funder = funder.map(|(keystore, password)| Funder { keystore, password });
                Chain::At { url: url.clone(), funder, confirmations: self.confirmations }
            }
            None if self.unpaid => Chain::None,
            None => Chain::Own,
        }
    }

    fn options(&self) -> Options {
        let defaults = Options::default();
        let epoch_length = self.epoch_length.unwrap_or(defaults.epoch_length);
        let options = Options {
            epochs: epochs_of(epoch_length),
            epoch_length,
            layers: self.layers,
            width: self.width,
            gateways: self.gateways,
            mean_delay: self.mean_delay,
            chain: self.chain(),
            transport: self.transport,
            ..defaults
        };
        let mut parameters = options.parameters();
        parameters.main_interval = self.main_interval.unwrap_or(parameters.main_interval);
        parameters.downlink_interval = self.downlink_interval.unwrap_or(parameters.downlink_interval);
        Options { parameters: Some(parameters), ..options }
    }
}

/// Runs a local network: starts it, sends messages and a file through it, reports.
///
/// # Errors
/// The network did not start, something was lost, or the report could not be written.
pub fn run(args: &Args) -> Result<()> {
    args.flags.init_logging()?;
    let begun = Instant::now();
    let runtime = args.flags.runtime(2)?;
    let shutdown = Shutdown::new();
    {
        let _inside = runtime.enter();
        shutdown.on_signals()?;
    }
    if args.flags.exit_with_stdin {
        shutdown.on_stdin_closed()?;
    }
    let options = args.options();
    let main_interval = options.parameters().main_interval;
    let load = Load { messages: args.messages, replies: args.replies, main_interval };
    print_line(format_args!(
        "Starting {} gateways, {} layers of {} mix nodes and 2 clients, each a process of its own.",
        args.gateways, args.layers, args.width
    ));
    let mut network = LocalNetwork::start_unless(&options, &|| shutdown.is_triggered())?;
    let file = match &args.file {
        Some(file) => file.clone(),
        None => make_file(network.folder())?,
    };
    let mut traffic = Traffic::start(&mut network, &file, begun)?;
    print_line(format_args!("All links are up after {:.1} s.", begun.elapsed().as_secs_f64()));

    let mut meter = Meter::new(&network, &traffic);
    let mut screen = Screen::new(args.messages);
    traffic.run(load, &mut network, &mut |ledger, network, restarts| {
        for restart in restarts {
            screen.notice(restart);
        }
        screen.show(ledger);
        meter.sample(network);
        !shutdown.is_triggered()
    })?;
    screen.end();
    if shutdown.is_triggered() {
        traffic.stop();
        bail!("interrupted");
    }
    traffic.finish()?;
    // Nodes publish once a second; their last counts are read below.
    std::thread::sleep(Duration::from_millis(1100));
    let mut report = Report::new(&network, &traffic.ledger, load, meter.measured(&network, begun.elapsed()));
    print_line(report.table());
    // What was delivered is known now; what it was worth only when the network has ended.
    write_report(args, &report)?;
    if args.hold {
        print_line(instructions(&network, &traffic));
        while !shutdown.is_triggered() {
            std::thread::sleep(Duration::from_millis(100));
            for restart in network.supervise()? {
                print_line(restart);
            }
        }
    }
    if network.is_paid() && !shutdown.is_triggered() {
        // A short run ends before luck has evened out; loops go on meanwhile.
        let lacking = network.wait_for_wins(EXPECTED_WINS, &|| shutdown.is_triggered())?;
        if lacking > 0 {
            print_line(format_args!(
                "Warning: after five minutes {lacking} nodes have opened too few tickets to expect {EXPECTED_WINS} wins; what they are paid says little."
            ));
        }
    }
    traffic.stop();
    // Who ends a network that stays up wants to see what it was worth; whoever else asks it to end does not wait.
    let at_leisure = args.hold && shutdown.cause() == Some(Cause::Interrupt);
    if network.is_paid() && (at_leisure || !shutdown.is_triggered()) {
        print_line("Every node claims what it has won. Ctrl-C leaves it unclaimed.");
        if let Some(tickets) = network.wind_up(&|| !at_leisure && shutdown.is_triggered())? {
            let tickets = if at_leisure { tickets.ended_early() } else { tickets };
            print_line(tickets.table());
            report.set_tickets(tickets);
            write_report(args, &report)?;
        }
    }
    network.stop();
    match report.failure() {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

fn write_report(args: &Args, report: &Report) -> Result<()> {
    let Some(path) = &args.report else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).context("the report")?;
    std::fs::write(path, text + "\n").with_context(|| format!("{}: cannot be written", path.display()))
}

/// As many as fit into a week. Each node needs a key for each.
fn epochs_of(length: Duration) -> u32 {
    let week = Options::default().epoch_length.as_secs();
    u32::try_from(week / length.as_secs().max(1)).unwrap_or(u32::MAX).clamp(1, EPOCHS_MAX)
}

fn make_file(folder: &Path) -> Result<PathBuf> {
    let mut bytes = vec![0; FILE_LEN];
    Rng::from_seed(derive::random_seed()?).fill(&mut bytes);
    let path = folder.join("random.bin");
    std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(path)
}

/// How to use a network that stays up.
fn instructions(network: &LocalNetwork, traffic: &Traffic) -> String {
    let folder = network.folder().display();
    let program =
        std::env::current_exe().map_or_else(|_| "tombola".to_owned(), |path| path.display().to_string());
    let document = network.document().display();
    let authority = network.authority();
    let [alice, _] = traffic.homes();
    let [first, second] = traffic.pids();
    let fund = |name: &str| match network.bank() {
        Some(bank) => format!("    tombola devchain fund --home {folder}/{name} --rpc-url {}\n", bank.url()),
        None => String::new(),
    };
    let nodes: String = network
        .nodes()
        .map(|node| {
            format!("    {:<10} process {:<8} http://{}/metrics\n", node.name, node.pid, node.metrics)
        })
        .collect();
    format!(
        "The network stays up until Ctrl-C. Two more clients by hand, in two other terminals:\n\n\
         \x20   export PATH=\"{path}:$PATH\"\n\
         \x20   tombola client --home {folder}/carol init --network {document} --authority {authority}\n\
         {carol}\
         \x20   tombola client --home {folder}/carol receive --save {folder}/carol\n\n\
         \x20   export PATH=\"{path}:$PATH\"\n\
         \x20   tombola client --home {folder}/dave init --network {document} --authority {authority}\n\
         {dave}\
         \x20   tombola client --home {folder}/dave send ADDRESS-OF-CAROL \"hello\"\n\
         \x20   tombola client --home {folder}/dave send ADDRESS-OF-CAROL --file FILE\n\n\
         `init` prints the address. {alice_name} and {bob_name} are in use by this program (processes {first} and {second}, {clients}).\n\n\
         Document     {document}\n\
         Authority    {authority}\n\
         Nodes, each of which is started again when it ends (try kill -9):\n{nodes}",
        carol = fund("carol"),
        dave = fund("dave"),
        path = parent(&program),
        alice_name = NAMES[0],
        bob_name = NAMES[1],
        clients = alice.parent().unwrap_or(alice).display(),
    )
}

fn parent(program: &str) -> String {
    Path::new(program).parent().map_or_else(|| ".".to_owned(), |folder| folder.display().to_string())
}

/// Processor time and memory of everything that was started.
struct Meter {
    others: Vec<u32>,
    /// Processor time of every process so far, of nodes that have ended too: as it was when they were looked at last.
    cpu: BTreeMap<u32, Duration>,
    rss_max: u64,
    last: Instant,
}

impl Meter {
    fn new(network: &LocalNetwork, traffic: &Traffic) -> Self {
        let mut others = traffic.pids().to_vec();
        others.push(std::process::id());
        let mut meter = Self { others, cpu: BTreeMap::new(), rss_max: 0, last: Instant::now() };
        meter.look(network);
        meter
    }

    fn sample(&mut self, network: &LocalNetwork) {
        if self.last.elapsed() >= Duration::from_millis(500) {
            self.look(network);
        }
    }

    fn look(&mut self, network: &LocalNetwork) {
        self.last = Instant::now();
        for pid in network.nodes().map(|node| node.pid) {
            if let Ok(usage) = process::usage(Some(pid)) {
                self.rss_max = self.rss_max.max(usage.resident_bytes);
                self.cpu.insert(pid, usage.cpu);
            }
        }
        for &pid in &self.others {
            if let Ok(usage) = process::usage(Some(pid)) {
                self.cpu.insert(pid, usage.cpu);
            }
        }
    }

    /// All processor time since the start, that of starting included.
    fn measured(&mut self, network: &LocalNetwork, duration: Duration) -> Measured {
        self.look(network);
        let cpu: Duration = self.cpu.values().sum();
        Measured {
            duration,
            cpu_cores: cpu.as_secs_f64() / duration.as_secs_f64(),
            node_rss_max: self.rss_max,
        }
    }
}

/// Shows what happens while it happens: bars on a terminal, a line every few seconds elsewhere.
struct Screen {
    bars: Option<(MultiProgress, [ProgressBar; 3])>,
    messages: u32,
    last: Instant,
}

impl Screen {
    fn new(messages: u32) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("  {prefix:<22} {bar:40} {pos:>5}/{len}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = |label: String, len: u64| {
                all.add(ProgressBar::new(len).with_style(style.clone()).with_prefix(label))
            };
            let bars = [
                bar(format!("{} to {}, messages", NAMES[0], NAMES[1]), u64::from(messages)),
                bar(format!("{} to {}, messages", NAMES[1], NAMES[0]), u64::from(messages)),
                bar(format!("{} to {}, the file", NAMES[0], NAMES[1]), 1),
            ];
            (all, bars)
        });
        Self { bars, messages, last: Instant::now() }
    }

    fn show(&mut self, ledger: &Ledger) {
        let (have, count) = ledger.file.packets;
        let delivered = [0, 1].map(|sender| ledger.delivered(Kind::Message, sender));
        if let Some((_, [there, back, file])) = &self.bars {
            there.set_position(delivered[0] as u64);
            back.set_position(delivered[1] as u64);
            file.set_length(u64::from(count.max(1)));
            file.set_position(u64::from(have));
        } else if self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let _ = writeln!(
                std::io::stderr(),
                "delivered: {} and {} of {} messages each way, {} and {} replies, {have} of {count} packets of the file",
                delivered[0],
                delivered[1],
                self.messages,
                ledger.delivered(Kind::Reply, 0),
                ledger.delivered(Kind::Reply, 1),
            );
        }
    }

    /// Above the bars, if there are any.
    fn notice(&self, restart: &Restart) {
        let shown = self.bars.as_ref().is_some_and(|(all, _)| all.println(restart.to_string()).is_ok());
        if !shown {
            print_line(restart);
        }
    }

    fn end(&self) {
        for bar in self.bars.iter().flat_map(|(_, bars)| bars) {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tombola_topology::Parameters;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn options(args: &[&str]) -> Options {
        Cli::try_parse_from([&["tombola"], args].concat()).unwrap().args.options()
    }

    #[test]
    fn a_network_is_what_its_arguments_say() {
        let default = options(&[]);
        assert_eq!(default.transport, Transport::Both);
        assert_eq!(default.parameters().main_interval, Parameters::default().main_interval);
        for (name, transport) in [("tcp", Transport::Tcp), ("quic", Transport::Quic)] {
            assert_eq!(options(&["--transport", name]).transport, transport);
        }
        let quick =
            options(&["--main-interval", "10ms", "--downlink-interval", "7ms", "--mean-delay", "20ms"]);
        let parameters = quick.parameters();
        let found = [parameters.main_interval, parameters.downlink_interval, parameters.mean_delay];
        assert_eq!(found, [10, 7, 20].map(Duration::from_millis));
    }
}

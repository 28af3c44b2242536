//! `tombola` without a subcommand.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tombola_mixing::Rng;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::shutdown::Shutdown;
use tombola_node::{derive, process};
use tombola_topology::duration;

use super::network::{LocalNetwork, Options};
use super::report::{Measured, Report};
use super::traffic::{Load, NAMES, Traffic};

/// Length of the file that is sent when none is given.
const FILE_LEN: usize = 1 << 20;

/// Epochs that are planned at most.
const EPOCHS_MAX: u32 = 40;

/// Arguments of the local network.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
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
    /// Mean delay at each mix node, such as "50ms".
    #[arg(long, value_name = "DURATION", default_value = "450ms", value_parser = duration::parse)]
    mean_delay: Duration,
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
    let defaults = Options::default();
    let epoch_length = args.epoch_length.unwrap_or(defaults.epoch_length);
    let options = Options {
        epochs: epochs_of(epoch_length),
        epoch_length,
        layers: args.layers,
        width: args.width,
        gateways: args.gateways,
        mean_delay: args.mean_delay,
        ..defaults
    };
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
    let parameters = network.network().parameters().clone();
    let load = Load { messages: args.messages, main_interval: parameters.main_interval };
    traffic.run(load, &mut network, &mut |traffic| {
        screen.show(traffic);
        meter.sample();
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
    let report = Report::new(&network, &traffic, meter.measured(begun.elapsed()));
    print_line(report.table());
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report).context("the report")?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    if args.hold {
        print_line(instructions(&network, &traffic));
        while !shutdown.is_triggered() {
            std::thread::sleep(Duration::from_millis(100));
            network.check()?;
        }
    }
    traffic.stop();
    network.stop();
    match report.failure() {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
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
    let metrics: String = network
        .nodes()
        .map(|node| format!("    {:<10} http://{}/metrics\n", node.name, node.metrics))
        .collect();
    format!(
        "The network stays up until Ctrl-C. Two more clients by hand, in two other terminals:\n\n\
         \x20   export PATH=\"{}:$PATH\"\n\
         \x20   tombola client --home {folder}/carol init --network {document} --authority {authority}\n\
         \x20   tombola client --home {folder}/carol receive --save {folder}/carol\n\n\
         \x20   export PATH=\"{}:$PATH\"\n\
         \x20   tombola client --home {folder}/dave init --network {document} --authority {authority}\n\
         \x20   tombola client --home {folder}/dave send ADDRESS-OF-CAROL \"hello\"\n\
         \x20   tombola client --home {folder}/dave send ADDRESS-OF-CAROL --file FILE\n\n\
         `init` prints the address. {} and {} are in use by this program ({}).\n\n\
         Metrics:\n{metrics}",
        parent(&program),
        parent(&program),
        NAMES[0],
        NAMES[1],
        alice.parent().unwrap_or(alice).display(),
    )
}

fn parent(program: &str) -> String {
    Path::new(program).parent().map_or_else(|| ".".to_owned(), |folder| folder.display().to_string())
}

/// Processor time and memory of everything that was started.
struct Meter {
    nodes: Vec<u32>,
    others: Vec<u32>,
    rss_max: u64,
    last: Instant,
}

impl Meter {
    fn new(network: &LocalNetwork, traffic: &Traffic) -> Self {
        let mut others = traffic.pids().to_vec();
        others.push(std::process::id());
        Self {
            nodes: network.nodes().map(|node| node.pid).collect(),
            others,
            rss_max: 0,
            last: Instant::now(),
        }
    }

    fn sample(&mut self) {
        if self.last.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.last = Instant::now();
        for usage in self.nodes.iter().filter_map(|&pid| process::usage(Some(pid)).ok()) {
            self.rss_max = self.rss_max.max(usage.resident_bytes);
        }
    }

    /// All processor time since the start, that of starting included.
    fn measured(&self, duration: Duration) -> Measured {
        let cpu: Duration = self
            .nodes
            .iter()
            .chain(&self.others)
            .filter_map(|&pid| process::usage(Some(pid)).ok())
            .map(|usage| usage.cpu)
            .sum();
        Measured {
            duration,
            cpu_cores: cpu.as_secs_f64() / duration.as_secs_f64(),
            node_rss_max: self.rss_max,
        }
    }
}

/// Shows what happens while it happens: bars on a terminal, a line every few seconds elsewhere.
struct Screen {
    bars: Option<[ProgressBar; 3]>,
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
            [
                bar(format!("{} to {}, messages", NAMES[0], NAMES[1]), u64::from(messages)),
                bar(format!("{} to {}, messages", NAMES[1], NAMES[0]), u64::from(messages)),
                bar(format!("{} to {}, the file", NAMES[0], NAMES[1]), 1),
            ]
        });
        Self { bars, messages, last: Instant::now() }
    }

    fn show(&mut self, traffic: &Traffic) {
        let (have, count) = traffic.file.packets;
        if let Some([there, back, file]) = &self.bars {
            there.set_position(traffic.delivered(0) as u64);
            back.set_position(traffic.delivered(1) as u64);
            file.set_length(u64::from(count.max(1)));
            file.set_position(u64::from(have));
        } else if self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let _ = writeln!(
                std::io::stderr(),
                "delivered: {} and {} of {} messages each way, {have} of {count} packets of the file",
                traffic.delivered(0),
                traffic.delivered(1),
                self.messages,
            );
        }
    }

    fn end(&self) {
        for bar in self.bars.iter().flatten() {
            bar.finish();
        }
    }
}

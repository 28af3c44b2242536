//! A whole network on this machine, between as many clients as it is told.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tombola::local::{Chain, LocalNetwork, Options, Transport};
use tombola_node::metrics::PACKETS_DROPPED_TOTAL;
use tombola_topology::Parameters;

use super::measure::cpu_time;
use crate::process::Process;
use crate::{Metrics, tombola};

/// How long a run may take beyond what it takes by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Packets that left a client.
    pub sent: u64,
    /// Packets that came to another.
    pub arrived: u64,
    /// In the last half of the time.
    pub packets_per_s: f64,
    /// From client to client.
    pub p50_s: f64,
    pub p99_s: f64,
    /// Processor time for each packet that arrived, by process.
    pub cpu_us_per_packet: Vec<(String, f64)>,
    /// Packets that nodes dropped since they started, by node and reason.
    pub drops: Vec<(String, f64)>,
}

/// Runs the default network, paid, on a chain of its own, over such transports, with so many clients at its gateways, which keep
/// so many packets on their way to each other for so long.
///
/// # Panics
/// Something does not start, or ends.
pub fn closed_loop(transport: Transport, clients: usize, on_their_way: usize, seconds: f64) -> Flow {
    // The default parameters, but for cover: no loops, and as little of what accounts send as lets clients send enough.
    let never = Duration::from_secs(86_400);
    let parameters = Parameters {
        loop_interval: never,
        drop_interval: never,
        mix_loop_interval: never,
        loop_timeout: never,
        // A gateway admits twice as much of a client. Accounts of mix nodes send at this pace, too.
        main_interval: Duration::from_millis(84),
        ..Parameters::default()
    };
    let options = Options {
        parameters: Some(parameters),
        chain: Chain::Own,
        transport,
        binary: Some(tombola().to_owned()),
        ..Options::default()
    };
    let mut network = LocalNetwork::start(&options).unwrap();
    let homes: Vec<PathBuf> = (0..clients)
        .map(|n| {
            let home = network.new_client_at(&format!("client-{n}"), Some(n)).unwrap();
            look_seldom(&home.join("payment.toml"));
            home
        })
        .collect();
    let mut crowd = Process::spawn("clients", Command::new(super::program()).arg("crowd").args(&homes));
    crowd.line_where("readiness", |line| line == "ready");
    let processes: Vec<(String, u32)> = network
        .nodes()
        .map(|node| (node.name.clone(), node.pid))
        .chain([("clients".to_owned(), crowd.pid())])
        .collect();
    let before: Vec<Duration> = processes.iter().map(|(_, pid)| cpu_time(*pid)).collect();
    crowd.tell(&format!("run {on_their_way} {seconds}"));
    let deadline = Instant::now() + Duration::from_secs_f64(seconds) + PATIENCE;
    let line = loop {
        if let Some(line) = crowd.lines_so_far().pop() {
            break line;
        }
        network.check().unwrap();
        assert!(crowd.is_running() && Instant::now() < deadline, "no result:\n{}", crowd.stderr());
        std::thread::sleep(Duration::from_millis(100));
    };
    let found: Value = serde_json::from_str(&line).unwrap();
    let arrived = found["arrived"].as_u64().unwrap();
    let used = processes
        .into_iter()
        .zip(before)
        .map(|((name, pid), before)| (name, (cpu_time(pid) - before).as_secs_f64() * 1e6 / arrived as f64));
    let mut drops = Vec::new();
    for node in network.nodes() {
        let metrics = Metrics::of(node.metrics);
        for (reason, count) in metrics.samples(PACKETS_DROPPED_TOTAL).filter(|(_, count)| *count > 0.0) {
            drops.push((format!("{} {reason}", node.name), count));
        }
    }
    let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
    Flow {
        sent: found["sent"].as_u64().unwrap(),
        arrived,
        packets_per_s: number("packets_per_s"),
        p50_s: number("p50_s"),
        p99_s: number("p99_s"),
        cpu_us_per_packet: used.collect(),
        drops,
    }
}

/// Hundreds of clients that ask the chain every second would be measured, too.
fn look_seldom(payment: &std::path::Path) {
    let mut settings: toml::Table = std::fs::read_to_string(payment).unwrap().parse().unwrap();
    settings.insert("poll".to_owned(), "60s".into());
    std::fs::write(payment, settings.to_string()).unwrap();
}

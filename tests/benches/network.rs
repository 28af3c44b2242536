//! What a mix node does under load, and what a whole network on one machine does. Prints lines `figure KEY VALUE`; what the
//! keys mean is in `docs/performance.md`.
//!
//! `--test` sees that it works. `node-quic`, `node-tcp` and `network` measure a part, `network-quic`, which has to be named, a
//! network without TCP; `--rate N` what a node does at so many packets a second; `--workers N` and `--link-threads N` are as in
//! that node's configuration.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it measured")]

use std::process::exit;
use std::str::FromStr;

use tombola::local::Transport;
use tombola_node::metrics::PACKETS_DROPPED_TOTAL;
use tombola_tests::load::network::{self, Flow};
use tombola_tests::load::stage::{Run, Setting, Stage};

/// What is measured, unless a part of it is named.
const PARTS: [&str; 3] = ["node-quic", "node-tcp", "network"];
/// What is measured if it is named.
const NETWORK_QUIC: &str = "network-quic";
/// Seconds of each run.
const SECONDS: f64 = 6.0;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let parts: Vec<&str> =
        args.iter().map(String::as_str).filter(|arg| PARTS.contains(arg) || *arg == NETWORK_QUIC).collect();
    let rate = option(&args, "--rate");
    let default = Setting::default();
    let setting = Setting {
        workers: option(&args, "--workers").or(default.workers),
        link_threads: option(&args, "--link-threads").unwrap_or(default.link_threads),
        ..default
    };
    let wanted = |part| parts.contains(&part) || parts.is_empty() && part != NETWORK_QUIC;
    for (part, key, transport) in
        [("node-quic", "node.quic", Transport::Quic), ("node-tcp", "node.tcp", Transport::Tcp)]
    {
        if wanted(part) {
            node(key, &Setting { transport, ..setting.clone() }, is_test, rate);
        }
    }
    for (part, key, transport) in
        [("network", "network", Transport::Both), (NETWORK_QUIC, "network.quic", Transport::Quic)]
    {
        if !wanted(part) {
            continue;
        }
        let (clients, on_their_way, seconds) = if is_test { (8, 16, 2.0) } else { (256, 16_000, 20.0) };
        let flow = network::closed_loop(transport, clients, on_their_way, seconds);
        show_flow(part, &flow);
        if !is_test {
            figure(&format!("{key}.closed_loop_packets_per_s"), flow.packets_per_s);
        }
    }
}

/// The number behind an argument, if that is there.
fn option<T: FromStr>(args: &[String], name: &str) -> Option<T> {
    let at = args.iter().position(|arg| arg == name)?;
    let Some(number) = args.get(at + 1).and_then(|number| number.parse().ok()) else {
        eprintln!("{name} needs a number behind it, for threads a whole one");
        exit(2);
    };
    Some(number)
}

fn node(key: &str, setting: &Setting, is_test: bool, rate: Option<f64>) {
    let mut stage = Stage::start(setting);
    if is_test {
        let run = stage.run(500, 500.0);
        assert_eq!(run.lost, 0);
        return show(key, "500 a second", &run);
    }
    if let Some(rate) = rate {
        show(key, &format!("{rate} a second"), &stage.run((rate * SECONDS) as u64, rate));
        return show_drops(&stage);
    }
    // Twice: in the first one everything grows to its size.
    stage.push(20_000);
    let most = stage.push(200_000);
    show(key, "as many as it takes", &most);
    let mut at = |share: f64, name| {
        let rate = most.packets_per_s * share;
        let run = stage.run((rate * SECONDS) as u64, rate);
        show(key, name, &run);
        run
    };
    let (half, most_of_it) = (at(0.5, "half of that"), at(0.8, "80 % of that"));
    show_drops(&stage);
    figure(&format!("{key}.packets_per_s"), most.packets_per_s);
    figure(&format!("{key}.cpu_us_per_packet"), most_of_it.cpu_us_per_packet);
    figure(&format!("{key}.lost"), (most_of_it.lost + most_of_it.given_up) as f64);
    figure(&format!("{key}.rss_mib"), most.rss_mib);
    figure(&format!("{key}.added_latency_us.p50"), half.added_latency_us(0.5));
    figure(&format!("{key}.added_latency_us.p99"), half.added_latency_us(0.99));
}

fn figure(key: &str, value: f64) {
    println!("figure {key} {value:.3}");
}

fn show(key: &str, name: &str, run: &Run) {
    let [before, behind] = run.others_us_per_packet;
    println!(
        "{key}, {name}: {} sent, {} given up, {} lost, {:.0} a second, {:.1} us each (those before it {before:.1}, \
         behind it {behind:.1}), {:.0} MiB, adds {:.0} us, {:.0} at p99, {:.0} at p99.9",
        run.sent,
        run.given_up,
        run.lost,
        run.packets_per_s,
        run.cpu_us_per_packet,
        run.rss_mib,
        run.added_latency_us(0.5),
        run.added_latency_us(0.99),
        run.added_latency_us(0.999),
    );
}

/// What the node dropped, and why.
fn show_drops(stage: &Stage) {
    let metrics = stage.metrics();
    for (reason, count) in metrics.samples(PACKETS_DROPPED_TOTAL).filter(|(_, count)| *count > 0.0) {
        println!("    dropped {reason}: {count}");
    }
}

fn show_flow(part: &str, flow: &Flow) {
    println!(
        "{part}: {} sent, {} arrived, {:.0} a second, {:.2} s on their way, {:.2} at p99",
        flow.sent, flow.arrived, flow.packets_per_s, flow.p50_s, flow.p99_s
    );
    for (name, us) in &flow.cpu_us_per_packet {
        println!("    {name}: {us:.1} us for each packet that arrived");
    }
    for (reason, count) in &flow.drops {
        println!("    dropped {reason}: {count}");
    }
}

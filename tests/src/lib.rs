//! What the end-to-end tests need: the program, networks whose every process is in sight, eavesdroppers, statistics.
//!
//! The tests themselves are in `tests/suite`. They run the release binary: the one that `TOMBOLA_BIN` names, else one that
//! is built first. Everything happens on the loopback interface, and every wait is bounded by [`PATIENCE`] rather than by
//! how fast a machine is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "helpers of tests: a panic is how a test says what is wrong"
)]

pub mod anvil;
pub mod book;
pub mod gate;
pub mod hand;
pub mod kills;
pub mod nodes;
pub mod process;
pub mod proxy;
pub mod records;
pub mod replays;
pub mod statistics;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a test waits for what must happen. On an idle machine everything takes a fraction of it; on one with two cores
/// and much else to do it may take many times as long, and nothing else than time is lost by waiting.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The release binary.
pub fn tombola() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TOMBOLA_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            std::fs::canonicalize(&path).unwrap_or_else(|e| panic!("TOMBOLA_BIN={}: {e}", path.display()))
        }
        None => build(),
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Cargo describes this package in these variables. Build scripts of dependencies watch them: half of the tree would be
    // built anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let output = command
        .args(["build", "--release", "--package", "tombola", "--bin", "tombola"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the release binary could not be built");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built = messages.filter(|message| message["target"]["name"] == "tombola");
    let path = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    path.expect("cargo names the executable that it has built")
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// Reads a process's metrics, as Prometheus would.
    pub fn of(address: SocketAddr) -> Self {
        // A process that is starved of CPU may be slow; one that is gone stays gone.
        eventually("the metrics can be read", || Self::now(address))
    }

    /// Reads them once; `None` if nobody answers.
    pub fn now(address: SocketAddr) -> Option<Self> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
        let agent = ureq::Agent::new_with_config(config);
        agent.get(format!("http://{address}/metrics")).call().ok()?.body_mut().read_to_string().ok().map(Self)
    }

    /// Sum of all samples of a metric, whatever their labels; 0 if there are none.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// The sample with exactly this label, 0 if there is none.
    pub fn with(&self, name: &str, label: &str, value: &str) -> f64 {
        let wanted = format!("{{{label}=\"{value}\"}}");
        self.samples(name).filter(|(labels, _)| *labels == wanted).map(|(_, value)| value).sum()
    }

    /// Labels (`{…}` or empty) and values of a metric.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
            let (key, value) = line.rsplit_once(' ')?;
            let labels = key.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }

    /// Whether the page has the metric, or the series of a histogram of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples(name).next().is_some() || self.samples(&format!("{name}_count")).next().is_some()
    }
}

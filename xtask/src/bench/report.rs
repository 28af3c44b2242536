//! The report: medians by crate and benchmark, ratios to peers, and the machine that all this was measured on.
//!
//! A benchmark that stands alone is an operation. One with a peer is a module named like the operation, in which
//! `ours` is our implementation, and a name of [`PEERS`] that of somebody else.
//!
//! | benchmark | figures |
//! |---|---|
//! | `slot` | `slot_us`: microseconds per call, the median; `slot_fastest_us`: the least |
//! | `hold`, with the argument 1000 | `hold_1000_us` |
//! | `unwrap::ours` | `unwrap_us` |
//! | `unwrap::ours_verify` | `unwrap_verify_us` |
//! | `unwrap::sphinx_packet` | `sphinx_packet_unwrap_us`, and `unwrap_ratio`: the peer's median divided by ours |
//! | `cpu_per_packet`, which counts items | `cpu_us_per_packet`, beside those of an operation |
//! | `unwrap_batch_32::ours`, which counts items | `unwrap_batch_32_us`, `unwrap_batch_32_per_item_us` |
//!
//! A batch is compared item by item with the peer's single operation: `unwrap_batch_32_ratio` divides the time of
//! `unwrap::sphinx_packet` by that of one item of `unwrap_batch_32::ours`. Above 1 we are faster. On a machine that does
//! other things too, the ratio of the least times (`unwrap_fastest_ratio`) is the steadier one.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Serialize;

use super::divan::Benchmark;
use crate::process;

/// Other implementations that ours are measured against, by the name of their benchmarks.
const PEERS: &[&str] = &["sphinx_packet"];

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    os: &'static str,
    rustc: String,
    /// Additional flags for the compiler, which change everything that is measured.
    rustflags: String,
    /// Which instructions beyond the plain ones it has, of those that the code looks for.
    cpu_features: Vec<&'static str>,
}

/// What the code looks for, or the libraries that it uses.
const CPU_FEATURES: &[&str] =
    &["adx", "aes", "avx2", "avx512f", "avx512ifma", "avx512vl", "bmi2", "sha_ni", "vaes"];

impl Machine {
    /// Describes the machine that this runs on, as far as it can be found out.
    pub(super) fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let rustc = process::Process::new("rustc", std::path::Path::new(".")).arg("--version").capture();
        Self {
            cpu: cpu_model(&cpuinfo).unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            rustc: rustc.unwrap_or_default().trim().into(),
            rustflags: std::env::var("RUSTFLAGS").unwrap_or_default(),
            cpu_features: cpu_features(&cpuinfo),
        }
    }
}

fn cpu_features(cpuinfo: &str) -> Vec<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |feature: &&str| flags.split_whitespace().any(|flag| flag == *feature);
    CPU_FEATURES.iter().copied().filter(has).collect()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}

/// Figures by crate and name.
pub(super) struct Report {
    machine: Machine,
    crates: BTreeMap<String, BTreeMap<String, f64>>,
    /// Figures with names of their own, dots between the names of nested objects.
    named: BTreeMap<String, f64>,
}

impl Report {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, crates: BTreeMap::new(), named: BTreeMap::new() }
    }

    /// Adds the benchmarks of one program of one crate.
    ///
    /// # Errors
    ///
    /// Two figures of the crate have the same name, or a peer does what we do not measure ourselves.
    pub(super) fn add(&mut self, name: &str, benchmarks: &[Benchmark]) -> anyhow::Result<()> {
        let figures = self.crates.entry(name.into()).or_default();
        let mut insert = |figure: String, value: f64| {
            let rounded = (value * 1e4).round() / 1e4;
            let former = figures.insert(figure.clone(), rounded);
            ensure!(former.is_none(), "{name} has two figures called {figure}: rename a benchmark");
            Ok(())
        };
        let named: Vec<(Name, &Benchmark)> = benchmarks.iter().map(|b| (Name::of(b), b)).collect();
        for (Name { operation, peer }, benchmark) in &named {
            if let Some(peer) = peer {
                insert(format!("{peer}_{operation}_us"), benchmark.median_us)?;
                insert(format!("{peer}_{operation}_fastest_us"), benchmark.fastest_us)?;
                ensure!(
                    named.iter().any(|(own, _)| own.peer.is_none() && own.operation == *operation),
                    "{name}: {} has no counterpart `ours`",
                    benchmark.path.join("::")
                );
                continue;
            }
            insert(format!("{operation}_us"), benchmark.median_us)?;
            insert(format!("{operation}_fastest_us"), benchmark.fastest_us)?;
            if benchmark.items_per_second.is_some() {
                let each = benchmark.median_us / benchmark.items();
                match operation.strip_suffix("_per_packet") {
                    Some(stem) => insert(format!("{stem}_us_per_packet"), each)?,
                    None => insert(format!("{operation}_per_item_us"), each)?,
                }
            }
            let counterpart = named
                .iter()
                .find(|(other, _)| other.peer.is_some() && is_variant(operation, &other.operation));
            if let Some((_, peer)) = counterpart {
                let items = benchmark.items() / peer.items();
                insert(format!("{operation}_ratio"), items * peer.median_us / benchmark.median_us)?;
                let fastest = items * peer.fastest_us / benchmark.fastest_us;
                insert(format!("{operation}_fastest_ratio"), fastest)?;
            }
        }
        Ok(())
    }

    /// Adds a figure with a name of its own, such as `sphinx.build.ns`.
    ///
    /// # Errors
    ///
    /// There is one of that name.
    pub(super) fn set(&mut self, key: &str, value: f64) -> anyhow::Result<()> {
        ensure!(!self.named.contains_key(key), "two figures are called {key}");
        self.named.insert(key.into(), value);
        Ok(())
    }

    /// The whole report as one object.
    ///
    /// # Errors
    ///
    /// A name is that of a figure and of an object.
    pub(super) fn into_json(self) -> anyhow::Result<serde_json::Value> {
        let mut crates = self.crates;
        crates.retain(|_, figures| !figures.is_empty());
        let mut report = serde_json::json!(crates);
        for (key, value) in self.named {
            let mut place = &mut report;
            for name in key.split('.') {
                ensure!(
                    place.is_object() || place.is_null(),
                    "{key}: a name before the last is a figure itself"
                );
                // What is missing becomes an object.
                place = &mut place[name];
            }
            ensure!(place.is_null(), "{key} is the name of other figures too");
            *place = serde_json::json!(value);
        }
        report["machine"] = serde_json::json!(self.machine);
        Ok(report)
    }
}

/// What a benchmark measures, and whose implementation of it.
struct Name {
    operation: String,
    /// `None` if it is ours.
    peer: Option<&'static str>,
}

impl Name {
    fn of(benchmark: &Benchmark) -> Self {
        let path = &benchmark.path;
        if let [module @ .., last] = path.as_slice()
            && !module.is_empty()
        {
            let module = module.join("_");
            if let Some(peer) = PEERS.iter().find(|peer| *peer == last) {
                return Self { operation: module, peer: Some(peer) };
            }
            if last == "ours" {
                return Self { operation: module, peer: None };
            }
            if let Some(variant) = last.strip_prefix("ours_") {
                return Self { operation: format!("{module}_{variant}"), peer: None };
            }
        }
        Self { operation: path.join("_"), peer: None }
    }
}

/// Whether `name` is `operation`, or the same in batches.
fn is_variant(name: &str, operation: &str) -> bool {
    name.strip_prefix(operation).is_some_and(|rest| rest.is_empty() || rest.starts_with("_batch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn benchmark(path: &str, median_us: f64, items_per_second: Option<f64>) -> Benchmark {
        let path = path.split("::").map(String::from).collect();
        Benchmark { path, median_us, fastest_us: median_us / 2.0, items_per_second }
    }

    fn machine() -> Machine {
        Machine {
            cpu: "a".into(),
            cores: 2,
            os: "linux",
            rustc: String::new(),
            rustflags: String::new(),
            cpu_features: Vec::new(),
        }
    }

    #[test]
    fn figures_and_ratios() {
        let mut report = Report::new(machine());
        let sphinx = [
            benchmark("unwrap::ours", 40.0, None),
            benchmark("unwrap::ours_verify", 30.0, None),
            benchmark("unwrap::sphinx_packet", 100.0, None),
            benchmark("unwrap_batch_32::ours", 640.0, Some(50_000.0)),
        ];
        report.add("sphinx", &sphinx).unwrap();
        report.add("mixing", &[benchmark("hold::1000", 0.25, None)]).unwrap();
        report.add("tickets", &[benchmark("cpu_per_packet", 640.0, Some(400_000.0))]).unwrap();
        let json = report.into_json().unwrap();
        let expected = serde_json::json!({
            "sphinx_packet_unwrap_fastest_us": 50.0,
            "sphinx_packet_unwrap_us": 100.0,
            "unwrap_batch_32_fastest_ratio": 5.0,
            "unwrap_batch_32_fastest_us": 320.0,
            "unwrap_batch_32_per_item_us": 20.0,
            "unwrap_batch_32_ratio": 5.0,
            "unwrap_batch_32_us": 640.0,
            "unwrap_fastest_ratio": 2.5,
            "unwrap_fastest_us": 20.0,
            "unwrap_ratio": 2.5,
            "unwrap_us": 40.0,
            "unwrap_verify_fastest_us": 15.0,
            "unwrap_verify_us": 30.0,
        });
        assert_eq!(json["sphinx"], expected);
        assert_eq!(
            json["mixing"],
            serde_json::json!({ "hold_1000_fastest_us": 0.125, "hold_1000_us": 0.25 })
        );
        assert_eq!(json["tickets"]["cpu_us_per_packet"], 2.5);
        assert_eq!(json["machine"]["cores"], 2);
    }

    #[test]
    fn named_figures_are_nested_beside_those_of_a_crate() {
        let mut report = Report::new(machine());
        report.add("sphinx", &[benchmark("build", 2.0, None)]).unwrap();
        report.add("lanes", &[]).unwrap();
        report.set("sphinx.unwrap.avx2.ns", 30.5).unwrap();
        report.set("x25519.limit_ns", 6.0).unwrap();
        assert!(report.set("x25519.limit_ns", 7.0).is_err());
        report.set("node.sustained.packets_per_second", 1000.0).unwrap();
        report.set("network.p99_ms", 80.0).unwrap();
        let json = report.into_json().unwrap();
        assert_eq!(json["node"]["sustained"]["packets_per_second"], 1000.0);
        assert_eq!(json["network"]["p99_ms"], 80.0);
        assert_eq!(json["sphinx"]["build_us"], 2.0);
        assert_eq!(json["sphinx"]["unwrap"]["avx2"]["ns"], 30.5);
        assert_eq!(json["x25519"]["limit_ns"], 6.0);
        assert!(json.get("lanes").is_none());
    }

    #[test]
    fn a_figure_is_no_object() {
        for (one, other) in
            [("a.b", "a.b.c"), ("a.b.c", "a.b"), ("sphinx.build_us.x", "a"), ("sphinx.build_us", "a")]
        {
            let mut report = Report::new(machine());
            report.add("sphinx", &[benchmark("build", 2.0, None)]).unwrap();
            report.set(one, 1.0).unwrap();
            report.set(other, 1.0).unwrap();
            assert!(report.into_json().is_err(), "{one}, {other}");
        }
    }

    #[test]
    fn features_of_the_processor() {
        assert_eq!(cpu_features("flags\t\t: fpu avx2 sha_ni avx512foo\n"), ["avx2", "sha_ni"]);
        assert!(cpu_features("").is_empty());
    }

    #[test]
    fn a_peer_alone_and_a_repeated_name_are_errors() {
        let mut alone = Report::new(machine());
        let error = alone.add("sphinx", &[benchmark("build::sphinx_packet", 1.0, None)]).unwrap_err();
        assert_eq!(error.to_string(), "sphinx: build::sphinx_packet has no counterpart `ours`");
        let mut twice = Report::new(machine());
        let error = twice.add("a", &[benchmark("b", 1.0, None), benchmark("b", 1.0, None)]).unwrap_err();
        assert_eq!(error.to_string(), "a has two figures called b_us: rename a benchmark");
    }

    #[test]
    fn a_longer_name_is_another_operation() {
        assert!(is_variant("unwrap", "unwrap") && is_variant("unwrap_batch_8", "unwrap"));
        assert!(!is_variant("unwrap_verify", "unwrap") && !is_variant("unwrapped", "unwrap"));
    }

    #[test]
    fn model_of_the_processor() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n").as_deref(),
            Some("A CPU @ 2 GHz")
        );
        assert_eq!(cpu_model(""), None);
    }
}

//! What a run leaves in its directory.
//!
//! | file | what |
//! |---|---|
//! | `scenario.toml` | the scenario, as it was read |
//! | `summary.json` | every metric with its interval |
//! | `targets.parquet` | a row for every target |
//! | `replications.parquet` | a row for every replication or batch |
//! | `latencies.parquet` | how often which latency occurred |
//! | `trace.parquet` | with `--trace`: a row for every packet |
//!
//! Columns and keys are described in `docs/simulation.md`. Every Parquet file carries `scenario_sha256`, `seed`, `version`,
//! `fidelity` and `complete`. None says when or on how many threads it was made: the same scenario gives the same bytes.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use serde_json::{Map, Value, json};
use thiserror::Error;
use tombola_mixing::LoopStats;

use crate::experiment::{METRICS, Options, Outcome, TraceRow};
use crate::metrics::Histogram;
use crate::scenario::{Method, Scenario};
use crate::world::{Fidelity, Kind};

mod table;

pub use table::{Column, Table};

/// Why results could not be written or read.
#[derive(Debug, Error)]
pub enum OutputError {
    /// A file cannot be written or read.
    #[error("{path}: check that it exists, and that its directory may be written to", path = path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no Parquet file, or could not be written as one.
    #[error("{path}: not read or written as a table", path = path.display())]
    Parquet {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
}

fn notes(scenario: &Scenario, options: &Options, outcome: &Outcome) -> Vec<(String, String)> {
    let note = |key: &str, value: String| (key.to_owned(), value);
    vec![
        note("scenario_sha256", scenario.hash()),
        note("seed", scenario.seed.to_string()),
        note("version", env!("CARGO_PKG_VERSION").to_owned()),
        note("fidelity", fidelity(options).to_owned()),
        note("complete", outcome.complete.to_string()),
    ]
}

fn fidelity(options: &Options) -> &'static str {
    match options.fidelity {
        Fidelity::Index => "index",
        Fidelity::Packets => "packets",
    }
}

/// A row for every target.
#[must_use]
pub fn targets(outcome: &Outcome) -> Table {
    let all: Vec<_> = outcome.targets().collect();
    let integers = |of: &dyn Fn(usize) -> u64| Column::integers((0..all.len()).map(of));
    let numbers = |of: &dyn Fn(usize) -> Option<f64>| Column::Numbers((0..all.len()).map(of).collect());
    Table::default()
        .with("replication", integers(&|at| all[at].0.into()))
        .with("batch", integers(&|at| all[at].1.batch.into()))
        .with("sender", integers(&|at| all[at].1.sender.into()))
        .with("number", integers(&|at| all[at].1.number.into()))
        .with("sent_ns", integers(&|at| all[at].1.sent.as_nanos()))
        .with("corrupt_hops", integers(&|at| all[at].1.corrupt_hops.into()))
        .with("entropy_bits", numbers(&|at| Some(all[at].1.entropy)))
        .with("receiver_entropy_bits", numbers(&|at| all[at].1.receiver_entropy))
        .with("min_entropy_bits", numbers(&|at| Some(all[at].1.min_entropy)))
        .with("guesses", numbers(&|at| Some(all[at].1.guesses)))
        .with("anonymity_set", integers(&|at| all[at].1.set_size))
        .with("residual", numbers(&|at| Some(all[at].1.residual)))
        .with("finished", integers(&|at| all[at].1.finished.into()))
}

/// A row for every replication or batch: the metrics, and what was counted.
#[must_use]
pub fn replications(outcome: &Outcome) -> Table {
    let values: Vec<_> = outcome.values().collect();
    let batches: Vec<_> = outcome
        .replications
        .iter()
        .flat_map(|one| (0_u32..).zip(&one.result.batches).map(move |(batch, counts)| (one, batch, counts)))
        .collect();
    let mut table = Table::default()
        .with("replication", Column::integers(batches.iter().map(|(one, ..)| one.index)))
        .with("batch", Column::integers(batches.iter().map(|(_, batch, _)| *batch)));
    for (at, metric) in METRICS.iter().enumerate() {
        table = table.with(metric, Column::Numbers(values.iter().map(|row| row[at]).collect()));
    }
    for kind in Kind::ALL {
        let sent = batches.iter().map(|(.., counts)| counts.sent[kind as usize]);
        let arrived = batches.iter().map(|(.., counts)| counts.arrived[kind as usize]);
        table = table
            .with(&format!("sent_{}", kind.name()), Column::integers(sent))
            .with(&format!("arrived_{}", kind.name()), Column::integers(arrived));
    }
    let count = |of: fn(&crate::world::Batch) -> u64| {
        Column::integers(batches.iter().map(|(.., counts)| of(counts)).collect::<Vec<_>>())
    };
    table
        .with("lost_on_links", count(|counts| counts.lost_on_links))
        .with("refused", count(|counts| counts.refused))
}

/// How often which latency of a message occurred, over all replications.
#[must_use]
pub fn latencies(outcome: &Outcome) -> Table {
    let mut all = Histogram::default();
    for batch in outcome.replications.iter().flat_map(|one| &one.result.batches) {
        all.merge(&batch.latencies);
    }
    let buckets: Vec<_> = all.buckets().collect();
    Table::default()
        .with("from_s", Column::numbers(buckets.iter().map(|bucket| bucket.0)))
        .with("to_s", Column::numbers(buckets.iter().map(|bucket| bucket.1)))
        .with("messages", Column::integers(buckets.iter().map(|bucket| bucket.2)))
}

/// A row for every packet.
#[must_use]
pub fn trace(outcome: &Outcome) -> Table {
    let rows: Vec<(u32, &TraceRow)> =
        outcome.replications.iter().flat_map(|one| one.trace.iter().map(|row| (one.index, row))).collect();
    let integers = |of: &dyn Fn(&TraceRow) -> u64| Column::integers(rows.iter().map(|(_, row)| of(row)));
    let texts =
        |of: &dyn Fn(&TraceRow) -> String| Column::Texts(rows.iter().map(|(_, row)| of(row)).collect());
    Table::default()
        .with("replication", Column::integers(rows.iter().map(|(index, _)| *index)))
        .with("sender", integers(&|row| row.sender.into()))
        .with("number", integers(&|row| row.number.into()))
        .with("kind", texts(&|row| row.kind.name().to_owned()))
        .with("receiver", integers(&|row| row.receiver.into()))
        .with("written_ns", integers(&|row| row.written.as_nanos()))
        .with("sent_ns", integers(&|row| row.sent.as_nanos()))
        .with("ended_ns", integers(&|row| row.ended.as_nanos()))
        .with("arrived", integers(&|row| row.arrived.into()))
        .with("route", texts(&|row| row.route.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")))
}

/// Every metric with its interval, and what was counted.
#[must_use]
pub fn summary(scenario: &Scenario, options: &Options, outcome: &Outcome) -> Value {
    let confidence = scenario.run.confidence;
    let metrics: Map<String, Value> = METRICS
        .iter()
        .map(|&name| {
            let value = outcome.estimate(name, confidence).map_or(Value::Null, |estimate| {
                json!({
                    "mean": estimate.mean,
                    "half_width": estimate.half_width,
                    "standard_error": estimate.standard_error,
                    "values": estimate.count,
                    "serial_correlation": outcome.serial_correlation(name),
                })
            });
            (name.to_owned(), value)
        })
        .collect();
    let results = || outcome.replications.iter().map(|one| &one.result);
    let batches = || results().flat_map(|result| &result.batches);
    let mut latencies = Histogram::default();
    batches().for_each(|batch| latencies.merge(&batch.latencies));
    let kinds = |of: fn(&crate::world::Batch) -> &[u64; 6]| -> Map<String, Value> {
        let sum = |kind: Kind| batches().map(|batch| of(batch)[kind as usize]).sum::<u64>();
        Kind::ALL.iter().map(|&kind| (kind.name().to_owned(), sum(kind).into())).collect()
    };
    let loops = |of: fn(&crate::world::WorldResult) -> LoopStats| {
        let all: LoopStats = results().map(of).sum();
        json!({
            "sent": all.sent,
            "due": all.due,
            "lost": all.lost,
            "delivery_ratio": all.delivery_ratio(),
            "rounds": all.rounds,
            "alarms": all.alarms,
        })
    };
    let wire = results().filter_map(|result| result.wire).fold(None, |sum, one| {
        let mut sum: crate::fidelity::WireCounts = sum.unwrap_or_default();
        sum.built += one.built;
        sum.arrived += one.arrived;
        sum.dropped += one.dropped;
        sum.astray += one.astray;
        sum.wrong_end += one.wrong_end;
        Some(sum)
    });
    json!({
        "scenario_sha256": scenario.hash(),
        "seed": scenario.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "fidelity": fidelity(options),
        "complete": outcome.complete,
        "method": match scenario.run.method {
            Method::Replications => "replications",
            Method::BatchMeans => "batch-means",
        },
        "confidence": confidence,
        "stop_rule_fulfilled": outcome.narrow,
        "correlated_batches": outcome.correlated(),
        "warm_up_s": outcome.warm_up.length.as_secs_f64(),
        "warm_up_detected": outcome.warm_up.found,
        "metrics": metrics,
        "latency_quantiles_s": {
            "p50": latencies.quantile(0.5),
            "p90": latencies.quantile(0.9),
            "p99": latencies.quantile(0.99),
        },
        "targets": {
            "finished": results().map(|result| result.targets.len() as u64 - result.unfinished).sum::<u64>(),
            "unfinished": results().map(|result| result.unfinished).sum::<u64>(),
            "passed_over": results().map(|result| result.passed_over).sum::<u64>(),
        },
        "packets": {
            "sent": kinds(|batch| &batch.sent),
            "arrived": kinds(|batch| &batch.arrived),
            "lost_on_links": batches().map(|batch| batch.lost_on_links).sum::<u64>(),
            "refused": batches().map(|batch| batch.refused).sum::<u64>(),
            "under_way": results().map(|result| result.under_way).sum::<u64>(),
        },
        "client_loops": loops(|result| result.client_loops),
        "mix_loops": loops(|result| result.mix_loops),
        "wire": wire.map(|wire| json!({
            "built": wire.built,
            "arrived": wire.arrived,
            "dropped": wire.dropped,
            "astray": wire.astray,
            "wrong_end": wire.wrong_end,
        })),
        "events": results().map(|result| result.events).sum::<u64>(),
        "simulated_s": results().map(|result| result.simulated.as_secs_f64()).sum::<f64>(),
    })
}

/// What a run leaves only if it is asked to.
const ON_REQUEST: &str = "trace.parquet";

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> OutputError + use<> {
    let path = path.to_owned();
    move |source| OutputError::Io { path, source }
}

/// Makes the directory if it is not there, and tries whether it can be written to: better before a run than after it.
///
/// # Errors
/// It cannot.
pub fn prepare(directory: &Path) -> Result<(), OutputError> {
    std::fs::create_dir_all(directory).map_err(io(directory))?;
    let trial = directory.join(".tombola-sim");
    File::create(&trial).map_err(io(&trial))?;
    std::fs::remove_file(&trial).map_err(io(&trial))
}

/// Removes what is not part of these results but of earlier ones.
fn remove(path: &Path) -> Result<(), OutputError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(path)(error)),
        _ => Ok(()),
    }
}

/// Writes everything into a directory, which is made if it is not there. What an earlier run left there and this one does
/// not replace (a trace, figures) is removed.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    directory: &Path,
    scenario: &Scenario,
    options: &Options,
    outcome: &Outcome,
) -> Result<(), OutputError> {
    std::fs::create_dir_all(directory).map_err(io(directory))?;
    for stale in crate::plot::files().map(|name| directory.join(name)) {
        remove(&stale)?;
    }
    remove(&directory.join(ON_REQUEST))?;
    let text = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(io(&path))
    };
    text("scenario.toml", scenario.source.clone())?;
    text("summary.json", format!("{:#}\n", summary(scenario, options, outcome)))?;
    let mut tables = vec![
        ("targets.parquet", targets(outcome)),
        ("replications.parquet", replications(outcome)),
        ("latencies.parquet", latencies(outcome)),
    ];
    if options.trace {
        tables.push((ON_REQUEST, trace(outcome)));
    }
    for (name, mut table) in tables {
        table.notes = notes(scenario, options, outcome);
        let path = directory.join(name);
        let file = File::create(&path).map_err(io(&path))?;
        let written = table.write(BufWriter::new(file));
        written.map_err(|source| OutputError::Parquet { path, source })?;
    }
    Ok(())
}

/// Reads a table of a directory.
///
/// # Errors
/// It is not there, or no Parquet file.
pub fn read(directory: &Path, name: &str) -> Result<Table, OutputError> {
    let path = directory.join(name);
    let file = File::open(&path).map_err(|source| OutputError::Io { path: path.clone(), source })?;
    Table::read(file).map_err(|source| OutputError::Parquet { path, source })
}

//! How fast it is: fixed scenarios, each in a process of its own, by processor time.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::engine::Seeds;
use crate::fidelity::WireError;
use crate::process;
use crate::scenario::{Scenario, ScenarioError};
use crate::world::{self, Control, Fidelity, Window};

/// Names and texts of the scenarios.
pub const SCENARIOS: [(&str, &str); 3] = [
    ("million_clients", include_str!("../scenarios/million_clients.toml")),
    ("million_timed_clients", include_str!("../scenarios/million_timed_clients.toml")),
    ("mixim_default", include_str!("../scenarios/mixim_default.toml")),
];

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum BenchError {
    /// There is no such scenario.
    #[error("no scenario {0:?}; there are {list}", list = SCENARIOS.map(|(name, _)| name).join(", "))]
    Unknown(String),
    /// A scenario of its own is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// It cannot be run.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The process of a scenario could not be started.
    #[error("{scenario}: cannot start {program}: {source}")]
    Start {
        /// Which one.
        scenario: &'static str,
        /// What was started.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The process of a scenario failed.
    #[error("{scenario}: its process ended with {status}: {message}")]
    Failed {
        /// Which one.
        scenario: &'static str,
        /// How.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
    /// It said something else than figures.
    #[error("{scenario}: no figures: {source}")]
    Output {
        /// Which one.
        scenario: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

fn named(name: &str) -> Result<(&'static str, &'static str), BenchError> {
    let found = SCENARIOS.into_iter().find(|(known, _)| *known == name);
    found.ok_or_else(|| BenchError::Unknown(name.to_owned()))
}

/// Runs one scenario in this process. Everything counts, from the first byte that is allocated to the last result.
///
/// # Errors
/// There is no such scenario.
pub fn one(name: &str) -> Result<Value, BenchError> {
    let (_, text) = named(name)?;
    let before = process::cpu_seconds();
    let scenario = Scenario::parse(text)?;
    let window =
        Window { warm_up: scenario.run.warm_up.unwrap_or_default(), batch: scenario.run.measure, batches: 1 };
    let seeds = Seeds::new(scenario.seed, 0);
    let found = world::run(&scenario, &seeds, window, Fidelity::Index, &mut (), &Control::default())?;
    let cpu = process::cpu_seconds() - before;
    let found = found.unwrap_or_default();
    let mean = |of: fn(&crate::metrics::tracker::TargetResult) -> f64| {
        let finished = found.targets.iter().filter(|target| target.finished);
        finished.map(of).collect::<crate::metrics::Moments>().mean()
    };
    Ok(json!({
        "events_per_cpu_s": found.events as f64 / cpu,
        "delivered_per_cpu_s": found.delivered as f64 / cpu,
        "rss_mib": process::peak_mib(),
        "cpu_s": cpu,
        "events": found.events,
        "delivered": found.delivered,
        "targets": found.targets.len(),
        "entropy_bits": mean(|target| target.entropy),
        "simulated_s": found.simulated.as_secs_f64(),
    }))
}

/// Runs every scenario, or `only` one, in a process of its own, of `program`: this one. `done` hears of each.
///
/// # Errors
/// There is no such scenario, or a process fails.
pub fn all(
    program: &Path,
    only: Option<&str>,
    mut done: impl FnMut(&str, &Value),
) -> Result<Value, BenchError> {
    let chosen = match only {
        Some(name) => vec![named(name)?],
        None => SCENARIOS.to_vec(),
    };
    let mut figures = Map::new();
    for (scenario, _) in chosen {
        let output =
            Command::new(program).args(["bench", "--scenario", scenario]).output().map_err(|source| {
                BenchError::Start { scenario, program: program.display().to_string(), source }
            })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BenchError::Failed { scenario, status: output.status, message });
        }
        let value: Value = serde_json::from_slice(&output.stdout)
            .map_err(|source| BenchError::Output { scenario, source })?;
        done(scenario, &value);
        figures.insert(scenario.to_owned(), value);
    }
    Ok(Value::Object(figures))
}

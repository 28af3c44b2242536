//! Scenarios whose entropy is known: from a file in the format of `simulations/reference/simulation.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Check, Effort, Setting, Tolerance, VerifyError};
use crate::experiment::{self, Options};
use crate::scenario::Scenario;
use crate::world::Control;

/// The reference scenarios that the project contains.
pub const OWN: &str = include_str!("../../reference/simulation.json");

/// A file of references.
#[derive(Debug, Deserialize)]
pub struct References {
    /// E\[H\] of a single mix in bits, by rho, its pool's mean size.
    #[serde(default)]
    pub single_mix_entropy_bits: BTreeMap<String, f64>,
    /// Whole networks.
    #[serde(default)]
    pub scenarios: Vec<Reference>,
}

/// One network with what a correct simulator finds. Keys that are not here are not needed.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    /// Its name.
    pub id: String,
    /// `stratified`, `cascade` or `free`.
    #[serde(default)]
    pub topology: Option<String>,
    /// Mixes of a route.
    pub layers: u32,
    /// Mixes in a layer.
    pub width: u32,
    /// Clients.
    pub clients: u32,
    /// Messages that each of them sends per second.
    pub payload_rate_per_client_per_s: f64,
    /// Loops that each of them sends per second.
    #[serde(default)]
    pub loop_cover_rate_per_client_per_s: f64,
    /// Mean delay in a mix.
    pub mix_delay_mean_s: f64,
    /// `exponential`, `uniform` or `constant`.
    #[serde(default)]
    pub mix_delay: Option<String>,
    /// What every link takes.
    #[serde(default)]
    pub link_delay_s: f64,
    /// Corrupt mixes in each layer.
    #[serde(default)]
    pub corrupt_mixes_per_layer: u32,
    /// What is right.
    pub entropy_bits: Value,
}

/// A value with its standard error.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Value {
    /// The value.
    pub value: f64,
    /// Zero if it is exact.
    #[serde(default)]
    pub standard_error: f64,
}

/// Whole nanoseconds, as scenarios spell them.
pub(super) fn nanos(seconds: f64) -> String {
    format!("\"{}ns\"", (seconds * 1e9).round() as u64)
}

impl Reference {
    /// The scenario, with a measured time that gives a small standard error at a bounded cost.
    fn scenario(&self, effort: Effort) -> Result<String, String> {
        let word =
            |text: &Option<String>| text.as_deref().unwrap_or("").to_lowercase().replace(['_', ' '], "-");
        let topology = match word(&self.topology).as_str() {
            "" | "stratified" | "layered" => "stratified",
            "cascade" | "cascades" | "multi-cascade" => "cascade",
            "free" | "free-route" | "free-routes" => "free",
            other => return Err(format!("unknown topology {other:?}")),
        };
        let mean = self.mix_delay_mean_s;
        let delay = match word(&self.mix_delay).as_str() {
            "" | "exponential" | "poisson" => format!("{{ exponential = {} }}", nanos(mean)),
            "uniform" => format!("{{ uniform = {} }}", nanos(2.0 * mean)),
            "constant" | "fixed" | "deterministic" => format!("{{ constant = {} }}", nanos(mean)),
            other => return Err(format!("unknown mix_delay {other:?}")),
        };
        let per_client = self.payload_rate_per_client_per_s + self.loop_cover_rate_per_client_per_s;
        let rate = f64::from(self.clients) * per_client;
        let hops = f64::from(self.layers);
        let transit = hops * mean + (hops + 1.0) * self.link_delay_s;
        let settling = 20.72 * mean + transit * 2.0;
        // Queue items of a replication per second of virtual time.
        let items = rate * (2.0 * hops + 2.0);
        let budget = match effort {
            Effort::Quick => 1e6,
            Effort::Full => 3e7,
        };
        let large = items * settling > budget / 4.0;
        let (replications, lanes) = if large { (2, 14) } else { (8, 62) };
        let measure =
            (budget / items / f64::from(replications) - settling).clamp(settling / 4.0, 2000.0 * settling);
        let loops = match self.loop_cover_rate_per_client_per_s {
            rate if rate > 0.0 => format!("loop_interval = {}", nanos(1.0 / rate)),
            _ => String::new(),
        };
        Ok(format!(
            "seed = 1\n[network]\ntopology = \"{topology}\"\nlayers = {}\nwidth = {}\ncorrupt_per_layer = {}\n\
             [mix]\ndelay = {delay}\n[links]\ndelay = {}\n\
             [clients]\ncount = {}\n{loops}\n[clients.user]\ninterval = {}\n\
             [metrics]\nlanes = {lanes}\nreceivers = false\n\
             [run]\nwarm_up = {}\nmeasure = {}\nreplications = {replications}\n",
            self.layers,
            self.width,
            self.corrupt_mixes_per_layer,
            nanos(self.link_delay_s),
            self.clients,
            nanos(1.0 / self.payload_rate_per_client_per_s),
            nanos(6.0 * transit),
            nanos(measure),
        ))
    }
}

/// Compares a simulation of every scenario with what the file says, and hands out each check as soon as it is made.
///
/// The entropy may be off by 0.02 bit or three standard errors, the reference's and the simulation's taken together. The
/// mean time under way is compared with its exact value.
///
/// # Errors
/// The text has another format.
pub fn run(
    text: &str,
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let references: References = serde_json::from_str(text)?;
    for (rho, &bits) in &references.single_mix_entropy_bits {
        let Ok(pool) = rho.parse::<f64>() else {
            report(impossible(format!("single mix, rho {rho:?}: no number")));
            continue;
        };
        report(Check::within(
            format!("single mix, rho {rho}: reference against exact value"),
            super::oracles::single_mix_entropy(pool),
            bits,
            1e-6,
        ));
        // Larger ones cost much and say no more: entropy there is log2(e rho) to a thousandth. The project's own are among
        // what theory is compared with.
        if pool <= 1000.0 && setting.effort == Effort::Full && text != OWN {
            report(super::oracles::simulate_single_mix(rho, bits, setting, control)?);
        }
    }
    for reference in &references.scenarios {
        let heavy = f64::from(reference.clients) * reference.payload_rate_per_client_per_s > 1e4;
        if heavy && setting.effort == Effort::Quick {
            continue;
        }
        check(reference, setting, control, report)?;
    }
    Ok(())
}

fn impossible(name: String) -> Check {
    Check { name, expected: 0.0, found: 0.0, tolerance: Tolerance::Impossible }
}

fn check(
    reference: &Reference,
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let id = &reference.id;
    let text = reference.scenario(setting.effort);
    let scenario = match text.and_then(|text| Scenario::parse(&text).map_err(|error| error.to_string())) {
        Ok(scenario) => scenario,
        Err(error) => {
            report(impossible(format!("{id}: {error}")));
            return Ok(());
        }
    };
    let options = Options { threads: setting.threads, ..Options::default() };
    let outcome = experiment::run(&scenario, &options, control)?;
    if !outcome.complete {
        return Err(VerifyError::Interrupted);
    }
    let Some(entropy) = outcome.estimate("entropy_bits", 0.95) else {
        report(impossible(format!("{id}: no target was found")));
        return Ok(());
    };
    let Value { value, standard_error } = reference.entropy_bits;
    let own = entropy.standard_error.unwrap_or(0.0);
    let tolerance = (3.0 * standard_error.hypot(own)).max(0.02);
    report(Check::within(format!("{id}: entropy, bits"), value, entropy.mean, tolerance));
    if let Some(transit) = outcome.estimate("transit_s", 0.95) {
        let own = transit.standard_error.unwrap_or(0.0);
        let mean = scenario.mean_transit();
        report(Check::within(
            format!("{id}: mean time under way, s"),
            mean,
            transit.mean,
            (4.0 * own).max(mean * 1e-3),
        ));
    }
    Ok(())
}

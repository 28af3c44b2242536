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
    /// What is wrong with its numbers.
    fn refused(&self) -> Option<String> {
        let Value { value, standard_error } = self.entropy_bits;
        let above_zero = [
            ("payload_rate_per_client_per_s", self.payload_rate_per_client_per_s),
            ("mix_delay_mean_s", self.mix_delay_mean_s),
        ];
        let not_below_zero = [
            ("loop_cover_rate_per_client_per_s", self.loop_cover_rate_per_client_per_s),
            ("link_delay_s", self.link_delay_s),
            ("entropy_bits.value", value),
            ("entropy_bits.standard_error", standard_error),
        ];
        let wrong = |key, what, found| Some(format!("`{key}`: expected {what}, found {found}"));
        let bad = |least_is_bad: bool, found: f64| {
            !found.is_finite() || found < 0.0 || least_is_bad && found == 0.0
        };
        if self.clients == 0 {
            return wrong("clients", "at least 1", 0.0);
        }
        if let Some(&(key, found)) = above_zero.iter().find(|(_, found)| bad(true, *found)) {
            return wrong(key, "a number above 0", found);
        }
        let (key, found) = *not_below_zero.iter().find(|(_, found)| bad(false, *found))?;
        wrong(key, "a number from 0", found)
    }

    /// The scenario, with a measured time that gives a small standard error at a bounded cost.
    fn scenario(&self, effort: Effort) -> Result<String, String> {
        if let Some(wrong) = self.refused() {
            return Err(wrong);
        }
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
        // One client sends what two send that send half as much: to the mixes it is the same process.
        let alone = f64::from(u32::from(self.clients == 1) + 1);
        let clients = self.clients.max(2);
        let payload = self.payload_rate_per_client_per_s / alone;
        let cover = self.loop_cover_rate_per_client_per_s / alone;
        let rate = f64::from(clients) * (payload + cover);
        let hops = f64::from(self.layers);
        let links = (hops + 1.0) * self.link_delay_s;
        let transit = hops * mean + links;
        let settling = 20.72 * mean + transit * 2.0;
        // One packet in a thousand is under way longer, or fewer.
        let warm_up = links + mean * (hops + 4.0 * hops.sqrt() + 6.0);
        // Queue items of a replication per second of virtual time.
        let items = rate * (2.0 * hops + 2.0);
        let budget = match effort {
            Effort::Quick => 1e6,
            Effort::Full => 3e7,
        };
        let large = items * settling > budget / 4.0;
        let (replications, lanes) = if large { (4, 14) } else { (8, 62) };
        // Most of a large one's time goes into warm-up and settling: targets close together cost nothing.
        let least = settling / if large { 8.0 } else { 4.0 };
        let measure = (budget / items / f64::from(replications) - settling).clamp(least, 2000.0 * settling);
        let targets =
            if large { format!("target_interval = {}", nanos(measure / 7.0)) } else { String::new() };
        let loops = match cover {
            rate if rate > 0.0 => format!("loop_interval = {}", nanos(1.0 / rate)),
            _ => String::new(),
        };
        Ok(format!(
            "seed = 1\n[network]\ntopology = \"{topology}\"\nlayers = {}\nwidth = {}\ncorrupt_per_layer = {}\n\
             [mix]\ndelay = {delay}\n[links]\ndelay = {}\n\
             [clients]\ncount = {}\n{loops}\n[clients.user]\ninterval = {}\n\
             [metrics]\nlanes = {lanes}\nreceivers = false\n{targets}\n\
             [run]\nwarm_up = {}\nmeasure = {}\nreplications = {replications}\n",
            self.layers,
            self.width,
            self.corrupt_mixes_per_layer,
            nanos(self.link_delay_s),
            clients,
            nanos(1.0 / payload),
            nanos(warm_up),
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
        let Some(pool) = rho.parse::<f64>().ok().filter(|rho| rho.is_finite() && *rho > 0.0) else {
            report(impossible(format!("single mix, rho {rho:?}: expected a number above 0")));
            continue;
        };
        report(Check::within(
            format!("single mix, rho {rho}: reference against exact value"),
            super::oracles::single_mix_entropy(pool),
            bits,
            1e-6,
        ));
        // Larger ones cost much and say no more: entropy there is log2(e rho) to a thousandth; in smaller ones hardly a
        // packet meets another. The project's own are among what theory is compared with.
        if (0.01..=1000.0).contains(&pool) && setting.effort == Effort::Full && text != OWN {
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
    let targets = outcome.targets().count();
    let found = outcome.estimate("entropy_bits", 0.95);
    let Some((entropy, own)) = found.and_then(|found| Some((found, found.standard_error?))) else {
        report(impossible(format!("{id}: {targets} targets are too few for a standard error")));
        return Ok(());
    };
    let Value { value, standard_error } = reference.entropy_bits;
    let tolerance = (3.0 * standard_error.hypot(own)).max(0.02);
    report(Check::within(
        format!("{id}: entropy of {targets} targets, bits"),
        value,
        entropy.mean,
        tolerance,
    ));
    // Delays are independent, so that the error is known and needs no estimate.
    let messages: u64 = outcome.replications.iter().map(|one| one.result.batches[0].transit.count()).sum();
    let variance = scenario.topology.hops() as f64 * scenario.mix.delay().variance();
    let error = (variance / messages as f64).sqrt();
    let mean = scenario.mean_transit();
    let transit = outcome.estimate("transit_s", 0.95).map_or(f64::NAN, |found| found.mean);
    let name = format!("{id}: mean time under way, s");
    report(Check::within(name, mean, transit, (4.0 * error).max(mean * 1e-3)));
    Ok(())
}

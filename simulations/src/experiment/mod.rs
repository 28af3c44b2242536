//! A scenario, run as often as its intervals need.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tombola_mixing::Time;

use crate::engine::Seeds;
use crate::fidelity::WireError;
use crate::metrics::Moments;
use crate::metrics::tracker::TargetResult;
use crate::mixes::PacketId;
use crate::scenario::{LEAST_TO_STOP, Method, Scenario, Stop};
use crate::stats::{self, Estimate};
use crate::world::{self, Batch, Control, Fidelity, Kind, Observer, Packet, Packets, Window, WorldResult};

mod warm_up;

pub use warm_up::{WarmUp, find_warm_up};

/// The names of all metrics, as results spell them. `docs/simulation.md` defines them.
pub const METRICS: &[&str] = &[
    "entropy_bits",
    "receiver_entropy_bits",
    "min_entropy_bits",
    "guesses",
    "anonymity_set",
    "residual",
    "likelihood_difference",
    "likelihood_delta",
    "latency_s",
    "transit_s",
    "waiting_s",
    "overhead",
    "loss",
];

/// The values of [`METRICS`] in one batch with its targets; `None` where nothing was observed. Targets that are not finished
/// do not count: what is known of them is too little.
#[must_use]
pub fn metrics_of(batch: &Batch, targets: &[&TargetResult]) -> Vec<Option<f64>> {
    let mean = |of: &dyn Fn(&TargetResult) -> Option<f64>| {
        let finished = targets.iter().filter(|target| target.finished);
        finished.filter_map(|target| of(target)).collect::<Moments>().mean()
    };
    let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let likelihood = batch.likelihood;
    vec![
        mean(&|target| Some(target.entropy)),
        mean(&|target| target.receiver_entropy),
        mean(&|target| Some(target.min_entropy)),
        mean(&|target| Some(target.guesses)),
        mean(&|target| Some(target.set_size as f64)),
        mean(&|target| Some(target.residual)),
        (likelihood.both > 0).then(|| likelihood.difference / likelihood.both as f64),
        ratio(likelihood.one, likelihood.both + likelihood.one),
        batch.latency.mean(),
        batch.transit.mean(),
        batch.waiting.mean(),
        ratio(batch.all_sent(), batch.sent[Kind::Real as usize]),
        ratio(batch.lost_on_links + batch.refused, batch.all_sent()),
    ]
}

/// How to run a scenario, apart from what it says itself.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads, at least one. Results do not depend on it.
    pub threads: usize,
    /// Numbers, or real packets.
    pub fidelity: Fidelity,
    /// Keep a row for every packet.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, fidelity: Fidelity::Index, trace: false }
    }
}

/// One packet of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// Its sender.
    pub sender: u32,
    /// How many its sender had sent before.
    pub number: u32,
    /// What it was for.
    pub kind: Kind,
    /// Its recipient: a client, or behind those a gateway, or behind those a mix.
    pub receiver: u32,
    /// When its message was written.
    pub written: Time,
    /// When it was sent.
    pub sent: Time,
    /// When it arrived or was lost.
    pub ended: Time,
    /// Whether it arrived.
    pub arrived: bool,
    /// Its mixes.
    pub route: Vec<u32>,
}

/// Keeps a row for every packet.
#[derive(Default)]
struct Tracer(Vec<TraceRow>);

impl Observer for Tracer {
    fn ended(&mut self, now: Time, id: PacketId, packets: &Packets, arrived: bool) {
        let &Packet { sender, number, kind, receiver, sent, .. } = packets.get(id);
        let route = packets.route(id).map(|hop| hop.mix).collect();
        let written = packets.written(id);
        self.0.push(TraceRow { sender, number, kind, receiver, written, sent, ended: now, arrived, route });
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Replication {
    /// Its number, from 0.
    pub index: u32,
    /// What it found out.
    pub result: WorldResult,
    /// The values of [`METRICS`], by batch.
    pub values: Vec<Vec<Option<f64>>>,
    /// Its packets, if asked for.
    pub trace: Vec<TraceRow>,
}

/// All runs of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In order.
    pub replications: Vec<Replication>,
    /// Simulated time before anything was measured.
    pub warm_up: WarmUp,
    /// Whether all that the scenario asks for was run; `false` after an interruption.
    pub complete: bool,
    /// Whether the stopping rule, if there is one, was fulfilled.
    pub narrow: Option<bool>,
}

impl Outcome {
    /// The values of [`METRICS`], by batch or replication.
    pub fn values(&self) -> impl Iterator<Item = &[Option<f64>]> {
        self.replications.iter().flat_map(|one| &one.values).map(Vec::as_slice)
    }

    /// The values of a metric of [`METRICS`] where it was observed.
    pub fn values_of(&self, metric: &str) -> impl Iterator<Item = f64> {
        let column = METRICS.iter().position(|name| *name == metric);
        self.values().filter_map(move |row| row[column?])
    }

    /// What is known about a metric of [`METRICS`].
    #[must_use]
    pub fn estimate(&self, metric: &str, confidence: f64) -> Option<Estimate> {
        Estimate::new(self.values_of(metric), confidence)
    }

    /// How much each batch's value of a metric is like the next one's. `None` for replications, which are independent, and
    /// for fewer than ten batches.
    #[must_use]
    pub fn serial_correlation(&self, metric: &str) -> Option<f64> {
        let values: Vec<f64> = self.values_of(metric).collect();
        let is_one_run = self.replications.len() == 1;
        is_one_run.then(|| stats::serial_correlation(&values)).flatten()
    }

    /// Metrics whose batches depend on each other, so that their intervals are too narrow.
    #[must_use]
    pub fn correlated(&self) -> Vec<&'static str> {
        let depends = |metric: &&&str| {
            let values = self.values_of(metric).count() as u64;
            self.serial_correlation(metric).is_some_and(|found| stats::is_correlated(found, values))
        };
        METRICS.iter().filter(depends).copied().collect()
    }

    /// All targets.
    pub fn targets(&self) -> impl Iterator<Item = (u32, &TargetResult)> {
        self.replications.iter().flat_map(|one| one.result.targets.iter().map(|target| (one.index, target)))
    }
}

/// [`metrics_of`] all batches of a run.
fn values_of(result: &WorldResult) -> Vec<Vec<Option<f64>>> {
    let mut targets = vec![Vec::new(); result.batches.len()];
    for target in &result.targets {
        targets[target.batch as usize].push(target);
    }
    result.batches.iter().zip(&targets).map(|(batch, targets)| metrics_of(batch, targets)).collect()
}

/// Watches whether the interval of the metric that a stopping rule names is narrow enough.
struct Watch<'s> {
    stop: Option<&'s Stop>,
    column: usize,
    confidence: f64,
    seen: Moments,
}

impl<'s> Watch<'s> {
    fn new(scenario: &'s Scenario) -> Self {
        let stop = scenario.run.stop.as_ref();
        let column = METRICS.iter().position(|name| stop.is_some_and(|stop| stop.metric == *name));
        let confidence = scenario.run.confidence;
        Self { stop, column: column.unwrap_or(0), confidence, seen: Moments::default() }
    }

    fn see(&mut self, replication: &Replication) {
        replication.values.iter().filter_map(|row| row[self.column]).for_each(|value| self.seen.add(value));
    }

    /// `None` if there is no rule. What was observed too seldom is not narrow, however alike its values are.
    fn is_narrow(&self) -> Option<bool> {
        let stop = self.stop?;
        let half_width = Estimate::of(&self.seen, self.confidence).and_then(|estimate| estimate.half_width);
        let enough = self.seen.count() >= u64::from(LEAST_TO_STOP);
        Some(enough && half_width.is_some_and(|half| half <= stop.half_width))
    }
}

/// Runs a scenario.
///
/// The same scenario gives the same outcome at any number of threads: replications follow from seed and number, are put in
/// order, and the stopping rule looks at them in that order.
///
/// # Errors
/// With [`Fidelity::Packets`]: the scenario is none that real relays can run.
pub fn run(scenario: &Scenario, options: &Options, control: &Control) -> Result<Outcome, WireError> {
    let warm_up = match scenario.run.warm_up {
        Some(length) => WarmUp { length, found: None },
        None => find_warm_up(scenario, options.threads, control)?,
    };
    match scenario.run.method {
        Method::Replications => replicate(scenario, options, warm_up, control),
        Method::BatchMeans => batch_means(scenario, options, warm_up, control),
    }
}

/// Does the same work on so many threads, this one included; on fewer if the system has no more. A panic of any of them goes
/// on here.
fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let others: Vec<_> = (1..threads).map_while(start).collect();
        work();
        for thread in others {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Whoever holds it and panics lets the others end, too.
struct EndAll<'a>(&'a AtomicU32);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// Simulated time that one replication takes, as far as is known beforehand.
fn expected_length(scenario: &Scenario, warm_up: Duration, batches: u32) -> Duration {
    let settling = Duration::from_secs_f64(scenario.settling().clamp(0.0, 1e9));
    warm_up.saturating_add(scenario.run.measure.saturating_mul(batches)).saturating_add(settling)
}

fn one(
    scenario: &Scenario,
    options: &Options,
    window: Window,
    index: u32,
    control: &Control,
) -> Result<Option<Replication>, WireError> {
    let seeds = Seeds::new(scenario.seed, index);
    let mut tracer = Tracer::default();
    let result = if options.trace {
        world::run(scenario, &seeds, window, options.fidelity, &mut tracer, control)?
    } else {
        world::run(scenario, &seeds, window, options.fidelity, &mut (), control)?
    };
    Ok(result.map(|result| Replication { index, values: values_of(&result), result, trace: tracer.0 }))
}

fn replicate(
    scenario: &Scenario,
    options: &Options,
    warm_up: WarmUp,
    control: &Control,
) -> Result<Outcome, WireError> {
    let window = Window { warm_up: warm_up.length, batch: scenario.run.measure, batches: 1 };
    let least = scenario.run.replications;
    let most = scenario.run.stop.as_ref().map_or(least, |stop| stop.at_most.max(least));
    control.expect(expected_length(scenario, warm_up.length, 1).saturating_mul(least));
    let next = AtomicU32::new(0);
    let enough = AtomicU32::new(most);
    let gathered = Mutex::new((BTreeMap::new(), Vec::<Replication>::new(), Watch::new(scenario), None));
    let work = || {
        let _end = EndAll(&enough);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= enough.load(Ordering::Relaxed) || control.is_stopped() {
                return;
            }
            let found = one(scenario, options, window, index, control);
            let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
            let (waiting, ordered, watch, failed) = &mut *gathered;
            match found {
                Ok(None) => return,
                Ok(Some(replication)) if replication.result.interrupted => return,
                Err(error) => {
                    *failed = Some(error);
                    enough.store(0, Ordering::Relaxed);
                    return;
                }
                Ok(Some(replication)) => waiting.insert(index, replication),
            };
            while let Some(replication) = waiting.remove(&(ordered.len() as u32)) {
                let count = ordered.len() as u32;
                if count < enough.load(Ordering::Relaxed) {
                    watch.see(&replication);
                    ordered.push(replication);
                    if count + 1 >= least && watch.is_narrow() == Some(true) {
                        enough.fetch_min(count + 1, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    on_threads(options.threads.min(most as usize), work);
    let (_, replications, watch, failed) = gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    let complete = !control.is_stopped() && replications.len() as u32 >= least;
    Ok(Outcome { replications, warm_up, complete, narrow: watch.is_narrow() })
}

/// One long run; again with twice the batches while the interval is too wide. Its beginning is the same, whatever its length.
fn batch_means(
    scenario: &Scenario,
    options: &Options,
    warm_up: WarmUp,
    control: &Control,
) -> Result<Outcome, WireError> {
    let mut batches = scenario.run.replications;
    let most = scenario.run.stop.as_ref().map_or(batches, |stop| stop.at_most.max(batches));
    let mut best: Option<Replication> = None;
    loop {
        control.expect(expected_length(scenario, warm_up.length, batches));
        let window = Window { warm_up: warm_up.length, batch: scenario.run.measure, batches };
        let found = one(scenario, options, window, 0, control)?;
        let complete = found.as_ref().is_some_and(|found| !found.result.interrupted);
        // A longer run that is interrupted may have come less far than the one before.
        let length = |one: &Option<Replication>| one.as_ref().map_or(0, |one| one.values.len());
        if length(&found) >= length(&best) {
            best = found;
        }
        let mut watch = Watch::new(scenario);
        best.iter().for_each(|one| watch.see(one));
        let narrow = watch.is_narrow();
        if !complete || narrow != Some(false) || batches >= most {
            return Ok(Outcome { replications: best.into_iter().collect(), warm_up, complete, narrow });
        }
        batches = batches.saturating_mul(2).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_not_fulfilled_by_what_was_hardly_ever_observed() {
        let text = crate::scenario::TEMPLATE.replace("# stop", "stop").replace("entropy_bits", "loss");
        let scenario = Scenario::parse(&text).unwrap();
        let mut watch = Watch::new(&scenario);
        for index in 0..100 {
            let there = METRICS.iter().map(|name| (*name == "loss" && index % 11 == 0).then_some(0.5));
            let values = vec![there.collect()];
            watch.see(&Replication { index, result: WorldResult::default(), values, trace: Vec::new() });
            // Observed for the tenth time by the hundredth.
            assert_eq!(watch.is_narrow(), Some(index >= 99), "{index}");
        }
        let free = Scenario::parse(crate::scenario::TEMPLATE).unwrap();
        assert_eq!(Watch::new(&free).is_narrow(), None);
    }
}

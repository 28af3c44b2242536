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
use crate::scenario::{Method, Scenario};
use crate::stats::{self, Estimate};
use crate::world::{self, Batch, Control, Fidelity, Kind, Observer, Packet, Packets, Window, WorldResult};

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

/// The values of [`METRICS`] in one batch; `None` where nothing was observed.
#[must_use]
pub fn metrics_of(batch: &Batch, targets: &[&TargetResult]) -> Vec<Option<f64>> {
    let mean = |of: &dyn Fn(&TargetResult) -> Option<f64>| {
        targets.iter().filter_map(|target| of(target)).collect::<Moments>().mean()
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
    /// Its packets, if asked for.
    pub trace: Vec<TraceRow>,
}

/// All runs of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In order.
    pub replications: Vec<Replication>,
    /// Simulated time before anything was measured.
    pub warm_up: Duration,
    /// Whether all that the scenario asks for was run; `false` after an interruption.
    pub complete: bool,
    /// Whether the stopping rule, if there is one, was fulfilled.
    pub narrow: Option<bool>,
}

impl Outcome {
    /// The values of [`METRICS`], by batch or replication.
    #[must_use]
    pub fn values(&self) -> Vec<Vec<Option<f64>>> {
        values_of(&self.replications)
    }

    /// What is known about a metric of [`METRICS`].
    #[must_use]
    pub fn estimate(&self, metric: &str, confidence: f64) -> Option<Estimate> {
        estimate(&self.values(), metric, confidence)
    }

    /// All targets.
    pub fn targets(&self) -> impl Iterator<Item = (u32, &TargetResult)> {
        self.replications.iter().flat_map(|one| one.result.targets.iter().map(|target| (one.index, target)))
    }
}

fn values_of(replications: &[Replication]) -> Vec<Vec<Option<f64>>> {
    let batches = |one: &Replication| {
        let WorldResult { batches, targets, .. } = &one.result;
        let of = |index: u32| targets.iter().filter(move |target| target.batch == index).collect::<Vec<_>>();
        (0..).zip(batches).map(|(index, batch)| metrics_of(batch, &of(index))).collect::<Vec<_>>()
    };
    replications.iter().flat_map(batches).collect()
}

fn estimate(values: &[Vec<Option<f64>>], metric: &str, confidence: f64) -> Option<Estimate> {
    let column = METRICS.iter().position(|name| *name == metric)?;
    Estimate::new(values.iter().filter_map(|row| row[column]), confidence)
}

/// The replication number of pilot runs: none that is measured has it.
const PILOT: u32 = 1 << 31;
/// Pilot runs whose mean is looked at.
const PILOTS: u32 = 3;
/// Points of the series in which the end of the warm-up is looked for.
const SAMPLES: u32 = 400;

/// Runs a scenario.
///
/// The same scenario gives the same outcome at any number of threads: replications follow from seed and number, are put in
/// order, and the stopping rule looks at them in that order.
///
/// # Errors
/// With [`Fidelity::Packets`]: the scenario is none that real relays can run.
pub fn run(scenario: &Scenario, options: &Options, control: &Control) -> Result<Outcome, WireError> {
    let warm_up = match scenario.run.warm_up {
        Some(warm_up) => warm_up,
        None => find_warm_up(scenario, control)?,
    };
    match scenario.run.method {
        Method::Replications => replicate(scenario, options, warm_up, control),
        Method::BatchMeans => batch_means(scenario, options, warm_up, control),
    }
}

/// Simulated time that one replication takes, as far as is known beforehand.
fn expected_length(scenario: &Scenario, warm_up: Duration, batches: u32) -> Duration {
    let settling = Duration::from_secs_f64(scenario.settling().clamp(0.0, 1e9));
    warm_up + scenario.run.measure * batches + settling
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
    Ok(result.map(|result| Replication { index, result, trace: tracer.0 }))
}

fn replicate(
    scenario: &Scenario,
    options: &Options,
    warm_up: Duration,
    control: &Control,
) -> Result<Outcome, WireError> {
    let window = Window { warm_up, batch: scenario.run.measure, batches: 1 };
    let least = scenario.run.replications;
    let most = scenario.run.stop.as_ref().map_or(least, |stop| stop.at_most.max(least));
    control.expect(expected_length(scenario, warm_up, 1) * least);
    let next = AtomicU32::new(0);
    let enough = AtomicU32::new(most);
    let gathered = Mutex::new((BTreeMap::new(), Vec::<Replication>::new(), None));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= enough.load(Ordering::Relaxed) || control.is_stopped() {
                return;
            }
            let found = one(scenario, options, window, index, control);
            let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
            let (waiting, ordered, failed) = &mut *gathered;
            match found {
                Ok(None) => return,
                Err(error) => {
                    *failed = Some(error);
                    enough.store(0, Ordering::Relaxed);
                    return;
                }
                Ok(Some(replication)) => waiting.insert(index, replication),
            };
            while let Some(replication) = waiting.remove(&(ordered.len() as u32)) {
                if (ordered.len() as u32) < enough.load(Ordering::Relaxed) {
                    ordered.push(replication);
                }
                let count = ordered.len() as u32;
                if count >= least && is_narrow(scenario, ordered) == Some(true) {
                    enough.fetch_min(count, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        work();
        others.into_iter().for_each(|thread| drop(thread.join()));
    });
    let (_, replications, failed) = gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed {
        return Err(error);
    }
    let complete = !control.is_stopped() && replications.len() as u32 >= least;
    let narrow = is_narrow(scenario, &replications);
    Ok(Outcome { replications, warm_up, complete, narrow })
}

/// One long run; again with twice the batches while the interval is too wide. Its beginning is the same, whatever its length.
fn batch_means(
    scenario: &Scenario,
    options: &Options,
    warm_up: Duration,
    control: &Control,
) -> Result<Outcome, WireError> {
    let mut batches = scenario.run.replications;
    let most = scenario.run.stop.as_ref().map_or(batches, |stop| stop.at_most.max(batches));
    let mut replications = Vec::new();
    loop {
        control.expect(expected_length(scenario, warm_up, batches));
        let window = Window { warm_up, batch: scenario.run.measure, batches };
        let Some(found) = one(scenario, options, window, 0, control)? else {
            let narrow = is_narrow(scenario, &replications);
            return Ok(Outcome { replications, warm_up, complete: false, narrow });
        };
        replications = vec![found];
        let narrow = is_narrow(scenario, &replications);
        if narrow != Some(false) || batches >= most {
            return Ok(Outcome { replications, warm_up, complete: true, narrow });
        }
        batches = batches.saturating_mul(2).min(most);
    }
}

/// Whether the interval is as narrow as the stopping rule wants; `None` if there is no rule.
fn is_narrow(scenario: &Scenario, replications: &[Replication]) -> Option<bool> {
    let stop = scenario.run.stop.as_ref()?;
    let estimate = estimate(&values_of(replications), &stop.metric, scenario.run.confidence);
    Some(estimate.and_then(|estimate| estimate.half_width).is_some_and(|half| half <= stop.half_width))
}

/// How many packets are under way, again and again.
struct Sampler {
    interval: Duration,
    series: Vec<f64>,
}

impl Observer for Sampler {
    fn sampling(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn sample(&mut self, _now: Time, under_way: usize, _in_mix: &mut dyn Iterator<Item = f64>) {
        self.series.push(under_way as f64);
    }
}

/// Twice what MSER-5 leaves out of the mean of three pilot runs, and at least five mean transits. The pilots become longer
/// until the warm-up ends in their first half.
///
/// # Errors
/// None with packets as numbers.
pub fn find_warm_up(scenario: &Scenario, control: &Control) -> Result<Duration, WireError> {
    let least = 5.0 * scenario.mean_transit();
    let mut length = (8.0 * least).max(1e-3);
    for _ in 0..8 {
        let interval = Duration::from_secs_f64(length / f64::from(SAMPLES));
        let mut mean = vec![0.0; SAMPLES as usize];
        for pilot in 0..PILOTS {
            let seeds = Seeds::new(scenario.seed, PILOT + pilot);
            let window = Window {
                warm_up: Duration::from_secs_f64(length),
                batch: Duration::from_nanos(1),
                batches: 1,
            };
            let mut sampler = Sampler { interval, series: Vec::new() };
            if world::run(scenario, &seeds, window, Fidelity::Index, &mut sampler, control)?.is_none() {
                return Ok(Duration::from_secs_f64(least));
            }
            mean.iter_mut().zip(sampler.series).for_each(|(mean, value)| *mean += value);
        }
        if let Some(samples) = stats::warm_up(&mean) {
            return Ok(Duration::from_secs_f64(least).max(2 * samples as u32 * interval));
        }
        length *= 2.0;
    }
    Ok(Duration::from_secs_f64(length / 2.0))
}

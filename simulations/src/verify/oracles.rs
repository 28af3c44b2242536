//! What theory says exactly, and simulations of it.

use core::time::Duration;
use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF as _, Discrete as _, Gamma, Poisson};
use statrs::function::gamma::{digamma, ln_gamma};
use tombola_mixing::{LoopStats, Time};

use super::reference::nanos;
use super::{Check, Effort, Setting, VerifyError, measures};
use crate::engine::Seeds;
use crate::experiment::{self, Options, Outcome};
use crate::fidelity::WireCounts;
use crate::metrics::Moments;
use crate::metrics::tracker::TargetResult;
use crate::mixes::PacketId;
use crate::scenario::Scenario;
use crate::stats::{chi_square, kolmogorov};
use crate::world::{self, Control, Fidelity, Observer, Packets, Window};

/// E\[H\] in bits of a message through a single Poisson mix whose pool has `rho` packets on average: E\[(K+1) h(1/(K+1))\],
/// K a Poisson variable of mean `rho`, h the binary entropy.
///
/// With n = K + 1 packets inside when the message has arrived, its entropy does not depend on what arrives later: it is
/// that of a geometric distribution.
#[must_use]
pub fn single_mix_entropy(rho: f64) -> f64 {
    if rho > 1e6 {
        // Many terms, which lose digits; and the limit is right to more of them than anybody needs.
        return (core::f64::consts::E * rho).log2();
    }
    let Ok(poisson) = Poisson::new(rho) else { return 0.0 };
    let spread = 14.0 * rho.sqrt() + 60.0;
    let (from, to) = ((rho - spread).max(0.0) as u64, (rho + spread) as u64);
    let entropy = |others: u64| {
        let n = others as f64 + 1.0;
        n.log2() + if others == 0 { 0.0 } else { (n - 1.0) * (n / (n - 1.0)).log2() }
    };
    (from..=to).map(|others| poisson.pmf(others) * entropy(others)).sum()
}

/// The entropy in bits to which many layers of Poisson mixes tend at high traffic: log2 of the rate plus the differential
/// entropy of the sum of the delays, an Erlang distribution.
#[must_use]
pub fn mean_field_entropy(rate: f64, layers: u32, mean_delay: f64) -> f64 {
    let l = f64::from(layers);
    rate.log2() + (l + mean_delay.ln() + ln_gamma(l) + (1.0 - l) * digamma(l)) / core::f64::consts::LN_2
}

/// The entropy in bits of a message through a threshold pool mix that sends `batch` of `batch + keep` packets in each round
/// (Serjantov and Danezis, 2002, section 4): log2(n + N) + N/n log2((n + N)/N).
#[must_use]
pub fn pool_mix_entropy(batch: f64, keep: f64) -> f64 {
    let all = batch + keep;
    all.log2() + if keep > 0.0 { keep / batch * (all / keep).log2() } else { 0.0 }
}

/// E\[log2(K + 1)\]: the entropy in bits of a message through a timed mix that gets `mean` others in an interval.
fn timed_mix_entropy(mean: f64) -> f64 {
    let Ok(poisson) = Poisson::new(mean) else { return 0.0 };
    let to = (mean + 14.0 * mean.sqrt() + 60.0) as u64;
    (0..=to).map(|others| poisson.pmf(others) * (others as f64 + 1.0).log2()).sum()
}

/// A scenario of `layers` times `width` mixes. `rest` goes behind `[metrics]`.
pub(super) struct Small<'a> {
    pub(super) layers: u32,
    pub(super) width: u32,
    pub(super) corrupt: u32,
    pub(super) mix: &'a str,
    pub(super) link: f64,
    pub(super) loss: f64,
    pub(super) clients: u32,
    pub(super) client: &'a str,
    pub(super) interval: f64,
    pub(super) metrics: &'a str,
    pub(super) warm_up: f64,
    pub(super) measure: f64,
    pub(super) replications: u32,
}

impl Default for Small<'_> {
    fn default() -> Self {
        Self {
            layers: 1,
            width: 1,
            corrupt: 0,
            mix: "delay = \"1s\"",
            link: 0.0,
            loss: 0.0,
            clients: 100,
            client: "",
            interval: 1.0,
            metrics: "lanes = 62\nreceivers = false",
            warm_up: 30.0,
            measure: 100.0,
            replications: 8,
        }
    }
}

impl Small<'_> {
    fn scenario(&self) -> Result<Scenario, VerifyError> {
        let text = format!(
            "seed = 2\n[network]\nlayers = {}\nwidth = {}\ngateways = 2\ncorrupt_per_layer = {}\n[mix]\n{}\n\
             [links]\ndelay = {}\nloss = {:?}\n[clients]\ncount = {}\n{}\n[clients.user]\ninterval = {}\n\
             [metrics]\n{}\n[run]\nwarm_up = {}\nmeasure = {}\nreplications = {}\n",
            self.layers,
            self.width,
            self.corrupt,
            self.mix,
            nanos(self.link),
            self.loss,
            self.clients,
            self.client,
            nanos(self.interval),
            self.metrics,
            nanos(self.warm_up),
            nanos(self.measure),
            self.replications,
        );
        Ok(Scenario::parse(&text)?)
    }

    pub(super) fn run(
        &self,
        setting: Setting,
        fidelity: Fidelity,
        trace: bool,
        control: &Control,
    ) -> Result<Outcome, VerifyError> {
        let options = Options { threads: setting.threads, fidelity, trace };
        let outcome = experiment::run(&self.scenario()?, &options, control)?;
        if outcome.complete { Ok(outcome) } else { Err(VerifyError::Interrupted) }
    }
}

/// Mean and standard error of a metric; no numbers, which pass no check, if it was observed too seldom.
pub(super) fn found(outcome: &Outcome, metric: &str) -> (f64, f64) {
    let found = outcome.estimate(metric, 0.95);
    found.map_or((f64::NAN, f64::NAN), |found| (found.mean, found.standard_error.unwrap_or(f64::NAN)))
}

fn entropy(outcome: &Outcome) -> (f64, f64) {
    found(outcome, "entropy_bits")
}

/// Two simulations agree about a metric within four standard errors.
fn alike(name: String, metric: &str, expected: &Outcome, other: &Outcome) -> Check {
    let [(expected, error), (value, other_error)] = [expected, other].map(|outcome| found(outcome, metric));
    Check::within(name, expected, value, 4.0 * error.hypot(other_error))
}

/// A single Poisson mix whose pool has `rho` packets on average, against `bits`.
pub(super) fn simulate_single_mix(
    rho: &str,
    bits: f64,
    setting: Setting,
    control: &Control,
) -> Result<Check, VerifyError> {
    let pool: f64 = rho.parse().unwrap_or(1.0);
    // Mean delays in all. Entropy varies from one mean delay to the next by about 2 / rho, squared: the standard error is
    // then below 0.002 bit.
    let length = match setting.effort {
        Effort::Quick => 20_000.0 / pool.min(1.5),
        Effort::Full => 2.4e6 / pool.max(1.0),
    };
    let replications = 8;
    let measure = length / f64::from(replications);
    let small = Small { interval: 100.0 / pool, measure, replications, ..Small::default() };
    let (found, _) = entropy(&small.run(setting, Fidelity::Index, false, control)?);
    let tolerance = if setting.effort == Effort::Full { 0.01 } else { 0.03 };
    Ok(Check::within(format!("single mix, rho {rho}: entropy, bits"), bits, found, tolerance))
}

/// Everything that theory says. Hands out each check as soon as it is made.
///
/// # Errors
/// A scenario cannot be run, or it was interrupted.
pub fn run(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let full = setting.effort == Effort::Full;
    let rhos: &[&str] = if full {
        &["0.1", "0.5", "1", "2", "5", "10", "20", "50", "100", "133.3333", "450"]
    } else {
        &["0.1", "1", "10"]
    };
    for rho in rhos {
        let bits = single_mix_entropy(rho.parse().unwrap_or(1.0));
        report(simulate_single_mix(rho, bits, setting, control)?);
    }
    many_layers(setting, control, report)?;
    batch_mixes(setting, control, report)?;
    distributions(setting, control, report)?;
    measures::run(setting, control, report)?;
    corrupt(setting, control, report)?;
    overtaking(setting, control, report)?;
    losses(setting, control, report)?;
    sources(setting, control, report)?;
    threads(setting, control, report)?;
    fidelities(setting, control, report)
}

fn many_layers(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let (clients, layers) = if setting.effort == Effort::Full { (10_000, 4) } else { (2_000, 3) };
    let small = Small {
        layers,
        width: 2,
        mix: "delay = \"100ms\"",
        clients,
        warm_up: 3.0,
        measure: 3.0,
        replications: 4,
        metrics: "lanes = 14\nreceivers = false",
        ..Small::default()
    };
    let (found, error) = entropy(&small.run(setting, Fidelity::Index, false, control)?);
    let expected = mean_field_entropy(f64::from(clients), layers, 0.1);
    let name = format!("{layers} layers at high traffic: entropy, bits");
    report(Check::within(name, expected, found, (3.0 * error).max(0.02)));
    Ok(())
}

fn batch_mixes(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let measure = if setting.effort == Effort::Full { 2_000.0 } else { 200.0 };
    let cases = [
        ("threshold mix of 20", "kind = \"threshold\"\nthreshold = 20", 20.0_f64.log2()),
        (
            "pool mix, 20 leave and 30 stay",
            "kind = \"pool\"\nbatch = 20\nkeep = 30",
            pool_mix_entropy(20.0, 30.0),
        ),
        (
            "timed mix, 50 packets in an interval",
            "kind = \"timed\"\ninterval = \"500ms\"",
            timed_mix_entropy(50.0),
        ),
    ];
    for (name, mix, expected) in cases {
        let small = Small { mix, measure, ..Small::default() };
        let (found, error) = entropy(&small.run(setting, Fidelity::Index, false, control)?);
        report(Check::within(format!("{name}: entropy, bits"), expected, found, (4.0 * error).max(1e-6)));
    }
    Ok(())
}

/// Pools at intervals that make them independent, departures in the intervals between, times under way.
#[derive(Default)]
struct Watch {
    interval: Duration,
    from: Time,
    /// The first mix of the last layer.
    last_layer: u32,
    pools: Vec<f64>,
    departures: Vec<f64>,
    since: BTreeMap<u32, f64>,
    transits: Vec<f64>,
    passed: u32,
}

impl Observer for Watch {
    fn sampling(&self) -> Option<Duration> {
        Some(self.interval)
    }

    fn sample(&mut self, now: Time, _unfinished: usize, in_mix: &mut dyn Iterator<Item = f64>) {
        let departures = core::mem::take(&mut self.since);
        if now >= self.from {
            for (mix, packets) in (0..).zip(in_mix) {
                self.pools.push(packets);
                if mix >= self.last_layer {
                    self.departures.push(departures.get(&mix).copied().unwrap_or(0.0));
                }
            }
        }
    }

    // Mixes of one layer are independent; one layer's departures are the next one's arrivals.
    fn departed(&mut self, _now: Time, mix: u32) {
        *self.since.entry(mix).or_default() += 1.0;
    }

    fn ended(&mut self, now: Time, id: PacketId, packets: &Packets, arrived: bool) {
        let packet = packets.get(id);
        // One in a few, which hardly meet each other.
        self.passed += 1;
        if arrived && packet.sent >= self.from && self.passed.is_multiple_of(7) {
            self.transits.push((now - packet.sent).as_secs_f64());
        }
    }
}

/// The probability that these counts come from a Poisson distribution of this mean.
fn is_poisson(counts: &[f64], mean: f64) -> f64 {
    let Ok(poisson) = Poisson::new(mean) else { return 0.0 };
    let most = counts.iter().copied().fold(0.0, f64::max) as usize + 1;
    let mut observed = vec![0.0; most + 1];
    counts.iter().for_each(|&count| observed[count as usize] += 1.0);
    let total = counts.len() as f64;
    let mut expected: Vec<f64> = (0..most as u64).map(|count| total * poisson.pmf(count)).collect();
    expected.push(total - expected.iter().sum::<f64>());
    chi_square(&observed, &expected, 0)
}

fn distributions(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    // Pools of 12 on average; they are looked at ten mean delays apart.
    let (mean, interval) = (0.1, 1.0);
    let small =
        Small { layers: 3, width: 4, mix: "delay = \"100ms\"", link: 0.02, clients: 480, ..Small::default() };
    let scenario = small.scenario()?;
    let length = if setting.effort == Effort::Full { 600.0 } else { 60.0 };
    let mut watch = Watch {
        interval: Duration::from_secs_f64(interval),
        from: Time::from_nanos(5_000_000_000),
        last_layer: 8,
        ..Watch::default()
    };
    let window =
        Window { warm_up: Duration::from_secs_f64(length), batch: Duration::from_nanos(1), batches: 1 };
    let seeds = Seeds::new(3, 0);
    if world::run(&scenario, &seeds, window, Fidelity::Index, &mut watch, control)?.is_none() {
        return Err(VerifyError::Interrupted);
    }
    let arrivals = 480.0 / 4.0;
    report(Check::fits("pools against Poisson: p", is_poisson(&watch.pools, arrivals * mean)));
    report(Check::fits(
        "departures of a mix against Poisson: p",
        is_poisson(&watch.departures, arrivals * interval),
    ));
    let erlang = Gamma::new(3.0, 1.0 / mean).map_err(|_| VerifyError::Interrupted)?;
    let fit = kolmogorov(&mut watch.transits, |transit| erlang.cdf((transit - 0.08).max(0.0)));
    report(Check::fits("time under way against Erlang: p", fit));
    // The test would see a mean that is 3 % off.
    let off = Gamma::new(3.0, 1.0 / (1.03 * mean)).map_err(|_| VerifyError::Interrupted)?;
    let misfit = kolmogorov(&mut watch.transits, |transit| off.cdf((transit - 0.08).max(0.0)));
    if setting.effort == Effort::Full {
        report(Check::within("the same against a mean that is 3 % off: p", 0.0, misfit, 1e-4));
    }
    Ok(())
}

fn corrupt(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let small = Small {
        layers: 3,
        width: 4,
        corrupt: 2,
        mix: "delay = \"100ms\"",
        measure: if setting.effort == Effort::Full { 600.0 } else { 60.0 },
        warm_up: 3.0,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let targets: Vec<&TargetResult> = outcome.targets().map(|(_, target)| target).collect();
    let bare: Vec<&&TargetResult> = targets.iter().filter(|target| target.corrupt_hops == 3).collect();
    let expected = 0.5_f64.powi(3);
    let error = (expected * (1.0 - expected) / targets.len() as f64).sqrt();
    let share = bare.len() as f64 / targets.len() as f64;
    report(Check::within("routes of corrupt mixes alone, 2 of 4 in 3 layers", expected, share, 4.0 * error));
    let known = bare.iter().map(|target| target.entropy.abs()).reduce(f64::max).unwrap_or(f64::NAN);
    report(Check::within("the entropy of those, bits", 0.0, known, 0.0));
    let all = Small { corrupt: 4, ..small };
    let outcome = all.run(setting, Fidelity::Index, false, control)?;
    let greatest = outcome.targets().map(|(_, target)| target.entropy.abs()).reduce(f64::max);
    let greatest = greatest.unwrap_or(f64::NAN);
    report(Check::within("the entropy if all mixes are corrupt, bits", 0.0, greatest, 0.0));
    Ok(())
}

/// "First in, first out" guesses which of two consecutive messages left a mix first, and is right unless the second one came
/// while the first was inside and overtook it.
fn overtaking(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    for ratio in [0.5, 1.0, 4.0] {
        let measure = if setting.effort == Effort::Full { 100_000.0 } else { 10_000.0 } / ratio;
        let small = Small {
            interval: 100.0 / ratio,
            measure,
            warm_up: 1.0,
            replications: 2,
            metrics: "lanes = 1\nreceivers = false",
            ..Small::default()
        };
        let outcome = small.run(setting, Fidelity::Index, true, control)?;
        let wins: Moments = outcome
            .replications
            .iter()
            .flat_map(|one| {
                let mut rows: Vec<_> = one.trace.iter().map(|row| (row.sent, row.ended)).collect();
                rows.sort_unstable();
                // The last ones are missing if they had not arrived.
                rows.truncate(rows.len() * 9 / 10);
                let pairs: Vec<_> = rows.chunks_exact(2).map(|two| f64::from(two[0].1 <= two[1].1)).collect();
                pairs
            })
            .collect();
        let expected = 1.0 - ratio / (2.0 * (1.0 + ratio));
        let error = (expected * (1.0 - expected) / wins.count() as f64).sqrt();
        let name = format!("first in, first out is right, r = {ratio}");
        report(Check::within(name, expected, wins.mean().unwrap_or(f64::NAN), 4.0 * error));
    }
    Ok(())
}

fn losses(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let loss: f64 = 0.02;
    let small = Small {
        layers: 3,
        width: 3,
        loss,
        link: 0.01,
        mix: "delay = \"100ms\"",
        client: "emission = \"loopix\"\nmain_interval = \"1s\"\nloop_interval = \"1s\"\ndrop_interval = \"1s\"",
        interval: 2.0,
        metrics: "lanes = 14\nmonitored_clients = 100\nloop_timeout = \"5s\"",
        measure: if setting.effort == Effort::Full { 400.0 } else { 60.0 },
        warm_up: 5.0,
        replications: 4,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let expected = 1.0 - (1.0 - loss).powi(4);
    let sent: u64 = outcome.replications.iter().map(|one| one.result.batches[0].all_sent()).sum();
    let error = (expected * (1.0 - expected) / sent as f64).sqrt();
    let (lost, _) = found(&outcome, "loss");
    report(Check::within("packets lost on 4 links that lose 2 %", expected, lost, 5.0 * error));
    let loops: LoopStats = outcome.replications.iter().map(|one| one.result.client_loops).sum();
    let error = (expected * (1.0 - expected) / loops.due as f64).sqrt();
    let lost = loops.delivery_ratio().map_or(f64::NAN, |delivered| 1.0 - delivered);
    report(Check::within("loops that the deployed monitor calls lost", expected, lost, 5.0 * error));
    // What is lost of a target's probability is lost of all packets alike.
    let (residual, error) = found(&outcome, "residual");
    report(Check::within("probability of targets that is lost", expected, residual, 5.0 * error));
    Ok(())
}

/// One clock for all clients, or one for each: the same in law.
fn sources(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let both = ["superposed", "individual"].map(|timing| {
        let client = format!(
            "timing = \"{timing}\"\nemission = \"loopix\"\nmain_interval = \"500ms\"\nloop_interval = \"2s\"\ndrop_interval = \"4s\""
        );
        let small = Small {
            layers: 2,
            width: 3,
            client: &client,
            mix: "delay = \"200ms\"",
            interval: 1.0,
            warm_up: 10.0,
            measure: if setting.effort == Effort::Full { 300.0 } else { 40.0 },
            metrics: "lanes = 14\nchallenge = true",
            ..Small::default()
        };
        small.run(setting, Fidelity::Index, false, control)
    });
    let [superposed, individual] = both;
    let (superposed, individual) = (superposed?, individual?);
    for metric in [
        "entropy_bits",
        "receiver_entropy_bits",
        "latency_s",
        "waiting_s",
        "overhead",
        "likelihood_difference",
    ] {
        let name = format!("superposed, individual clients: {metric}");
        report(alike(name, metric, &individual, &superposed));
    }
    Ok(())
}

fn threads(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let small = Small {
        layers: 3,
        width: 3,
        mix: "delay = \"100ms\"",
        measure: 20.0,
        warm_up: 3.0,
        replications: 6,
        metrics: "challenge = true",
        ..Small::default()
    };
    let outcomes =
        [1, 2].map(|threads| small.run(Setting { threads, ..setting }, Fidelity::Index, true, control));
    let [one, two] = outcomes;
    let differ = f64::from(u8::from(one? != two?));
    report(Check::within("results on 1 and on 2 threads that differ", 0.0, differ, 0.0));
    Ok(())
}

/// Numbers and real Sphinx packets give the same results; every real packet went where and when its header says.
fn fidelities(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let full = setting.effort == Effort::Full;
    let small = Small {
        layers: 3,
        width: 2,
        link: 0.005,
        mix: "delay = \"50ms\"",
        clients: 20,
        client: "emission = \"loopix\"\nmain_interval = \"200ms\"\nloop_interval = \"2s\"\ndrop_interval = \"2s\"",
        interval: 0.5,
        warm_up: 2.0,
        measure: if full { 20.0 } else { 2.0 },
        replications: if full { 8 } else { 4 },
        metrics: "lanes = 14",
        ..Small::default()
    };
    let numbers = small.run(setting, Fidelity::Index, false, control)?;
    let packets = small.run(setting, Fidelity::Packets, false, control)?;
    let sent = |outcome: &Outcome| -> u64 {
        outcome.replications.iter().map(|one| one.result.batches[0].all_sent()).sum()
    };
    report(Check::within(
        "packets sent, numbers against Sphinx",
        sent(&numbers) as f64,
        sent(&packets) as f64,
        0.0,
    ));
    for metric in ["entropy_bits", "receiver_entropy_bits", "transit_s"] {
        report(alike(format!("numbers against Sphinx: {metric}"), metric, &numbers, &packets));
    }
    let counts: Vec<WireCounts> = packets.replications.iter().filter_map(|one| one.result.wire).collect();
    let wrong: u64 = counts.iter().map(|wire| wire.dropped + wire.astray + wire.wrong_end).sum();
    report(Check::within("Sphinx packets that went another way or left late", 0.0, wrong as f64, 0.0));
    let arrived: u64 = counts.iter().map(|wire| wire.arrived).sum();
    let delivered: u64 = packets.replications.iter().map(|one| one.result.delivered).sum();
    report(Check::within("Sphinx packets opened at their end", delivered as f64, arrived as f64, 0.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_values_are_those_that_are_published() {
        // Serjantov and Danezis, 2002: a threshold mix is a pool mix that keeps nothing.
        assert_eq!(pool_mix_entropy(16.0, 0.0), 4.0);
        for (rho, bits) in [(0.1, 0.193_934), (1.0, 1.511_227), (10.0, 4.763_046), (100.0, 8.086_539)] {
            assert!((single_mix_entropy(rho) - bits).abs() < 1e-6, "{rho}");
        }
        assert!((single_mix_entropy(1e5) - (core::f64::consts::E * 1e5).log2()).abs() < 1e-4);
        // The sum goes over into the limit.
        let step = single_mix_entropy(1.01e6) - single_mix_entropy(0.99e6);
        assert!((step - (1.01_f64 / 0.99).log2()).abs() < 1e-6, "{step}");
        // A single layer at high traffic is a single mix.
        assert!((mean_field_entropy(1e5, 1, 1.0) - single_mix_entropy(1e5)).abs() < 1e-4);
        assert!((mean_field_entropy(1e6, 3, 4.0 / 15.0) - 20.690_17).abs() < 1e-5);
    }
}

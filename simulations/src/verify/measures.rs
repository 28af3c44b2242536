//! Every metric whose value follows from theory, and simulations of it.

use statrs::distribution::{Binomial, Discrete as _, Poisson};

use super::oracles::{Small, found, pool_mix_entropy, single_mix_entropy};
use super::{Check, Effort, Setting, VerifyError};
use crate::experiment::Outcome;
use crate::metrics::Moments;
use crate::stats::Estimate;
use crate::world::{Control, Fidelity};

/// E\[min-entropy\] in bits of a message through a single Poisson mix whose pool has `rho` packets on average.
///
/// The first packet to leave after the message came is the likeliest: each later one has at most its probability, 1/n of the
/// n packets that were inside. The message itself finds a Poisson number of others, and before anything leaves more may come:
/// with n inside, the next event is an arrival with probability rho/(n + rho).
#[must_use]
pub fn single_mix_min_entropy(rho: f64) -> f64 {
    let Ok(poisson) = Poisson::new(rho) else { return f64::NAN };
    let most = (rho + 14.0 * rho.sqrt() + 60.0) as u64;
    // That there are ever n inside before anything leaves.
    let mut reached = 0.0;
    (1..=most)
        .map(|inside| {
            let n = inside as f64;
            let grown = if inside > 1 { reached * rho / (n - 1.0 + rho) } else { 0.0 };
            reached = poisson.pmf(inside - 1) + grown;
            reached * n / (n + rho) * n.log2()
        })
        .sum()
}

/// What a threshold mix of `batch` packets tells about two of `clients` who send equally much: the mean of abs(ln(p0/p1))
/// over packets where both are possible, and the share where one is, of those where any is.
///
/// Each packet of a batch has the same probability to be a sender's, so that all depends on how many of the batch are whose.
#[must_use]
pub fn threshold_likelihood(batch: u64, clients: u64) -> (f64, f64) {
    let share = 1.0 / clients as f64;
    let binomial = |share: f64, packets| {
        let distribution = Binomial::new(share, packets);
        move |count| distribution.map_or(f64::NAN, |distribution| distribution.pmf(count))
    };
    let of_first = binomial(share, batch);
    let (mut difference, mut both, mut one) = (0.0, 0.0, 0.0);
    for first in 0..=batch {
        let of_second = binomial(share / (1.0 - share), batch - first);
        for second in 0..=batch - first {
            let probability = of_first(first) * of_second(second);
            match (first, second) {
                (0, 0) => {}
                (0, _) | (_, 0) => one += probability,
                _ => {
                    both += probability;
                    difference += probability * (first as f64 / second as f64).ln().abs();
                }
            }
        }
    }
    (difference / both, one / (both + one))
}

/// E\[entropy\] in bits over the receivers of `batch` packets that go to any of `clients` alike.
#[must_use]
pub fn receiver_entropy(batch: u64, clients: u64) -> f64 {
    let Ok(binomial) = Binomial::new(1.0 / clients as f64, batch) else { return f64::NAN };
    let of_one = |packets: u64| {
        let q = packets as f64 / batch as f64;
        binomial.pmf(packets) * -q * q.log2()
    };
    clients as f64 * (1..=batch).map(of_one).sum::<f64>()
}

/// Twice as many replications as elsewhere, half as long: four standard errors are then few false alarms.
const MANY: u32 = 16;

/// The value that a simulation finds is within four standard errors, and `slack` for what is known not to be exact.
fn agrees(name: String, expected: f64, outcome: &Outcome, metric: &str, slack: f64) -> Check {
    let (value, error) = found(outcome, metric);
    Check::within(name, expected, value, 4.0 * error + slack)
}

pub(super) fn run(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    poisson_mix(setting, control, report)?;
    batches(setting, control, report)?;
    challenge(setting, control, report)?;
    traffic(setting, control, report)?;
    honest_mixes(setting, control, report)
}

fn poisson_mix(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let measure = if setting.effort == Effort::Full { 5_000.0 } else { 250.0 };
    let rho = 5.0;
    let small = Small { interval: 100.0 / rho, measure, replications: MANY, ..Small::default() };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let name = |what: &str| format!("single mix, rho {rho}: {what}");
    let min_entropy = single_mix_min_entropy(rho);
    report(agrees(name("min-entropy, bits"), min_entropy, &outcome, "min_entropy_bits", 0.0));
    // Packets leave in the order of their probabilities. While the message is inside, rho others leave on average. What is
    // left of a target in the end, and the width of bins, is in the slack.
    report(agrees(name("guesses"), rho + 1.0, &outcome, "guesses", 0.003 * (rho + 1.0)));
    Ok(())
}

fn batches(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let measure = if setting.effort == Effort::Full { 1_000.0 } else { 100.0 };
    let clients = 10;
    let run = |mix: &str| {
        let metrics = "lanes = 62\nreceivers = true";
        let small =
            Small { mix, measure, clients, interval: 0.1, metrics, replications: MANY, ..Small::default() };
        small.run(setting, Fidelity::Index, false, control)
    };
    let outcome = run("kind = \"threshold\"\nthreshold = 20")?;
    let expected = [
        ("min_entropy_bits", 20.0_f64.log2(), 1e-9),
        ("guesses", 10.5, 1e-9),
        ("anonymity_set", 20.0, 0.0),
        ("receiver_entropy_bits", receiver_entropy(20, clients.into()), 0.0),
    ];
    for (metric, value, slack) in expected {
        report(agrees(format!("threshold mix of 20: {metric}"), value, &outcome, metric, slack));
    }
    let outcome = run("kind = \"pool\"\nbatch = 20\nkeep = 30")?;
    // The message stays for 30/20 rounds on average. In its own, it is any of 20.
    let expected = [
        ("entropy_bits", pool_mix_entropy(20.0, 30.0), 1e-6),
        ("min_entropy_bits", 50.0_f64.log2(), 1e-9),
        ("guesses", 30.0 + 10.5, 0.003 * 40.5),
    ];
    for (metric, value, slack) in expected {
        report(agrees(format!("pool mix, 20 leave and 30 stay: {metric}"), value, &outcome, metric, slack));
    }
    Ok(())
}

fn challenge(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let small = Small {
        mix: "kind = \"threshold\"\nthreshold = 20",
        clients: 20,
        interval: 0.2,
        measure: if setting.effort == Effort::Full { 1_000.0 } else { 100.0 },
        metrics: "lanes = 1\nreceivers = false\nchallenge = true",
        replications: MANY,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let (difference, delta) = threshold_likelihood(20, 20);
    for (metric, expected) in [("likelihood_difference", difference), ("likelihood_delta", delta)] {
        report(agrees(format!("threshold mix of 20: {metric}"), expected, &outcome, metric, 0.0));
    }
    // A pool of ten on average, which is hardly ever empty: after the warm-up every packet may be anybody's.
    let small = Small {
        clients: 20,
        interval: 2.0,
        warm_up: 100.0,
        measure: if setting.effort == Effort::Full { 1_000.0 } else { 100.0 },
        metrics: "lanes = 1\nreceivers = false\nchallenge = true",
        replications: MANY,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    report(Check::within(
        "single mix, rho 10: likelihood_delta",
        0.0,
        found(&outcome, "likelihood_delta").0,
        0.005,
    ));
    Ok(())
}

fn traffic(setting: Setting, control: &Control, report: &mut dyn FnMut(Check)) -> Result<(), VerifyError> {
    let small = Small {
        mix: "delay = \"100ms\"",
        client: "emission = \"loopix\"\nmain_interval = \"500ms\"\nloop_interval = \"1s\"\ndrop_interval = \"2s\"",
        interval: 1.0,
        measure: if setting.effort == Effort::Full { 1_000.0 } else { 100.0 },
        replications: MANY,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let name = |metric: &str| format!("Loopix clients, 3.5 ticks per message: {metric}");
    report(agrees(name("overhead"), 3.5, &outcome, "overhead", 0.0));
    // A queue that a Poisson process fills and another one, twice as fast, empties.
    report(agrees(name("waiting_s"), 1.0, &outcome, "waiting_s", 0.0));
    report(agrees(name("latency_s"), 1.1, &outcome, "latency_s", 0.0));
    Ok(())
}

/// In one layer, a target that goes through an honest mix has the entropy of that mix alone, whatever the others are.
fn honest_mixes(
    setting: Setting,
    control: &Control,
    report: &mut dyn FnMut(Check),
) -> Result<(), VerifyError> {
    let small = Small {
        width: 4,
        corrupt: 2,
        interval: 5.0,
        measure: if setting.effort == Effort::Full { 2_000.0 } else { 200.0 },
        replications: MANY,
        ..Small::default()
    };
    let outcome = small.run(setting, Fidelity::Index, false, control)?;
    let of = |corrupt: u32| {
        let means = outcome.replications.iter().filter_map(|one| {
            let targets = one.result.targets.iter().filter(|target| target.corrupt_hops == corrupt);
            targets.map(|target| target.entropy).collect::<Moments>().mean()
        });
        let found = Estimate::new(means, 0.95);
        found.map_or((f64::NAN, f64::NAN), |found| (found.mean, found.standard_error.unwrap_or(f64::NAN)))
    };
    let (honest, error) = of(0);
    let expected = single_mix_entropy(5.0);
    report(Check::within("honest mixes beside corrupt ones: entropy, bits", expected, honest, 4.0 * error));
    report(Check::within("corrupt mixes beside honest ones: entropy, bits", 0.0, of(1).0, 0.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_are_right_where_they_can_be_counted() {
        // Two packets of two clients: each pair of senders, or of receivers, with a probability of a quarter.
        let (difference, delta) = threshold_likelihood(2, 2);
        assert!(difference.abs() < 1e-12 && (delta - 0.5).abs() < 1e-12, "{difference}, {delta}");
        assert!((receiver_entropy(2, 2) - 0.5).abs() < 1e-12);
        assert!((receiver_entropy(1, 7)).abs() < 1e-12);
        // Three packets of two clients: 2:1 or 1:2 in six of eight cases, all of one in two.
        let (difference, delta) = threshold_likelihood(3, 2);
        assert!((difference - 2.0_f64.ln()).abs() < 1e-9 && (delta - 0.25).abs() < 1e-9);
        // Hardly any others: one is there already, or comes before the message leaves.
        assert!((single_mix_min_entropy(1e-4) / 2e-4 - 1.0).abs() < 1e-3);
        // Many others: those that are there, nearly.
        assert!((single_mix_min_entropy(1e5) - 1e5_f64.log2()).abs() < 1e-4);
    }
}
